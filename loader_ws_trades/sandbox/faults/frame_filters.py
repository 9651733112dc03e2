# ruff: noqa: ARG002 - the filters share one interface
"""How faults change the trade frames on their way to clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple, Protocol

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.market.market import Market


class Frame(NamedTuple):
    """Bytes for a client, at the position of a trade."""

    position: int
    data: bytes
    genuine: bool = True
    """Whether it is the trade's own frame, not one that a fault added."""


class FrameFilter(Protocol):
    """Changes frames between the stream and its subscribers."""

    runs_last: bool
    """Whether it must come after all other filters."""

    def applies_to(self, connection: Client, batch: Batch) -> bool:
        """Whether it affects the batch."""

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Return the frames to send in place of `frames`."""

    def is_over(self, market: Market, position: int) -> bool:
        """Whether it affects nothing more, once `market` is at `position`."""

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return the bytes it holds back, by client."""


class Positions(NamedTuple):
    """Positions of a market from `start` up to `stop`, on all connections or on number `only`."""

    market: Market
    start: int
    stop: int
    only: int | None

    def overlap(self, connection: Client, batch: Batch) -> bool:
        """Whether any of the batch's frames lies in it, on that connection."""
        within = batch.position < self.stop and self.start < batch.position + len(batch.ids)
        return within and batch.market is self.market and self.only in {None, connection.number}

    def passed(self, market: Market, position: int) -> bool:
        """Whether it is that market, and at `position` they have passed."""
        return market is self.market and position >= self.stop

    def contains(self, frame: Frame) -> bool:
        """Whether it is the frame of a trade in it."""
        return frame.genuine and self.start <= frame.position < self.stop


class Replacement:
    """Replaces each trade frame of a range of positions."""

    runs_last = False

    def __init__(self, positions: Positions, change: Callable[[Frame], Iterable[Frame]]) -> None:
        self._positions = positions
        self._change = change

    def applies_to(self, connection: Client, batch: Batch) -> bool:
        """Whether any of the frames is to be replaced."""
        return self._positions.overlap(connection, batch)

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Replace the frames."""
        changed: list[Frame] = []
        for frame in frames:
            changed += self._change(frame) if self._positions.contains(frame) else (frame,)
        return changed

    def is_over(self, market: Market, position: int) -> bool:
        """Whether the range has passed."""
        return self._positions.passed(market, position)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return nothing: nothing is held back."""
        return ()


class ShuffleFilter:
    """Keeps frames back until a window of them is full, and sends them in another order."""

    runs_last = False

    def __init__(self, positions: Positions, window: int, seed: int) -> None:
        """Shuffle each `window` positions of the stretch."""
        size = positions.market.size
        self._positions = positions if size is None else positions._replace(stop=min(positions.stop, size))
        self._window = window
        self._seed = seed
        self._held: dict[Client, list[Frame]] = {}

    def applies_to(self, connection: Client, batch: Batch) -> bool:
        """Whether any of the frames is to be shuffled, or some are held back."""
        waiting = connection in self._held and batch.market is self._positions.market
        return waiting or self._positions.overlap(connection, batch)

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Return complete windows, each shuffled."""
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

    def is_over(self, market: Market, position: int) -> bool:
        """Whether the range has passed and no window is incomplete."""
        return self._positions.passed(market, position) and not any(connection.open for connection in self._held)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return the incomplete windows."""
        return [(connection, b"".join(frame.data for frame in frames)) for connection, frames in self._held.items()]

    def _number(self, frame: Frame) -> int | None:
        within = self._positions.start <= frame.position < self._positions.stop
        return (frame.position - self._positions.start) // self._window if within else None

    def _end(self, number: int) -> int:
        return min(self._positions.start + (number + 1) * self._window, self._positions.stop)


class Interruption:
    """Acts in the middle of the next trade frame of each of some connections."""

    runs_last = True

    def __init__(self, connections: Iterable[Client], act: Callable[[Client], None]) -> None:
        """Call `act` when half of the frame is written; the other half follows it."""
        self._connections = set(connections)
        self._act = act

    def applies_to(self, connection: Client, batch: Batch) -> bool:
        """Whether the connection is one of them."""
        return connection in self._connections

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Write half a frame, act, return the rest."""
        if not frames:
            return frames
        self._connections.discard(connection)
        first, *others = frames
        half = len(first.data) // 2
        connection.writer.write_trades(first.data[:half])
        self._act(connection)
        return [first._replace(data=first.data[half:]), *others]

    def is_over(self, market: Market, position: int) -> bool:
        """Whether no connection is left."""
        return not any(connection.open for connection in self._connections)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return nothing: nothing is held back."""
        return ()


def _shuffled(frames: list[Frame], seed: str) -> list[Frame]:
    order = frames.copy()
    random.Random(seed).shuffle(order)
    return order if order != frames else order[::-1]
