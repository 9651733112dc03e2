"""A set of trade ids that takes memory per range, not per id."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from loader_ws_trades.pipeline.events import Gap

_BITS = 10
_CHUNK = 1 << _BITS  # ids in a chunk
_ALL = (1 << _CHUNK) - 1


class IdSet:
    """Ids from 0, in chunks: full chunks are kept as ranges, all others as bit fields.

    So memory is bounded by the number of ranges, even if every second id is missing, and operations stay fast when
    ranges merge in any order.
    """

    def __init__(self) -> None:
        self._partial: dict[int, int] = {}  # chunk number -> bits
        # Ranges of full chunks, ascending, both ends included, never adjacent.
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
        """Add the ids from `first` to `last`, both included; none of them may be present yet."""
        head, tail = first >> _BITS, last >> _BITS
        if head == tail:
            self._set(head, first & _CHUNK - 1, last & _CHUNK - 1)
            return
        self._set(head, first & _CHUNK - 1, _CHUNK - 1)
        self._set(tail, 0, last & _CHUNK - 1)
        if tail - head > 1:
            self._fill(head + 1, tail - 1)

    def include(self, first: int, last: int) -> None:
        """Add the ids from `first` to `last`, both included, some of which may be present."""
        for new in list(self.holes(first, last)):
            self.add(new.first, new.last)

    def _set(self, chunk: int, low: int, high: int) -> None:
        bits = self._partial.get(chunk, 0) | (1 << high + 1) - (1 << low)
        if bits != _ALL:
            self._partial[chunk] = bits
            return
        self._partial.pop(chunk, None)
        self._fill(chunk, chunk)

    def _fill(self, first: int, last: int) -> None:
        """Mark the chunks from `first` to `last` as full, which none of them was."""
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

    @property
    def size(self) -> int:
        """The number of parts it consists of, of some 250 bytes each."""
        return len(self._partial) + len(self._firsts)

    def ranges(self) -> Iterator[Gap]:
        """The ids as the fewest ascending ranges."""
        return self._joined(self._partial, 0, 0)

    def holes(self, first: int, last: int) -> Iterator[Gap]:
        """The ids from `first` to `last`, both included, that are not present, as ranges."""
        head, tail = first >> _BITS, last >> _BITS
        chunks: Iterable[int]
        if tail - head < len(self._partial):
            chunks = filter(self._partial.__contains__, range(head, tail + 1))
        else:
            chunks = (chunk for chunk in self._partial if head <= chunk <= tail)
        missing = first
        for present in self._joined(chunks, bisect_left(self._lasts, head), first):
            if present.first > last:
                break
            if present.first > missing:
                yield Gap(missing, present.first - 1)
            missing = max(missing, present.last + 1)
        if missing <= last:
            yield Gap(missing, last)

    def _joined(self, chunks: Iterable[int], full: int, begin: int) -> Iterator[Gap]:
        first, last = 0, -1
        for start, end in self._pieces(chunks, full, begin):
            if start == last + 1 and last >= first:
                last = end
                continue
            if last >= first:
                yield Gap(first, last)
            first, last = start, end
        if last >= first:
            yield Gap(first, last)

    def _pieces(self, chunks: Iterable[int], full: int, begin: int) -> Iterator[tuple[int, int]]:
        """Ascending, possibly adjacent ranges: full chunks from index `full` on, and `chunks` from id `begin` on."""
        for chunk in sorted(chunks):
            while full < len(self._firsts) and self._firsts[full] < chunk:
                yield self._firsts[full] << _BITS, (self._lasts[full] + 1 << _BITS) - 1
                full += 1
            base = max(chunk << _BITS, begin)
            bits = self._partial[chunk] >> base - (chunk << _BITS)
            while bits:
                skipped = (bits & -bits).bit_length() - 1
                bits >>= skipped
                length = (bits + 1 & ~bits).bit_length() - 1
                base += skipped
                yield base, base + length - 1
                base += length
                bits >>= length
        for place in range(full, len(self._firsts)):
            yield self._firsts[place] << _BITS, (self._lasts[place] + 1 << _BITS) - 1


def ranges(ids: Iterable[int]) -> list[Gap]:
    """Ids, in any order, as the fewest ascending ranges."""
    found: list[Gap] = []
    for trade_id in sorted(set(ids)):
        if found and found[-1].last + 1 == trade_id:
            found[-1] = Gap(found[-1].first, trade_id)
        else:
            found.append(Gap(trade_id, trade_id))
    return found


class Bounds(NamedTuple):
    """A range of ids, both ends included, or of times in milliseconds, end excluded; None is open."""

    from_id: int | None = None
    to_id: int | None = None
    since: int | None = None
    until: int | None = None

    def __bool__(self) -> bool:
        return any(bound is not None for bound in self)
