"""Faults of WebSocket connections: cuts, freezes, an announced shutdown, oversized frames and messages.

They affect the connections that are open when they strike, not later ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import header, text_frame
from loader_ws_trades.sandbox.faults.fault import Context, Fault, Injector
from loader_ws_trades.sandbox.faults.frame_filters import Interruption

_ABNORMAL = 1006
_CHUNK = 64 * 1024
_BEGINNING, _END = b'{"e":"trade","padding":"', b'"}'


@dataclass(frozen=True)
class Cut(Fault):
    """The connection is closed with a code, or ended without a close frame (1006), or reset."""

    code: int = _ABNORMAL
    reset: bool = False
    """A TCP reset, and no close frame."""
    within_frame: bool = False
    """In the middle of the next trade frame, and so without a close frame."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_code(self.code)
        if self.code != _ABNORMAL and (self.reset or self.within_frame):
            raise ValueError("code cannot be combined with reset or within_frame: there is no close frame")

    def strike(self, context: Context) -> None:
        """Cut."""
        if self.within_frame:
            context.injector.add_filter(Interruption(context.connections, self._cut))
            return
        for connection in context.connections:
            self._cut(connection)

    def _cut(self, connection: Client) -> None:
        if self.reset:
            connection.reset()
        elif self.code == _ABNORMAL:
            connection.end()
        else:
            connection.close(self.code)


@dataclass(frozen=True)
class Freeze(Fault):
    """The connection stays open but silent; neither the client's frames nor its close frame are answered."""

    lasting: float | None = None
    """Seconds, after which everything that was held back is sent; none: for good."""
    pings: bool = False
    """Stop only trades; pings and answers continue."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting")

    def strike(self, context: Context) -> None:
        """Freeze."""
        for connection in context.connections:
            _freeze(connection, context.injector, self.lasting, pings=self.pings)


@dataclass(frozen=True)
class HalfOpen(Fault):
    """Half of the next trade frame is sent, then nothing."""

    lasting: float | None = None
    """Seconds, after which the other half and everything held back is sent; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting")

    def strike(self, context: Context) -> None:
        """Freeze in the middle of a frame."""

        def freeze(connection: Client) -> None:
            _freeze(connection, context.injector, self.lasting, pings=False)

        context.injector.add_filter(Interruption(context.connections, freeze))


@dataclass(frozen=True)
class ServerShutdown(Fault):
    """The exchange sends `serverShutdown`, and closes the connection `lead` seconds later."""

    lead: float = 0.0
    code: int = 1001

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_code(self.code)
        if self.lead < 0:
            raise ValueError("lead must not be below 0")

    def strike(self, context: Context) -> None:
        """Announce the shutdown, then close."""
        for connection in context.connections:
            now = time.time_ns() // 1000
            event: dict[str, object] = {
                "e": "serverShutdown",
                "E": now if connection.form.microseconds else now // 1000,
            }
            if connection.form.combined:
                event = {"stream": "!serverShutdown", "data": event}
            connection.writer.write(text_frame(msgspec.json.encode(event)))

        def close() -> None:
            for connection in context.connections:
                if connection.open:
                    connection.close(self.code)

        if self.lead:
            context.injector.later(self.lead, close)
        else:
            close()


@dataclass(frozen=True)
class HugeFrame(Fault):
    """One frame of `size` bytes is sent; everything else waits behind it."""

    size: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 100:
            raise ValueError("size must be at least 100")

    def strike(self, context: Context) -> None:
        """Send the frame."""
        for connection in context.connections:
            connection.writer.stream_slowly(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        yield header(self.size) + _BEGINNING
        left = self.size - len(_BEGINNING) - len(_END)
        while left:
            chunk = min(left, _CHUNK)
            yield b"x" * chunk
            left -= chunk
        yield _END


@dataclass(frozen=True)
class Fragments(Fault):
    """A message in fragments of `size` bytes, practically endless: it ends after `count` of them."""

    size: int = 64 * 1024
    count: int = 1024 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("size", "count")

    def strike(self, context: Context) -> None:
        """Send the fragments."""
        for connection in context.connections:
            connection.writer.stream_slowly(self._fragments())

    def _fragments(self) -> Iterator[bytes]:
        yield header(len(_BEGINNING), 0x01) + _BEGINNING
        # Many small fragments in one write: one turn of the event loop each would be slower than any client.
        fragment = header(self.size, 0x00) + b"x" * self.size
        together = max(_CHUNK // len(fragment), 1)
        for _ in range(0, self.count, together):
            yield fragment * together
        yield header(len(_END), 0x80) + _END


def _check_code(code: int) -> None:
    if not (1000 <= code <= 1014 or 3000 <= code < 5000) or code in {1004, 1005}:
        raise ValueError("code must be a close code such as 1000, 1001, 1006, 1008 or 1011")


def _freeze(connection: Client, faults: Injector, lasting: float | None, *, pings: bool) -> None:
    connection.freeze(pings=pings, for_good=lasting is None)
    if lasting is not None:
        faults.later(lasting, connection.thaw)
