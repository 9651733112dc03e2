"""The providers of `backfill`: trades from REST, by id or by time, and from the exchange's archive files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from itertools import pairwise, takewhile
from typing import TypeVar

from loader_ws_trades.binance.archive import Archive
from loader_ws_trades.binance.rest import ROWS, TRADES_WEIGHT, Rest
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.trade import Trade
from loader_ws_trades.run.bounded import TradeProvider, TradeRange, give_missing, start_range

log = logging.getLogger(__name__)
events = Events(log)

_Answer = TypeVar("_Answer")

# Trade ids that REST does not have do not exist, or it is not up to date. If the next trade is older than the deadline,
# two answers in agreement are enough; else they must agree for that long.
_RECENT_DEADLINE = 10.0  # seconds; REPAIR_DEADLINE if that is less
_CONFIRM = 1.0  # seconds between two answers

_LINES = (30, 600.0)  # log lines of a kind, and the seconds in which they are counted


class RestProvider(TradeProvider):
    """Trades within bounds, from REST.

    Args:
        settings: the symbol, and the limits of REST.
        bounds: ids or times; one of them must say where to begin.
    """

    origin = "rest"

    def __init__(self, settings: Settings, bounds: Bounds) -> None:
        self._settings = settings
        self._bounds = bounds
        super().__init__()
        self._rest = Rest(settings.binance_rest_url, self._stopping, weight_limit=settings.rest_weight_limit)
        self._warnings = Throttle(log, *_LINES)

    @property
    def rest_weight(self) -> int:
        """Request weight of the last minute."""
        return self._rest.weight_used

    def survey(self) -> TradeRange | None:
        """The ids within the bounds, up to the exchange's newest trade; None if there were none in that time.

        Raises:
            ConfigurationError: if the exchange does not know the symbol, does not serve this location, or has no trade
                with one of the ids.
            RunError: if it does not answer for `REPAIR_OUTAGE_LIMIT`.
        """
        symbol, bounds = self._settings.symbol, self._bounds
        self._rest.check_symbol(symbol)
        self._newest, self._newest_at = self._retry(lambda: self._rest.newest_trade(symbol)), time.monotonic()
        newest = self._newest.trade_id
        if bounds.since is None and bounds.until is None:
            return self._between(bounds.from_id or 0, newest if bounds.to_id is None else bounds.to_id, newest)
        first = self._id_at(bounds.since, 0, newest)
        last = self._id_at(bounds.until, newest + 1, newest) - 1
        if first > last:
            events.info("nothing_to_load", f"There were no trades of {symbol} in that time")
            return None
        return TradeRange(first, last, self._time_of(self._from(first)))

    def _id_at(self, moment: int | None, default: int, newest: int) -> int:
        """The first id at or after a moment, or the one behind the newest; the default if no moment is given."""
        if moment is None:
            return default
        found = self._retry(lambda: self._rest.first_id_at(self._settings.symbol, moment))
        return newest + 1 if found is None else found

    def _between(self, first: int, last: int, newest: int) -> TradeRange:
        symbol = self._settings.symbol
        if first > newest:
            raise ConfigurationError(
                f"--from-id {first} is above the newest trade id of {symbol}, {newest}; give a lower one"
            )
        rows = self._from(first)
        oldest = rows[0].trade_id
        if first and oldest > first:
            oldest = self._from(0)[0].trade_id  # else the first ids are a hole
        if oldest > last:
            raise ConfigurationError(
                f"REST has trades of {symbol} only from id {oldest}, but the range ends at {last}; give higher ids, or "
                "load older trades with --archive"
            )
        if oldest > first:
            events.warn(
                "range_shortened",
                f"REST has trades of {symbol} only from id {oldest}, which may be the oldest it keeps: skipping ids "
                f"{first}-{oldest - 1}; load older trades with --archive",
                oldest=oldest,
            )
        return TradeRange(max(first, oldest), min(last, newest), self._time_of(rows))

    def _from(self, first_id: int) -> list[Trade]:
        """Trades from an id on, at least one."""

        def ask() -> list[Trade]:
            rows, _ = self._rest.trades_from(self._settings.symbol, first_id)
            if not rows:
                raise UnavailableError(f"REST does not have the trade {first_id} yet")
            return rows

        return self._retry(ask)

    @staticmethod
    def _time_of(rows: list[Trade]) -> int:
        return min(row.timestamp for row in rows)  # a single one may be far ahead

    def _retry(self, ask: Callable[[], _Answer], *, is_loading: bool = False) -> _Answer:
        patience: Deadline | None = None
        backoff = Backoff(0.5, 30.0)
        while True:
            try:
                return ask()
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                if error.lasting and not is_loading:
                    raise ConfigurationError(str(error)) from error
                settings = self._settings
                patience = patience or Deadline(
                    settings.repair_deadline if error.lasting else settings.repair_outage_limit
                )
                if patience.passed or self._stopping.is_set():
                    raise RunError(f"REST did not return the trades of the range: {error}; run again") from error
                # The pause that the exchange asks for may be longer than the time left.
                delay = min(max(backoff.next(), error.retry_after), patience.remaining)
                self._warnings.warn("rest_unavailable", f"REST is not available ({error}); retrying in {delay:.1f} s")
                self._stopping.wait(delay)

    def load(self, missing: list[Gap], receiver: Ingest) -> None:
        """Fetch the trades of the ranges.

        Raises:
            RunError: if REST did not answer for `REPAIR_OUTAGE_LIMIT`, or serves us no more, for `REPAIR_DEADLINE`.
        """
        for wanted in missing:
            start_range(wanted, receiver.lane)
            receiver.lane.expect(wanted.last)
            self._load(wanted, receiver)

    def _load(self, wanted: Gap, receiver: Ingest) -> None:
        lane, deadline = receiver.lane, min(self._settings.repair_deadline, _RECENT_DEADLINE)
        absent_since: dict[int, float] = {}  # by the first id of a hole
        while not self._stopping.is_set() and (gap := lane.gap()) is not None:
            # A second answer is asked for with another id, so that no cache gives the first one again.
            rows = self._fetch(gap.first - (gap.first in absent_since), receiver)
            if rows is None:
                return
            times = {row.trade_id: row.timestamp for row in rows if row.trade_id >= gap.first}
            edges = [gap.first - 1, *times] if times else [gap.first - 1, wanted.last + 1]
            holes = {left + 1: right for left, right in pairwise(edges) if right > left + 1}
            now = time.monotonic()
            for first in holes:
                absent_since.setdefault(first, now)
            lane.fill(rows)
            while (gap := lane.gap()) is not None and (end := holes.get(gap.first)) is not None:
                is_old = end in times and self._age(times[end], now) > deadline
                if now < absent_since[gap.first] + (_CONFIRM if is_old else deadline):
                    self._stopping.wait(_CONFIRM)
                    break
                lane.skip(min(end, wanted.last + 1), "a hole: REST does not have them")

    def _age(self, timestamp: int, now: float) -> float:
        """Seconds since a trade, by the exchange's clock."""
        return now - self._newest_at + (self._newest.timestamp - timestamp) / 1000

    def _fetch(self, first_id: int, receiver: Ingest) -> list[Trade] | None:
        """At most a page of trades from an id on; None if the run ends."""
        try:
            rows, rejected = self._retry(
                lambda: self._rest.trades_from(self._settings.symbol, max(0, first_id)), is_loading=True
            )
        except RunError:
            if self._stopping.is_set():
                return None
            raise
        receiver.reject(rejected)
        return rows


class ArchiveProvider(TradeProvider):
    """The trades of the exchange's public archive files: `paths`, zip or csv, of one symbol."""

    origin = "archive"

    def __init__(self, paths: Iterable[str], symbol: str) -> None:
        super().__init__()
        self._archive = Archive(paths, symbol, self._stopping)

    def survey(self) -> TradeRange | None:
        """Check all files to their ends; raises `ConfigurationError` if one cannot be used."""
        summary = self._archive.check()
        return TradeRange(summary.first_id, summary.last_id, summary.first_time)

    def load(self, missing: list[Gap], receiver: Ingest) -> None:
        """Hand over the trades of the ranges."""
        batches = takewhile(lambda _: not self._stopping.is_set(), self._archive.batches())
        give_missing(batches, missing, receiver.lane, "the archive does not have them", self._stopping)


def cost(settings: Settings, missing: Iterable[Gap]) -> tuple[int, float]:
    """How many requests it takes to fetch ranges from REST, and about how many minutes."""
    requests = sum(-(-len(gap) // ROWS) for gap in missing)
    return requests, requests * TRADES_WEIGHT / settings.rest_weight_limit
