"""The supplies of `backfill`: trades by id or by time from REST, and the exchange's archive files."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TypeVar

from loader_ws_trades.binance.archive import Archive
from loader_ws_trades.binance.rest import ROWS, TRADES_WEIGHT, Rest
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.interfaces import Intake
from loader_ws_trades.pipeline.sequencer import Gap
from loader_ws_trades.pipeline.trade import Trade
from loader_ws_trades.run.bounded import Stretch, begin, give_lacking

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_HOLE = 10.0  # seconds after which an id that REST does not have is a hole


class FromRest:
    """Trades within bounds, from REST.

    Args:
        settings: the symbol, and the limits of REST.
        bounds: ids or times; one of them must say where to begin.
    """

    def __init__(self, settings: Settings, bounds: Bounds) -> None:
        self._settings = settings
        self._bounds = bounds
        self._stopping = threading.Event()
        self._rest = Rest(settings.binance_rest_url, self._stopping, weight_limit=settings.rest_weight_limit)

    @property
    def rest_weight(self) -> int:
        """Request weight of the last minute."""
        return self._rest.weight_used

    def survey(self) -> Stretch | None:
        """The ids within the bounds, up to the exchange's newest trade; None if nothing was printed in that time.

        Raises:
            ConfigurationError: if the exchange does not know the symbol, does not serve this location, or has no trade
                with one of the ids.
            RunError: if it does not answer for `REPAIR_OUTAGE_LIMIT`.
        """
        symbol, bounds = self._settings.symbol, self._bounds
        self._rest.check_symbol(symbol)
        newest = self._asked(lambda: self._rest.newest_id(symbol))
        if bounds.since is None and bounds.until is None:
            return self._between(bounds.from_id or 0, newest if bounds.to_id is None else bounds.to_id, newest)
        first = self._id_at(bounds.since, 0, newest)
        last = self._id_at(bounds.until, newest + 1, newest) - 1
        if first > last:
            log.info("No trade of %s was printed in that time", symbol, extra={"event": "nothing_to_load"})
            return None
        return Stretch(first, last, self._time_of(self._from(first)))

    def _id_at(self, moment: int | None, default: int, newest: int) -> int:
        """The first id at or after a moment, or the one behind the newest; the default if no moment is given."""
        if moment is None:
            return default
        found = self._asked(lambda: self._rest.first_id_at(self._settings.symbol, moment))
        return newest + 1 if found is None else found

    def _between(self, first: int, last: int, newest: int) -> Stretch:
        symbol = self._settings.symbol
        if first > newest:
            raise ConfigurationError(
                f"--from-id is {first}, and the newest trade of {symbol} has the id {newest}; give a lower one"
            )
        rows = self._from(first)
        oldest = rows[0].trade_id
        if first and oldest > first:
            oldest = self._from(0)[0].trade_id  # else the first ids are a hole
        if oldest > last:
            raise ConfigurationError(
                f"REST has trades of {symbol} from the id {oldest} on, and the range ends with {last}; give higher "
                "ids, or load older trades with --archive"
            )
        if oldest > first:
            log.warning(
                "REST has trades of %s from the id %d on, which may be the end of what it keeps: the ids %d-%d are "
                "left out; --archive loads older trades",
                symbol,
                oldest,
                first,
                oldest - 1,
                extra={"event": "range_shortened", "oldest": oldest},
            )
        return Stretch(max(first, oldest), min(last, newest), self._time_of(rows))

    def _from(self, first_id: int) -> list[Trade]:
        """Trades from an id on, at least one."""

        def ask() -> list[Trade]:
            rows, _ = self._rest.trades_from(self._settings.symbol, first_id)
            if not rows:
                raise UnavailableError(f"REST does not have the trade {first_id} yet")
            return rows

        return self._asked(ask)

    @staticmethod
    def _time_of(rows: list[Trade]) -> int:
        return min(row.timestamp for row in rows)  # a single one may be far ahead

    def _asked(self, ask: Callable[[], _Answer]) -> _Answer:
        patience, backoff = Deadline(self._settings.repair_outage_limit), Backoff(0.5, 30.0)
        while True:
            try:
                return ask()
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                if error.lasting:
                    raise ConfigurationError(str(error)) from error
                if patience.passed or self._stopping.is_set():
                    raise RunError(f"REST does not say where the range begins and ends: {error}; run again") from error
                log.info("REST does not answer (%s); asking again", error, extra={"event": "rest_unavailable"})
                # What the exchange asks for may outlast our patience.
                self._stopping.wait(min(max(backoff.next(), error.retry_after), patience.remaining))

    def load(self, lacking: list[Gap], intake: Intake) -> None:
        """Bring the trades of the ranges.

        Raises:
            RunError: if REST did not answer for `REPAIR_OUTAGE_LIMIT`.
        """

        def fetch(first_id: int) -> list[Trade]:
            rows, refusals = self._rest.trades_from(self._settings.symbol, first_id)
            intake.refuse(refusals)
            return rows

        # Nobody waits behind these gaps, and what is long past is there or is not.
        deadline = min(self._settings.repair_deadline, _HOLE)
        settings = dataclasses.replace(self._settings, resume_limit=2**63, repair_deadline=deadline)
        repair = Repair(
            settings,
            fetch=fetch,
            newest=lambda: self._rest.newest_trade(self._settings.symbol),
            ingest=intake,
            stopping=self._stopping,
            await_turn=self._rest.await_turn,
        )
        for wanted in lacking:
            begin(wanted, intake)
            intake.expect(wanted.last)
            repair.fill_gaps()
            if repair.unrepaired:
                raise RunError(f"REST did not give the trade ids {repair.unrepaired}; run again to go on there")
            if self._stopping.is_set():
                return

    def close(self) -> None:
        """End every wait."""
        self._stopping.set()


class FromArchive:
    """The trades of the exchange's public archive files.

    Args:
        paths: zip or csv files of one symbol.
        symbol: which one.
    """

    def __init__(self, paths: Iterable[str], symbol: str) -> None:
        self._stopping = threading.Event()
        self._archive = Archive(paths, symbol, self._stopping)
        self.rest_weight = 0

    def survey(self) -> Stretch | None:
        """Check the files, all of them to their ends.

        Raises:
            ConfigurationError: if one is missing, damaged or of another symbol or kind.
        """
        summary = self._archive.check()
        return Stretch(summary.first_id, summary.last_id, summary.first_time)

    def load(self, lacking: list[Gap], intake: Intake) -> None:
        """Bring what is lacking."""
        batches = takewhile(lambda _: not self._stopping.is_set(), self._archive.batches())
        give_lacking(batches, lacking, intake, "the archive does not have them", self._stopping)

    def close(self) -> None:
        """End every wait."""
        self._stopping.set()


def cost(settings: Settings, lacking: Iterable[Gap]) -> tuple[int, float]:
    """How many requests it takes to fetch ranges from REST, and about how many minutes."""
    requests = sum(-(-len(gap) // ROWS) for gap in lacking)
    return requests, requests * TRADES_WEIGHT / settings.rest_weight_limit
