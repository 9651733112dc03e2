# ruff: noqa: ARG002 - not every tampering needs all that it is told
"""What faults do to the trade frames on their way to the clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple, Protocol

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.market.market import Market


class Frame(NamedTuple):
    """Bytes for a client, at the place of a trade."""

    position: int
    data: bytes
    sound: bool = True
    """Whether it is the trade's own frame, and not one that a fault has added."""


class Tampering(Protocol):
    """Something between the stream and its subscribers."""

    last: bool
    """Whether nothing may change what it gives out."""

    def touches(self, connection: Client, batch: Batch) -> bool:
        """Whether it has to do with that batch."""

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Return what is to be sent in place of `frames`."""

    def over(self, position: int) -> bool:
        """Whether it has nothing more to do from `position` on."""

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return what it keeps back, for whom."""


class Stretch(NamedTuple):
    """Positions of a market from `start` up to `stop`, on all connections or on that of the number `only`."""

    market: Market
    start: int
    stop: int
    only: int | None

    def concerns(self, connection: Client, batch: Batch) -> bool:
        """Whether some of the batch's frames lie in it, as far as that connection goes."""
        within = batch.position < self.stop and self.start < batch.position + len(batch.ids)
        return within and batch.market is self.market and self.only in {None, connection.number}

    def holds(self, frame: Frame) -> bool:
        """Whether it is the frame of a trade that lies in it."""
        return frame.sound and self.start <= frame.position < self.stop


class Change:
    """Sends something else in place of each trade frame of a stretch."""

    last = False

    def __init__(self, stretch: Stretch, change: Callable[[Frame], Iterable[Frame]]) -> None:
        self._stretch = stretch
        self._change = change

    def touches(self, connection: Client, batch: Batch) -> bool:
        """Whether some frames lie in the stretch."""
        return self._stretch.concerns(connection, batch)

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Change the frames of the stretch."""
        changed: list[Frame] = []
        for frame in frames:
            changed += self._change(frame) if self._stretch.holds(frame) else (frame,)
        return changed

    def over(self, position: int) -> bool:
        """Whether the stretch is behind."""
        return position >= self._stretch.stop

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return nothing: nothing is kept back."""
        return ()


class Shuffling:
    """Keeps frames back until a window of them is full, and sends them in another order."""

    last = False

    def __init__(self, stretch: Stretch, window: int, seed: int) -> None:
        """Shuffle each `window` positions of the stretch."""
        size = stretch.market.size
        self._stretch = stretch if size is None else stretch._replace(stop=min(stretch.stop, size))
        self._window = window
        self._seed = seed
        self._held: dict[Client, list[Frame]] = {}

    def touches(self, connection: Client, batch: Batch) -> bool:
        """Whether some frames lie in the stretch, or some are kept back."""
        waiting = connection in self._held and batch.market is self._stretch.market
        return waiting or self._stretch.concerns(connection, batch)

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Send whole windows, in another order."""
        sent: list[Frame] = []
        windows = [list(group) for _, group in groupby((*self._held.pop(connection, ()), *frames), self._number)]
        for window in windows:
            number = self._number(window[0])
            if number is None:
                sent += window
            elif window is windows[-1] and window[-1].position + 1 < self._end(number):
                self._held[connection] = window
            else:
                sent += _shuffled(window, f"{self._seed}/{number}")
        return sent

    def over(self, position: int) -> bool:
        """Whether the stretch is behind, and nobody waits for the end of a window."""
        return position >= self._stretch.stop and not any(connection.open for connection in self._held)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return windows that are not full."""
        return [(connection, b"".join(frame.data for frame in frames)) for connection, frames in self._held.items()]

    def _number(self, frame: Frame) -> int | None:
        within = self._stretch.start <= frame.position < self._stretch.stop
        return (frame.position - self._stretch.start) // self._window if within else None

    def _end(self, number: int) -> int:
        return min(self._stretch.start + (number + 1) * self._window, self._stretch.stop)


class Break:
    """Does something in the middle of the next trade frame of each of some connections."""

    last = True

    def __init__(self, connections: Iterable[Client], act: Callable[[Client], None]) -> None:
        """Call `act` when half of the frame is written; the other half is written after it."""
        self._connections = set(connections)
        self._act = act

    def touches(self, connection: Client, batch: Batch) -> bool:
        """Whether the connection waits for it."""
        return connection in self._connections

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Write half a frame, act, and return the rest."""
        if not frames:
            return frames
        self._connections.discard(connection)
        first, *others = frames
        half = len(first.data) // 2
        connection.outlet.write_trades(first.data[:half])
        self._act(connection)
        return [first._replace(data=first.data[half:]), *others]

    def over(self, position: int) -> bool:
        """Whether no connection is left to do it to."""
        return not any(connection.open for connection in self._connections)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return nothing: nothing is kept back."""
        return ()


def _shuffled(frames: list[Frame], seed: str) -> list[Frame]:
    order = frames.copy()
    random.Random(seed).shuffle(order)
    return order if order != frames else order[::-1]
