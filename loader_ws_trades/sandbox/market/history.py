"""The trades of one symbol by position: generated from a seed, or recorded."""

import gzip
import json
import random
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

BLOCK = 1024
"""Trades in a block; the last block of a recording may hold fewer."""

PATTERNS = 32
"""Different blocks of generated trades; after them prices, quantities and sides repeat, ids and times do not."""

_UNIT = 10**8  # Prices and quantities are whole numbers of the eighth decimal: no float touches them.


class Trade(NamedTuple):
    """One trade; `time` is in Unix microseconds."""

    id: int
    price: str
    quantity: str
    time: int
    is_buyer_maker: bool


@dataclass(frozen=True, eq=False)
class Shape:
    """A block's trades without their ids and times; compared and hashed by identity."""

    prices: Sequence[str]
    quantities: Sequence[str]
    makers: Sequence[bool]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive trades as columns; `times` are microseconds since the start of the history."""

    shape: Shape
    ids: Sequence[int]
    times: Sequence[int]


class History(Protocol):
    """The trades that a market will issue, in order of id; positions count from 0."""

    symbol: str
    size: int | None
    """Number of trades; none: endless."""
    origin: int | None
    """Unix microseconds of the start; none: chosen by the market."""

    def block(self, number: int) -> Block:
        """Return the block of positions `number * BLOCK` and following."""

    def position(self, trade_id: int) -> int:
        """Return the position of the first trade whose id is at least `trade_id`; may be past the end."""

    def due(self, elapsed: int) -> int:
        """Return how many trades lie within the first `elapsed` microseconds."""


class Patterns:
    """Blocks of random trades without ids and times, which markets may share: each takes memory and time to draw."""

    def __init__(self, seed: int = 0, *, price: str = "100.00", tick: str = "0.01", lot: str = "0.001") -> None:
        """Take where every block begins and ends its walk, and its steps."""
        self._seed = seed
        self._price, self._tick, self._lot = (int(Decimal(text) * _UNIT) for text in (price, tick, lot))
        if self._tick <= 0 or self._lot <= 0 or self._price <= BLOCK * self._tick:
            raise ValueError("tick and lot must be above 0, and the price above a walk of one block's ticks")
        self.get = lru_cache(maxsize=PATTERNS)(self._draw)

    def _draw(self, number: int) -> tuple[Shape, Sequence[float]]:
        """Return a pattern: the shape, and where in the block's time, from 0 to 1, each trade lies."""
        chance = random.Random(f"{self._seed}/{number}")
        # The moves sum to zero, so that the walk goes on smoothly from one block to the next.
        moves = [self._tick] * (BLOCK // 8) + [-self._tick] * (BLOCK // 8)
        moves += [0] * (BLOCK - len(moves))
        chance.shuffle(moves)
        sizes = list(_burst_sizes(chance))
        # The first burst comes at once: a market that has just begun has something to show.
        starts = [0.0, *sorted(chance.random() for _ in sizes[1:])]
        offsets: list[float] = []
        makers: list[bool] = []
        for start, size in zip(starts, sizes, strict=True):
            offsets += [start] * size
            makers += [chance.random() < 0.5] * size
        lots = (min(int(100 * chance.paretovariate(0.9)), 1_000_000) for _ in range(BLOCK))
        shape = Shape(
            prices=[_decimals(self._price + walked) for walked in accumulate(moves)],
            quantities=[_decimals(count * self._lot) for count in lots],
            makers=makers,
        )
        return shape, offsets


class Generated:
    """Endless trades from a seed: bursts that share a millisecond, prices that walk on a tick, contiguous ids.

    A block depends on its pattern and its number alone, so any of them can be made without the ones before it.
    """

    size: int | None = None
    origin: int | None = None

    def __init__(
        self,
        symbol: str,
        patterns: Patterns | None = None,
        *,
        rate: float = 100.0,
        first_id: int = 1_000_000,
        first_pattern: int = 0,
    ) -> None:
        """Take the mean `rate` in trades a second."""
        if not rate > 0 or first_id < 0:
            raise ValueError("the rate must be above 0 and the first id not below 0")
        self.symbol = symbol.upper()
        self.rate = rate
        self.first_id = first_id
        self._first_pattern = first_pattern
        # Exact, so that `due` and the blocks' beginnings agree to the microsecond, and faster than a Fraction.
        self._span, self._divisor = (Fraction(BLOCK * 1_000_000) / Fraction(rate)).as_integer_ratio()
        self._patterns = patterns or Patterns()
        self.block = lru_cache(maxsize=8)(self._make)

    def position(self, trade_id: int) -> int:
        """Return where `trade_id` is."""
        return max(trade_id - self.first_id, 0)

    def due(self, elapsed: int) -> int:
        """Return how many trades lie within the first `elapsed` microseconds."""
        if elapsed < 0:
            return 0
        number = elapsed * self._divisor // self._span
        return number * BLOCK + bisect_right(self.block(number).times, elapsed)

    def _make(self, number: int) -> Block:
        shape, offsets = self._patterns.get((self._first_pattern + number) % PATTERNS)
        first, begin, span = (
            self.first_id + number * BLOCK,
            -(-number * self._span // self._divisor),
            self._span / self._divisor,
        )
        # An array, because thousands of markets have a block each.
        return Block(shape, range(first, first + BLOCK), array("q", [begin + int(offset * span) for offset in offsets]))


class Recorded:
    """Trades from a file of recorded stream frames, one JSON frame a line, gzipped if its name ends in `.gz`.

    Frames of combined streams are accepted too; anything but a newer trade is skipped.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the file; raises `ValueError` if it holds no trade, or trades of several symbols."""
        columns: list[tuple[int, int, str, str, bool]] = []
        symbols = set()
        with _open(Path(path)) as lines:
            for frame in _trades(lines):
                if columns and frame["t"] <= columns[-1][0]:
                    continue
                symbols.add(frame["s"])
                # From 1e15 on a Unix time is in microseconds: recorded with timeUnit=MICROSECOND.
                time = frame["T"] if frame["T"] >= 10**15 else frame["T"] * 1000
                columns.append((frame["t"], time, frame["p"], frame["q"], frame["m"]))
        if len(symbols) != 1:
            raise ValueError(f"{path} holds trades of {len(symbols)} symbols, not of one")
        self.symbol: str = symbols.pop()
        self.size: int | None = len(columns)
        self.origin: int | None = columns[0][1]
        self._ids = [row[0] for row in columns]
        self._times = [row[1] - self.origin for row in columns]
        self._shapes = [
            Shape([row[2] for row in rows], [row[3] for row in rows], [row[4] for row in rows])
            for rows in (columns[start : start + BLOCK] for start in range(0, len(columns), BLOCK))
        ]

    @property
    def rate(self) -> float:
        """Mean rate of the recording in trades a second."""
        return len(self._ids) * 1_000_000 / max(self._times[-1], 1)

    def block(self, number: int) -> Block:
        """Return a block of the recording."""
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        return Block(self._shapes[number], self._ids[part], self._times[part])

    def position(self, trade_id: int) -> int:
        """Return where the first trade of that id or a greater one is."""
        return bisect_left(self._ids, trade_id)

    def due(self, elapsed: int) -> int:
        """Return how many trades lie within the first `elapsed` microseconds."""
        return bisect_right(self._times, elapsed)


def _burst_sizes(chance: random.Random) -> Iterator[int]:
    """Yield the sizes of one block's bursts: most are of one trade, a few of dozens."""
    left = BLOCK
    while left:
        size = min(int(chance.paretovariate(1.2)), 100, left)
        yield size
        left -= size


def _decimals(units: int) -> str:
    whole, fraction = divmod(units, _UNIT)
    return f"{whole}.{fraction:08}"


def _open(path: Path) -> AbstractContextManager[Iterable[bytes]]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _trades(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        frame = json.loads(line)
        frame = frame.get("data", frame)
        if frame.get("e") == "trade":
            yield frame
