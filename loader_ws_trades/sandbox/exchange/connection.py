"""One client of the exchange: handshake, streams, pings and closing, or REST requests one after another."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from loader_ws_trades.sandbox.counters import Session
from loader_ws_trades.sandbox.exchange.asked import Asked
from loader_ws_trades.sandbox.exchange.frames import Batch, Form, text_frame
from loader_ws_trades.sandbox.exchange.heartbeat import Heartbeat
from loader_ws_trades.sandbox.exchange.limits import Rolling
from loader_ws_trades.sandbox.exchange.outlet import Outlet
from loader_ws_trades.sandbox.exchange.subscriptions import Subscriptions, obey, wanted
from loader_ws_trades.sandbox.exchange.venue import Venue

_CLOSE_TIMEOUT = 1.0
_ABNORMAL = 1006


class Connection(asyncio.Protocol):
    """A client's connection, in the exchange's event loop.

    The websockets library does handshake and control frames without touching the socket; trade frames go past it, many
    in one write, and always whole ones.
    """

    def __init__(self, venue: Venue) -> None:
        self.form = Form(combined=False, microseconds=False)
        self.ip = ""
        self.session: Session | None = None
        """None for a REST client, and before the handshake."""
        self.outlet: Outlet
        self.subscriptions = Subscriptions(self, venue.streams, venue.limits.streams)
        self._venue = venue
        self._protocol = ServerProtocol()
        self._transport: asyncio.Transport
        self._message = b""
        self._unread = b""
        self._forsaken = False
        self._sent = Rolling(venue.limits.client_frames, 1.0)
        self._timers: list[asyncio.TimerHandle] = []
        self._heartbeat = Heartbeat(venue.ping_interval, venue.pong_timeout, self._ping, self._overdue)

    @property
    def open(self) -> bool:
        """Whether it is a stream's, and neither side has begun to close it."""
        return self.session is not None and self.session.closed is None

    @property
    def number(self) -> int:
        """Number of the stream connection, from 1; 0 if it is none."""
        return self.session.number if self.session else 0

    @property
    def url(self) -> str:
        """Base URL of the exchange."""
        return self._venue.url

    @property
    def stuck(self) -> bool:
        """Whether it can not go on as if nothing had been."""
        return self._forsaken or self.outlet.stuck

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take up a connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self.outlet = Outlet(transport)
        self.ip = transport.get_extra_info("peername")[0]
        self._venue.connections.add(self)
        self._venue.emptied.clear()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; who says nothing does not listen either."""
        if self.outlet.silent:
            self._unread += data
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._on_request(event)
            elif isinstance(event, Frame) and self._protocol.state is State.OPEN:
                self._on_frame(event)
        self._flush()

    def eof_received(self) -> None:
        """Take note that the client will send nothing more; asyncio then closes the connection."""
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the client."""
        self._leave()
        # Python 3.10 complains of a TLS transport that the client ended and nobody closed.
        self._transport.close()
        self.outlet.lost()
        self._venue.connections.discard(self)
        if not self._venue.connections:
            self._venue.emptied.set()

    def pause_writing(self) -> None:
        """Take note that the client reads too slowly."""
        self.outlet.pause()

    def resume_writing(self) -> None:
        """Take note that the client has caught up."""
        self.outlet.resume()

    # What goes out.

    def deliver(self, batch: Batch) -> None:
        """Send trade frames; a client that is too far behind is cut off."""
        self._venue.counters.frames += len(batch.ids)
        self.outlet.write_trades(self._venue.faults.frames(self, batch))
        if self.outlet.backlog > self._venue.limits.backlog:
            self._venue.counters.cut_off += 1
            self.abort()

    async def drained(self) -> None:
        """Wait until the client has taken most of what was sent, or is gone."""
        await self.outlet.drained()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close with a close frame, or without one (1006); a client that does not answer it is cut off."""
        if self._protocol.state is not State.OPEN or self.outlet.silent or code == _ABNORMAL:
            self.abort()
            return
        self._leave()
        self._protocol.send_close(code, reason)
        self._flush()
        self._later(_CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Cut the connection, with all that is not sent yet."""
        self._leave()
        self._transport.abort()

    def end(self) -> None:
        """End the connection without a close frame, behind all that is written."""
        self._leave()
        self._transport.close()
        # A client that does not read what is left would keep the connection for ever.
        self._later(_CLOSE_TIMEOUT, self._transport.abort)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._leave()
        self.outlet.reset()

    def freeze(self, *, pings: bool, for_good: bool) -> None:
        """Say nothing, or nothing but pings, and keep what there is to say until `thaw`; for good, drop it."""
        if not pings:
            self._heartbeat.forgive()
        self._forsaken = self._forsaken or for_good
        if not for_good:
            self.outlet.hold(trades_only=pings)
            return
        self.subscriptions.clear()
        if not pings:
            self._heartbeat.end()
            self.outlet.shut()

    def thaw(self) -> None:
        """Say what there was to say since `freeze`."""
        self.outlet.release()
        unread, self._unread = self._unread, b""
        if unread:
            self.data_received(unread)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.outlet.write(data)
            else:
                self.end()

    # What the client asks.

    def _on_request(self, request: Request) -> None:
        if request.path.startswith("/api/"):
            # The connection is kept for further requests: each begins with a fresh protocol.
            self._protocol = ServerProtocol()
            answer = self._venue.rest.get(request.path, self.ip)
            self._venue.faults.answer(Asked(self, urlsplit(request.path).path, answer, self._venue.counters))
        else:
            self._handshake(request)

    def _handshake(self, request: Request) -> None:
        attempts, streams = self._venue.attempts(self.ip), wanted(request.path)
        if not attempts.allows():
            self.reject(429, "Too many connection attempts.\n", {"Retry-After": str(attempts.wait())})
        elif not self._venue.faults.handshake(self):
            return
        elif streams is None:
            self.reject(404, "No such stream.\n", {})
        else:
            response = self._protocol.accept(request)
            self._answer_handshake(response)
            if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                self._welcome(*streams)

    def reject(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        """Refuse the WebSocket handshake."""
        response = self._protocol.reject(HTTPStatus(status), text)
        for name, value in headers.items():
            response.headers[name] = value
        self._answer_handshake(response)

    def neglect_handshake(self) -> None:
        """Give no answer to the WebSocket handshake."""
        self._venue.counters.tried(None)

    def _answer_handshake(self, response: Response) -> None:
        self._venue.counters.tried(response.status_code)
        self._protocol.send_response(response)
        self._flush()

    def _welcome(self, names: list[str], form: Form) -> None:
        self.form = form
        self.session = Session(self._venue.counters.connections)
        self._venue.counters.sessions.append(self.session)
        self._heartbeat.begin()
        if self._venue.limits.connection_age is not None:
            self._later(self._venue.limits.connection_age, self.close)
        self.subscriptions.subscribe(names)
        self._venue.faults.opened(self)

    def _on_frame(self, frame: Frame) -> None:
        if not self._sent.allows():
            self.close(1008, "Too many requests")
        elif frame.opcode is Opcode.PONG:
            self._heartbeat.pong(bytes(frame.data))
        elif frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._message += frame.data
            if frame.fin:
                message, self._message = self._message, b""
                self.outlet.write(text_frame(obey(message, self.subscriptions)))

    # Time.

    def _ping(self, payload: bytes) -> bool:
        if self.outlet.silent:
            return False
        self._venue.counters.pings += 1
        self._protocol.send_ping(payload)
        self._flush()
        return True

    def _overdue(self) -> None:
        self.close(1008, "Pong timeout")

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        now = asyncio.get_running_loop().time()
        self._timers = [timer for timer in self._timers if timer.when() > now]
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _leave(self) -> None:
        if self.session is not None:
            self.session.end()
        self.subscriptions.clear()
        self._heartbeat.end()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
