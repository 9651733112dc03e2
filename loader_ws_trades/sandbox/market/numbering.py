"""The ids of a history as it is issued: they may restart at another number, and some may be skipped."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from loader_ws_trades.sandbox.market.history import BLOCK, Block, History


class Run(NamedTuple):
    """Positions without a hole; the ids of the history are shifted by `shift`."""

    start: int
    stop: int
    shift: int


class Piece(NamedTuple):
    """The `part` of a block and the position where it begins; its ids are shifted by `shift`."""

    position: int
    number: int
    shift: int
    part: slice


class Sequence(NamedTuple):
    """Ids from one restart to the next."""

    start: int
    """Position of its first trade."""
    stop: int
    """Position after its newest trade."""
    first_id: int
    last_id: int


class Numbering:
    """The trades of a history by position, with restarts and holes, which may lie in the future."""

    def __init__(self, history: History) -> None:
        self.history = history
        # Replaced, never changed: other threads read them.
        self._restarts: tuple[tuple[int, int], ...] = ((0, 0),)
        self._holes: tuple[tuple[int, int], ...] = ()
        self._shifted = lru_cache(maxsize=8)(self._shift)

    def restart(self, position: int, first_id: int) -> None:
        """Restart ids at `first_id` from `position` on."""
        shift = first_id - self._id(position)
        self._restarts = tuple(sorted((dict(self._restarts) | {position: shift}).items()))

    def omit(self, start: int, stop: int) -> None:
        """Skip the positions from `start` up to `stop`."""
        self._holes = tuple(sorted((*self._holes, (start, stop))))

    def block(self, number: int, shift: int) -> Block:
        """Return a block of the history, its ids shifted by `shift`."""
        return self._shifted(number, shift) if shift else self.history.block(number)

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Split the positions from `start` up to `stop` by blocks and restarts, leaving out holes."""
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

    def sequence_start(self, issued: int) -> int:
        """Return the start of the sequence that position `issued` belongs to."""
        return self._sequence_at(issued)[0]

    def position(self, trade_id: int, issued: int) -> int:
        """Return the position of the first trade with at least that id in the same sequence."""
        sequence_start, shift = self._sequence_at(issued)
        return max(self.history.position(trade_id - shift), sequence_start)

    def sequences(self, issued: int) -> list[Sequence]:
        """Return the sequences of the first `issued` positions."""
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

    def _sequence_at(self, issued: int) -> tuple[int, int]:
        return [one for one in self._restarts if one[0] <= issued][-1]

    def _shift(self, number: int, shift: int) -> Block:
        block = self.history.block(number)
        return Block(block.shape, [trade_id + shift for trade_id in block.ids], block.times)

    def _id(self, position: int) -> int:
        number, place = divmod(position, BLOCK)
        return self.history.block(number).ids[place]
