"""A set of trade ids whose size is that of its ranges, not of its ids."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from loader_ws_trades.sequence import Gap

_BITS = 10
_CHUNK = 1 << _BITS  # ids in a chunk
_ALL = (1 << _CHUNK) - 1


class IdSet:
    """Ids from 0, in chunks: one that is full is part of a range of full ones, any other is a bit field.

    So memory is bounded by the number of ranges, also where every second id is missing, and nothing is slow where
    ranges grow together in any order.
    """

    def __init__(self) -> None:
        self._partial: dict[int, int] = {}  # number of the chunk to its bits
        # Ranges of full chunks, ascending, both ends included, no two of them adjacent.
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, trade_id: int) -> bool:
        chunk = trade_id >> _BITS
        bits = self._partial.get(chunk)
        if bits is not None:
            return bool(bits >> (trade_id & _CHUNK - 1) & 1)
        place = bisect_right(self._firsts, chunk)
        return place > 0 and chunk <= self._lasts[place - 1]

    def add(self, first: int, last: int) -> None:
        """Take in the ids from `first` to `last`, both included; none of them may be in it yet."""
        head, tail = first >> _BITS, last >> _BITS
        if head == tail:
            self._set(head, first & _CHUNK - 1, last & _CHUNK - 1)
            return
        self._set(head, first & _CHUNK - 1, _CHUNK - 1)
        self._set(tail, 0, last & _CHUNK - 1)
        if tail - head > 1:
            self._fill(head + 1, tail - 1)

    def _set(self, chunk: int, low: int, high: int) -> None:
        bits = self._partial.get(chunk, 0) | (1 << high + 1) - (1 << low)
        if bits != _ALL:
            self._partial[chunk] = bits
            return
        self._partial.pop(chunk, None)
        self._fill(chunk, chunk)

    def _fill(self, first: int, last: int) -> None:
        """Note that the chunks from `first` to `last` are full, which none of them was."""
        place = bisect_right(self._firsts, first)
        joins_left = place > 0 and self._lasts[place - 1] == first - 1
        joins_right = place < len(self._firsts) and self._firsts[place] == last + 1
        if joins_left and joins_right:
            self._lasts[place - 1] = self._lasts.pop(place)
            del self._firsts[place]
        elif joins_left:
            self._lasts[place - 1] = last
        elif joins_right:
            self._firsts[place] = first
        else:
            self._firsts.insert(place, first)
            self._lasts.insert(place, last)

    def ranges(self) -> Iterator[Gap]:
        """The fewest ascending ranges that hold all its ids and no other."""
        first, last = 0, -1
        for start, end in self._pieces():
            if start == last + 1 and last >= first:
                last = end
                continue
            if last >= first:
                yield Gap(first, last)
            first, last = start, end
        if last >= first:
            yield Gap(first, last)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Ranges, ascending, which may be adjacent."""
        full = 0
        for chunk in sorted(self._partial):
            while full < len(self._firsts) and self._firsts[full] < chunk:
                yield self._firsts[full] << _BITS, (self._lasts[full] + 1 << _BITS) - 1
                full += 1
            base, bits = chunk << _BITS, self._partial[chunk]
            while bits:
                skipped = (bits & -bits).bit_length() - 1
                bits >>= skipped
                length = (bits + 1 & ~bits).bit_length() - 1
                base += skipped
                yield base, base + length - 1
                base += length
                bits >>= length
        for first, last in zip(self._firsts[full:], self._lasts[full:], strict=True):
            yield first << _BITS, (last + 1 << _BITS) - 1

    def holes(self, first: int, last: int) -> Iterator[Gap]:
        """The ranges from `first` to `last`, both included, of ids that are not in it."""
        missing = first
        for present in self.ranges():
            if present.first > last:
                break
            if present.first > missing:
                yield Gap(missing, present.first - 1)
            missing = max(missing, present.last + 1)
        if missing <= last:
            yield Gap(missing, last)
