"""A history as it is issued: under ids that may restart from another one, and without ids that are passed over."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from loader_ws_trades.sandbox.market.history import BLOCK, Block, History


class Run(NamedTuple):
    """Positions without an interruption; the ids of the history are moved by `shift`."""

    start: int
    stop: int
    shift: int


class Piece(NamedTuple):
    """The `part` of a block that is meant, and the position where it begins; the ids are moved by `shift`."""

    position: int
    number: int
    shift: int
    part: slice


class Sequence(NamedTuple):
    """Ids from one restart to the next."""

    start: int
    """Position of its first trade."""
    stop: int
    """Position behind its newest trade."""
    first_id: int
    last_id: int


class Ledger:
    """The trades of a history by position, with restarts and holes; both may lie ahead of what is issued."""

    def __init__(self, history: History) -> None:
        self.history = history
        # Replaced, never changed: other threads read them.
        self._restarts: tuple[tuple[int, int], ...] = ((0, 0),)
        self._holes: tuple[tuple[int, int], ...] = ()
        self._moved = lru_cache(maxsize=8)(self._move)

    def restart(self, position: int, first_id: int) -> None:
        """Number the trades from `first_id` on, from `position` on."""
        shift = first_id - self._id(position)
        self._restarts = tuple(sorted((dict(self._restarts) | {position: shift}).items()))

    def omit(self, start: int, stop: int) -> None:
        """Pass over the positions from `start` up to `stop`."""
        self._holes = tuple(sorted((*self._holes, (start, stop))))

    def block(self, number: int, shift: int) -> Block:
        """Return a block of the history, its ids moved by `shift`."""
        return self._moved(number, shift) if shift else self.history.block(number)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Cut the positions from `start` up to `stop` by blocks and restarts, and leave holes out."""
        for begin, end, shift in self._runs(start, stop):
            position = begin
            while position < end:
                number, low = divmod(position, BLOCK)
                high = min(end - number * BLOCK, BLOCK)
                yield Piece(position, number, shift, slice(low, high))
                position = number * BLOCK + high

    def ids(self, start: int, stop: int) -> list[int]:
        """Return the ids of the positions from `start` up to `stop`."""
        return [
            trade_id
            for _, number, shift, part in self.pieces(start, stop)
            for trade_id in self.block(number, shift).ids[part]
        ]

    def opening(self, issued: int) -> int:
        """Return where the sequence began to which the trade at position `issued` belongs."""
        return self._present(issued)[0]

    def position(self, trade_id: int, issued: int) -> int:
        """Return the position of the first trade of that id or a greater one, in the same sequence."""
        opening, shift = self._present(issued)
        return max(self.history.position(trade_id - shift), opening)

    def sequences(self, issued: int) -> list[Sequence]:
        """Return the ids of the first `issued` positions, by restarts."""
        found = []
        for start, stop, shift in self._between_restarts(issued):
            if runs := list(self._runs(start, stop)):
                first, last = self._id(runs[0].start), self._id(runs[-1].stop - 1)
                found.append(Sequence(start, stop, first + shift, last + shift))
        return found

    def holes(self, issued: int) -> list[int]:
        """Return the ids that are missing between others in the first `issued` positions."""
        found: list[int] = []
        for start, stop, first, last in self.sequences(issued):
            ids = self.ids(start, stop)
            if len(ids) <= last - first:
                found += sorted(set(range(first, last + 1)).difference(ids))
        return found

    def _runs(self, start: int, stop: int) -> Iterator[Run]:
        if len(self._restarts) == 1 and not self._holes:
            yield Run(start, stop, 0)
            return
        for sequence in self._between_restarts(stop):
            begin = max(start, sequence.start)
            for hole_start, hole_stop in self._holes:
                if hole_start >= sequence.stop:
                    break
                if hole_start > begin:
                    yield Run(begin, hole_start, sequence.shift)
                begin = max(begin, hole_stop)
            if begin < sequence.stop:
                yield Run(begin, sequence.stop, sequence.shift)

    def _between_restarts(self, stop: int) -> list[Run]:
        starts = [one for one in self._restarts if one[0] < stop]
        ends = [*(start for start, _ in starts), stop][1:]
        return [Run(start, end, shift) for (start, shift), end in zip(starts, ends, strict=True)]

    def _present(self, issued: int) -> tuple[int, int]:
        return [one for one in self._restarts if one[0] <= issued][-1]

    def _move(self, number: int, shift: int) -> Block:
        block = self.history.block(number)
        return Block(block.shape, [trade_id + shift for trade_id in block.ids], block.times)

    def _id(self, position: int) -> int:
        number, place = divmod(position, BLOCK)
        return self.history.block(number).ids[place]
