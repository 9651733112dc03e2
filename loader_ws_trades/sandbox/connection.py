"""One client of the exchange: handshake, streams, pings and closing, or REST requests one after another."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from loader_ws_trades.sandbox.commands import obey
from loader_ws_trades.sandbox.frames import Batch, Form, text_frame
from loader_ws_trades.sandbox.limits import Rolling
from loader_ws_trades.sandbox.rest import Answer
from loader_ws_trades.sandbox.venue import Venue

_CLOSE_TIMEOUT = 1.0
_HIGH_WATER = 1024 * 1024
_ABNORMAL = 1006


class Connection(asyncio.Protocol):
    """A client's connection, in the exchange's event loop.

    The websockets library does handshake and control frames without touching the socket; trade frames go past it, many
    in one write, and always whole ones.
    """

    def __init__(self, venue: Venue) -> None:
        self.form = Form(combined=False, microseconds=False)
        self.ip = ""
        self._venue = venue
        self._protocol = ServerProtocol()
        self._transport: asyncio.Transport
        self._names: dict[str, None] = {}
        self._message = b""
        self._sent = Rolling(venue.limits.client_frames, 1.0)
        self._timers: list[asyncio.TimerHandle] = []
        self._unanswered: dict[bytes, asyncio.TimerHandle] = {}
        self._room = asyncio.Event()
        self._room.set()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take up a connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.ip = transport.get_extra_info("peername")[0]
        self._venue.connections.add(self)
        self._venue.emptied.clear()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
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
        self._room.set()
        self._venue.connections.discard(self)
        if not self._venue.connections:
            self._venue.emptied.set()

    def pause_writing(self) -> None:
        """Take note that the client reads too slowly."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Take note that the client has caught up."""
        self._room.set()

    # What goes out.

    def deliver(self, batch: Batch) -> None:
        """Send trade frames; a client that is too far behind is cut off."""
        self._venue.counters.frames += len(batch.ids)
        self.write(self._venue.faults.frames(self, batch))
        if self._transport.get_write_buffer_size() > self._venue.limits.backlog:
            self._venue.counters.cut_off += 1
            self.abort()

    async def drained(self) -> None:
        """Wait until the client has taken most of what was sent, or is gone."""
        await self._room.wait()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Close with a close frame, or without one (1006); a client that does not answer it is cut off."""
        if self._protocol.state is not State.OPEN or code == _ABNORMAL:
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

    def respond(self, answer: Answer) -> None:
        """Give a REST answer."""
        body = msgspec.json.encode(answer.body)
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += ["Content-Type: application/json;charset=UTF-8", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        self.write("\r\n".join([*lines, "\r\n"]).encode() + body)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.write(data)
            else:
                self._leave()
                self._transport.close()
                # A client that does not read what is left would keep the connection for ever.
                self._later(_CLOSE_TIMEOUT, self._transport.abort)

    # What the client asks.

    def _on_request(self, request: Request) -> None:
        if request.path.startswith("/api/"):
            # The connection is kept for further requests: each begins with a fresh protocol.
            self._protocol = ServerProtocol()
            answer = self._venue.rest.get(request.path, self.ip)
            given = self._venue.faults.answer(self, request.path, answer)
            if given is not None:
                self.respond(given)
        elif self._venue.faults.handshake(self, request.path):
            self._handshake(request)

    def _handshake(self, request: Request) -> None:
        attempts, wanted = self._venue.attempts(self.ip), _wanted(request.path)
        if not attempts.allows():
            response = self._protocol.reject(HTTPStatus.TOO_MANY_REQUESTS, "Too many connection attempts.\n")
            response.headers["Retry-After"] = str(attempts.wait())
        elif wanted is None:
            response = self._protocol.reject(HTTPStatus.NOT_FOUND, "No such stream.\n")
        else:
            response = self._protocol.accept(request)
        counters, accepted = self._venue.counters, response.status_code == HTTPStatus.SWITCHING_PROTOCOLS
        counters.connections += accepted
        counters.refused += not accepted
        self._protocol.send_response(response)
        self._flush()
        if wanted is None or not accepted:
            return
        names, self.form = wanted
        self.subscribe(names)
        self._later(self._venue.ping_interval, self._ping)
        if self._venue.limits.connection_age is not None:
            self._later(self._venue.limits.connection_age, self.close)

    def _on_frame(self, frame: Frame) -> None:
        if not self._sent.allows():
            self.close(1008, "Too many requests")
        elif frame.opcode is Opcode.PONG:
            self._on_pong(bytes(frame.data))
        elif frame.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            self._message += frame.data
            if frame.fin:
                message, self._message = self._message, b""
                self.write(text_frame(obey(message, self)))

    # Streams.

    def subscribe(self, names: list[str]) -> bool:
        """Add streams, of unknown name too; false if they are too many."""
        if len(self._names.keys() | names) > self._venue.limits.streams:
            return False
        for name in names:
            self._names[name] = None
            if name in self._venue.streams:
                self._venue.streams[name].add(self)
        return True

    def unsubscribe(self, names: list[str]) -> None:
        """Take streams away."""
        for name in names:
            self._names.pop(name, None)
            if name in self._venue.streams:
                self._venue.streams[name].remove(self)

    def names(self) -> list[str]:
        """Return the names of the streams."""
        return list(self._names)

    # Time.

    def _ping(self) -> None:
        if self._venue.faults.ping(self):
            self._venue.counters.pings += 1
            payload = str(time.time_ns() // 1000).encode()
            self._protocol.send_ping(payload)
            self._flush()
            loop = asyncio.get_running_loop()
            self._unanswered[payload] = loop.call_later(self._venue.pong_timeout, self.close, 1008, "Pong timeout")
        self._later(self._venue.ping_interval, self._ping)

    def _on_pong(self, payload: bytes) -> None:
        if payload in self._unanswered:
            # A pong answers the pings before it as well (RFC 6455, 5.5.3).
            for earlier in list(self._unanswered):
                self._unanswered.pop(earlier).cancel()
                if earlier == payload:
                    break

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        now = asyncio.get_running_loop().time()
        self._timers = [timer for timer in self._timers if timer.when() > now]
        self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def _leave(self) -> None:
        self.unsubscribe(self.names())
        for timer in (*self._timers, *self._unanswered.values()):
            timer.cancel()
        self._timers.clear()
        self._unanswered.clear()


def _wanted(target: str) -> tuple[list[str], Form] | None:
    """Return the streams that a target names, and their form; none for a target that is no stream's."""
    url = urlsplit(target)
    query = parse_qs(url.query)
    combined = url.path == "/stream"
    if not target.isascii() or not (combined or url.path == "/ws" or url.path.startswith("/ws/")):
        return None
    path = "/".join(query.get("streams", [])) if combined else unquote(url.path.removeprefix("/ws"))
    names = [name for name in path.split("/") if name]
    return names, Form(combined, "MICROSECOND" in query.get("timeUnit", []))
