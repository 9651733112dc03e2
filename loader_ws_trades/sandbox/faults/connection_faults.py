"""Faults of WebSocket connections: cuts, freezes, a shutdown that is announced, and frames without end.

They strike the connections that are open at the moment; those that come later are sound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import header, text_frame
from loader_ws_trades.sandbox.faults.fault import Fault, Injector, Occasion
from loader_ws_trades.sandbox.faults.tampering import Break

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
            raise ValueError("reset and within_frame go without a code: there is no close frame")

    def strike(self, occasion: Occasion) -> None:
        """Cut."""
        if self.within_frame:
            occasion.faults.tamper(Break(occasion.connections, self._cut))
            return
        for connection in occasion.connections:
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
    """The connection stays open, and nothing comes; the client's frames and its closing are not answered."""

    lasting: float | None = None
    """Seconds, after which all that was kept back comes; none: for good."""
    pings: bool = False
    """Only the trades stop, pings and answers go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting")

    def strike(self, occasion: Occasion) -> None:
        """Freeze."""
        for connection in occasion.connections:
            _freeze(connection, occasion.faults, self.lasting, pings=self.pings)


@dataclass(frozen=True)
class HalfOpen(Fault):
    """Half of the next trade frame comes, and then nothing."""

    lasting: float | None = None
    """Seconds, after which the other half and all that was kept back comes; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("lasting")

    def strike(self, occasion: Occasion) -> None:
        """Freeze in the middle of a frame."""

        def freeze(connection: Client) -> None:
            _freeze(connection, occasion.faults, self.lasting, pings=False)

        occasion.faults.tamper(Break(occasion.connections, freeze))


@dataclass(frozen=True)
class ServerShutdown(Fault):
    """The event `serverShutdown` comes, and after `lead` seconds the exchange closes the connection."""

    lead: float = 0.0
    code: int = 1001

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_code(self.code)
        if self.lead < 0:
            raise ValueError("lead must not be below 0")

    def strike(self, occasion: Occasion) -> None:
        """Announce it, and do it."""
        for connection in occasion.connections:
            now = time.time_ns() // 1000
            event: dict[str, object] = {
                "e": "serverShutdown",
                "E": now if connection.form.microseconds else now // 1000,
            }
            if connection.form.combined:
                event = {"stream": "!serverShutdown", "data": event}
            connection.outlet.write(text_frame(msgspec.json.encode(event)))

        def close() -> None:
            for connection in occasion.connections:
                if connection.open:
                    connection.close(self.code)

        if self.lead:
            occasion.faults.later(self.lead, close)
        else:
            close()


@dataclass(frozen=True)
class HugeFrame(Fault):
    """One frame of `size` bytes comes; all else waits until it is sent."""

    size: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 100:
            raise ValueError("size must be at least 100")

    def strike(self, occasion: Occasion) -> None:
        """Send the frame."""
        for connection in occasion.connections:
            connection.outlet.occupy(self._chunks())

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
    """One message of fragments of `size` bytes comes, and never ends: not before `count` of them."""

    size: int = 64 * 1024
    count: int = 1024 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("size", "count")

    def strike(self, occasion: Occasion) -> None:
        """Send the fragments."""
        for connection in occasion.connections:
            connection.outlet.occupy(self._fragments())

    def _fragments(self) -> Iterator[bytes]:
        yield header(len(_BEGINNING), 0x01) + _BEGINNING
        # Many small fragments in one write: a turn of the event loop for each would be slower than any client.
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
