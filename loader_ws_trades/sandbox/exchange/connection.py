"""One connection to the exchange: a WebSocket from handshake to close, or a series of REST requests."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from loader_ws_trades.sandbox.counters import Session
from loader_ws_trades.sandbox.exchange.frames import Batch, Form, text_frame
from loader_ws_trades.sandbox.exchange.heartbeat import Heartbeat
from loader_ws_trades.sandbox.exchange.limits import RollingLimit
from loader_ws_trades.sandbox.exchange.pending_answer import PendingAnswer
from loader_ws_trades.sandbox.exchange.state import ExchangeState
from loader_ws_trades.sandbox.exchange.subscriptions import TOO_MANY, Subscriptions, answer_command, parse_target
from loader_ws_trades.sandbox.exchange.writer import Writer

_CLOSE_TIMEOUT = 1.0
_ABNORMAL = 1006


class Connection(asyncio.Protocol):
    """A client's connection, in the exchange's event loop.

    The websockets library handles the handshake and control frames without touching the socket; trade frames bypass
    it, many in one write, always whole ones.
    """

    def __init__(self, state: ExchangeState) -> None:
        self.form = Form(combined=False, microseconds=False)
        self.ip = ""
        self.session: Session | None = None
        """None for a REST client, and before the handshake."""
        self.writer: Writer
        self.subscriptions = Subscriptions(self, state.streams, state.limits.streams)
        self._state = state
        self._protocol = ServerProtocol()
        self._transport: asyncio.Transport
        self._message = b""
        self._unread = b""
        self._abandoned = False
        self._last_message = -math.inf
        self._sent = RollingLimit(state.limits.client_frames, 1.0)
        self._timers: list[asyncio.TimerHandle] = []
        self._heartbeat = Heartbeat(state.ping_interval, state.pong_timeout, self._ping, self._overdue)

    @property
    def open(self) -> bool:
        """Whether it is a WebSocket connection that neither side has begun to close."""
        return self.session is not None and self.session.closed is None

    @property
    def number(self) -> int:
        """Number of the WebSocket connection, from 1; 0 for any other connection."""
        return self.session.number if self.session else 0

    @property
    def url(self) -> str:
        """Base URL of the exchange."""
        return self._state.url

    @property
    def stuck(self) -> bool:
        """Whether it cannot continue as if nothing had happened."""
        return self._abandoned or self.writer.stuck

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self.writer = Writer(transport)
        self.ip = transport.get_extra_info("peername")[0]
        self._state.connections.add(self)
        self._state.emptied.clear()

    def data_received(self, data: bytes) -> None:
        """Process what the client sent; a silent exchange does not listen either."""
        if self.writer.silent:
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
        """The client will send nothing more; asyncio then closes the connection."""
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Clean up after the client."""
        self._stop()
        # Python 3.10 warns of a TLS transport that the client ended and nobody closed.
        self._transport.close()
        self.writer.lost()
        self._state.connections.discard(self)
        if not self._state.connections:
            self._state.emptied.set()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.writer.resume()

    # Outgoing.

    def deliver(self, batches: Iterable[Batch]) -> None:
        """Send trade frames; a client that is too far behind is disconnected."""
        faults, data = self._state.faults, list[bytes]()
        for batch in batches:
            self._state.counters.frames += len(batch.ids)
            if faults.touch(self, batch):
                # A fault may write to the connection, or end it: what precedes goes first.
                self.writer.write_trades(b"".join(data))
                self.writer.write_trades(faults.frames(self, batch))
                data.clear()
            else:
                data.append(batch.data)
        self.writer.write_trades(b"".join(data))
        if self.writer.backlog > self._state.limits.backlog:
            self._state.counters.cut_off += 1
            self.abort()

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent, or is gone."""
        await self.writer.drained()

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close with a close frame, or without one (1006); a client that does not answer it is disconnected."""
        if self._protocol.state is not State.OPEN or self.writer.silent or code == _ABNORMAL:
            self.abort()
            return
        self._stop()
        self._protocol.send_close(code, reason)
        self._flush()
        self._later(_CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Cut the connection and drop what is not sent yet."""
        self._stop()
        self._transport.abort()

    def end(self) -> None:
        """End the connection without a close frame, after everything that is already written."""
        self._stop()
        self._transport.close()
        # A client that does not read the rest would keep the connection open for ever.
        self._later(_CLOSE_TIMEOUT, self._transport.abort)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._stop()
        self.writer.reset()

    def freeze(self, *, pings: bool, for_good: bool) -> None:
        """Send nothing, or nothing but pings, and hold the rest back until `thaw`; if for good, drop it."""
        if not pings:
            self._heartbeat.forget_pings()
        self._abandoned = self._abandoned or for_good
        if not for_good:
            self.writer.hold(trades_only=pings)
            return
        self.subscriptions.clear()
        if not pings:
            self._heartbeat.stop()
            self.writer.shut()

    def thaw(self) -> None:
        """Send what was held back by `freeze`."""
        self.writer.release()
        unread, self._unread = self._unread, b""
        if unread:
            self.data_received(unread)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.writer.write(data)
            else:
                self.end()

    # Incoming.

    def _on_request(self, request: Request) -> None:
        if request.path.startswith("/api/"):
            # The connection is kept alive: each request starts with a fresh protocol.
            self._protocol = ServerProtocol()
            answer = self._state.rest.get(request.path, self.ip)
            self._state.faults.answer(PendingAnswer(self, urlsplit(request.path).path, answer, self._state.counters))
        else:
            self._handshake(request)

    def _handshake(self, request: Request) -> None:
        attempts, streams = self._state.attempts(self.ip), parse_target(request.path)
        if not attempts.allows():
            self.reject(429, "Too many connection attempts.\n", {"Retry-After": str(attempts.wait())})
        elif not self._state.faults.handshake(self):
            return
        elif streams is None:
            self.reject(404, "No such stream.\n", {})
        elif len(request.path) > self._state.limits.url:
            self.reject(414, "The URL is too long.\n", {})
        else:
            response = self._protocol.accept(request)
            self._answer_handshake(response)
            if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                self._open(*streams)

    def reject(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        """Reject the WebSocket handshake."""
        response = self._protocol.reject(HTTPStatus(status), text)
        for name, value in headers.items():
            response.headers[name] = value
        self._answer_handshake(response)

    def ignore_handshake(self) -> None:
        """Leave the WebSocket handshake unanswered."""
        self._state.counters.count_handshake(None)

    def _answer_handshake(self, response: Response) -> None:
        self._state.counters.count_handshake(response.status_code)
        self._protocol.send_response(response)
        self._flush()

    def _open(self, names: list[str], form: Form) -> None:
        self.form = form
        self.session = Session(self._state.counters.connections)
        self._state.counters.sessions.append(self.session)
        self._heartbeat.start()
        if self._state.limits.connection_age is not None:
            self._later(self._state.limits.connection_age, self.close)
        if not self.subscriptions.subscribe(names):
            self.close(1008, "Too many streams")
        self._state.faults.opened(self)

    def _on_frame(self, frame: Frame) -> None:
        if not self._sent.allows():
            self.close(1008, "Too many requests")
        elif frame.opcode is Opcode.PONG:
            self._heartbeat.pong(bytes(frame.data))
        elif frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._message += frame.data
            if frame.fin:
                message, self._message = self._message, b""
                self._on_message(message)

    def _on_message(self, message: bytes) -> None:
        now, spacing = time.monotonic(), self._state.limits.message_spacing
        if spacing is not None and now - self._last_message < spacing:
            self.close(1008, "Too many requests")
            return
        self._last_message = now
        answer = answer_command(message, self.subscriptions)
        self.writer.write(text_frame(msgspec.json.encode(answer)))
        if answer.get("error", {}).get("code") == TOO_MANY:
            self.close(1008, "Too many streams")

    # Timers.

    def _ping(self, payload: bytes) -> bool:
        if self.writer.silent:
            return False
        self._state.counters.pings += 1
        self._protocol.send_ping(payload)
        self._flush()
        return True

    def _overdue(self) -> None:
        self.close(1008, "Pong timeout")

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        now = asyncio.get_running_loop().time()
        self._timers = [timer for timer in self._timers if timer.when() > now]
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _stop(self) -> None:
        if self.session is not None:
            self.session.end()
        self.subscriptions.clear()
        self._heartbeat.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
