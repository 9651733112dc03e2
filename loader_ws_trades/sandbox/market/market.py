"""One symbol's market: it issues the trades of a history by the clock, whether or not anybody is connected."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from loader_ws_trades.sandbox.market.history import BLOCK, Generated, History, Patterns, Recorded, Trade
from loader_ws_trades.sandbox.market.numbering import Numbering, Sequence

_FASTEST = 5_000_000.0

Status = Literal["TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY"]


class Market:
    """Issues trades by the clock, with or without an exchange; past trades are available by position.

    Positions count the trades from 0, holes included; `issued` of them have passed. At a `speed` of `math.inf` there
    is no clock: the exchange issues trades as fast as its clients read them.
    """

    def __init__(
        self,
        history: History,
        *,
        speed: float = 1.0,
        start: Literal["now", "subscriber"] = "now",
        past: int = 0,
        count: int | None = None,
        status: Status = "TRADING",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Consider `past` trades issued before the start, and stop after `count` trades in all (none: never).

        `status` is a label for `exchangeInfo` and may be set at any time; it does not stop trades.
        """
        if not speed > 0 or past < 0:
            raise ValueError("the speed must be above 0, the past not below 0")
        self.history = history
        self.symbol = history.symbol
        self.speed = speed
        self.status: Status = status
        sizes = [size for size in (history.size, count) if size is not None]
        self.size = min(sizes) if sizes else None
        """Number of trades in all; none: endless."""
        self._past = past if self.size is None else min(past, self.size)
        self._issued_flat_out = self._past
        self.numbering = Numbering(history)
        self._clock = clock
        self._began: float | None = None
        last = history.size
        self._lead = self._offset(self._past if last is None else min(self._past, last - 1))
        self._origin = self._now() if past else None
        if start == "now":
            self.begin()

    @classmethod
    def generated(
        cls,
        symbol: str = "BTCUSDT",
        *,
        rate: float = 100.0,
        seed: int = 0,
        first_id: int = 1_000_000,
        price: str = "100.00",
        tick: str = "0.01",
        lot: str = "0.001",
        start: Literal["now", "subscriber"] = "now",
        past: int = 0,
        count: int | None = None,
        status: Status = "TRADING",
    ) -> "Market":
        """Return a market of trades from a seed, at a mean `rate` in trades a second; `math.inf`: flat out."""
        # Flat out, trades may be read faster than this, so trade times never lie in the future.
        nominal = min(rate, _FASTEST)
        patterns = Patterns(seed, price=price, tick=tick, lot=lot)
        history = Generated(symbol, patterns, rate=nominal, first_id=first_id)
        speed = math.inf if rate == math.inf else 1.0
        return cls(history, speed=speed, start=start, past=past, count=count, status=status)

    @classmethod
    def recorded(
        cls,
        path: str | Path,
        *,
        speed: float = 1.0,
        rate: float | None = None,
        start: Literal["now", "subscriber"] = "now",
        past: int = 0,
        count: int | None = None,
        status: Status = "TRADING",
    ) -> "Market":
        """Return a market of recorded frames, at their own pace times `speed`, or at a mean `rate` (trades a second).

        `math.inf` for either: flat out. Raises `ValueError` if the file holds no trades.
        """
        history = Recorded(path)
        if rate is not None:
            speed = rate / history.rate
        return cls(history, speed=speed, start=start, past=past, count=count, status=status)

    @property
    def stream(self) -> str:
        """Name of the market's stream."""
        return f"{self.symbol.lower()}@trade"

    @property
    def flat_out(self) -> bool:
        """Whether trades are issued as fast as clients read them."""
        return self.speed == math.inf

    @property
    def first_id(self) -> int:
        """Id of the very first trade."""
        return self.history.block(0).ids[0]

    @property
    def last_id(self) -> int | None:
        """Id of the newest trade issued; none before the first."""
        sequences = self.sequences
        return sequences[-1].last_id if sequences else None

    @property
    def sequences(self) -> list[Sequence]:
        """The ranges of ids issued, one for each restart of the numbering."""
        return self.numbering.sequences(self.issued)

    @property
    def holes(self) -> list[int]:
        """Ids skipped between others, which neither the stream nor REST will ever have."""
        return self.numbering.holes(self.issued)

    @property
    def issued(self) -> int:
        """Number of positions that have passed."""
        if self._began is None or self.flat_out:
            return self._issued_flat_out
        return max(self._due(self._clock() - self._began), self._past)

    def issued_before(self, seconds: float) -> int:
        """Return the number of positions that had passed `seconds` ago; flat out, all of them."""
        if self._began is None or self.flat_out:
            return self._issued_flat_out
        return self._due(self._clock() - self._began - seconds)

    @property
    def sequence_start(self) -> int:
        """Position at which the current sequence of ids began."""
        return self.numbering.sequence_start(self.issued)

    @property
    def origin(self) -> int:
        """Start of the history's times in Unix microseconds."""
        if self.history.origin is not None:
            return self.history.origin
        return self._now() if self._origin is None else self._origin

    def begin(self) -> None:
        """Start the clock, unless it is running."""
        if self._began is None:
            self._began = self._clock()
            if self._origin is None:
                self._origin = self._now()

    def end(self) -> None:
        """Issue no more trades."""
        self.size = self.issued

    def issue(self, position: int) -> None:
        """Issue the trades before `position`, in a market that runs flat out."""
        self._issued_flat_out = max(self._issued_flat_out, position)

    def wait(self, position: int) -> float:
        """Return the seconds until the trade at `position` is due; `math.inf` if it never will be."""
        if self._began is None or (self.size is not None and position >= self.size):
            return math.inf
        return max((self._offset(position) - self._lead) / 1_000_000 / self.speed + self._began - self._clock(), 0.0)

    def restart(self, first_id: int, position: int | None = None, *, or_now: bool = False) -> None:
        """Restart ids at `first_id` from `position` on, which must not have been issued (none: from now on).

        REST then has only later trades; times continue. `or_now`: from now on if it has been issued.
        """
        self.numbering.restart(self._future_position(position, or_now=or_now), first_id)

    def omit(self, count: int, position: int | None = None, *, or_now: bool = False) -> None:
        """Skip `count` ids from `position` on, which must not have been issued (none: from now on).

        `or_now`: from now on if it has been issued.
        """
        position = self._future_position(position, or_now=or_now)
        self.numbering.omit(position, position + count)

    def trades(self, start: int, stop: int) -> list[Trade]:
        """Return the issued trades of the positions from `start` up to `stop`."""
        return [trade for _, trade in self.placed(start, stop)]

    def placed(self, start: int, stop: int) -> list[tuple[int, Trade]]:
        """Return the issued trades of the positions from `start` up to `stop`, each with its position."""
        origin = self.origin
        found: list[tuple[int, Trade]] = []
        for position, number, shift, part in self.numbering.pieces(max(start, 0), min(stop, self.issued)):
            block = self.numbering.block(number, shift)
            shape = block.shape
            columns = zip(
                block.ids[part],
                shape.prices[part],
                shape.quantities[part],
                [origin + offset for offset in block.times[part]],
                shape.makers[part],
                strict=True,
            )
            found += enumerate((Trade(*row) for row in columns), position)
        return found

    def ids(self, start: int, stop: int) -> list[int]:
        """Return the ids of the issued trades of the positions from `start` up to `stop`."""
        return self.numbering.ids(max(start, 0), min(stop, self.issued))

    def position(self, trade_id: int) -> int:
        """Return the position of the first trade with at least that id in the current sequence, issued or not."""
        return self.numbering.position(trade_id, self.issued)

    def position_at(self, moment: int) -> int:
        """Return the position of the first trade at or after `moment` (Unix microseconds); `issued` if none is."""
        return min(self.history.due(moment - self.origin - 1), self.issued)

    def _due(self, elapsed: float) -> int:
        due = self.history.due(int(elapsed * self.speed * 1_000_000) + self._lead)
        return due if self.size is None else min(due, self.size)

    def _future_position(self, position: int | None, *, or_now: bool) -> int:
        # Read once: the clock is running.
        issued = self.issued
        if position is not None and position < issued and not or_now:
            raise ValueError(f"position {position} of {self.symbol} has already been issued")
        return issued if position is None else max(position, issued)

    def _offset(self, position: int) -> int:
        number, place = divmod(position, BLOCK)
        return self.history.block(number).times[place]

    def _now(self) -> int:
        return time.time_ns() // 1000 - self._lead
