"""Which pairs a live run loads: found at its start, and looked up again while it runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from loader_ws_trades.binance.listing import Listing
from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.config.symbols import is_pattern
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.interfaces import LaneKeeper
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.run.resume import NO_TRADE, Resume, Start
from loader_ws_trades.text import counted, listed

log = logging.getLogger(__name__)
events = Events(log)

_LINES = (10, 3600.0)  # log lines of each kind, per seconds
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed request
_FIRST_TRADE = 5.0  # seconds between looks for the first trade of a new pair
_NAMED = 20  # pairs that a log line names at most


class Streams(Protocol):
    """What carries the pairs."""

    def add(self, *symbols: str) -> None:
        """Let pairs join."""

    def remove(self, symbol: str) -> None:
        """Let a pair leave."""


class Pairs:
    """The pairs of `settings.symbols`. `find` and `prepare` are called once, then `turn` in the repair thread.

    A new listing is looked up on the topic, as it may have been loaded before. Else it begins at its first trade: that
    must be known before the stream is joined, so the stream is joined once there is one.

    Args:
        settings: the names and patterns, and how often they are looked up again.
        rest: knows which pairs are traded, and their first and last ids.
        streams: carries the pairs.
        resume: knows where pairs resume.
        closed: ends every wait.
    """

    def __init__(
        self,
        settings: Settings,
        rest: Rest,
        streams: Streams,
        resume: Resume,
        closed: threading.Event,
    ) -> None:
        self._settings = settings
        self._rest = rest
        self._streams = streams
        self._resume = resume
        self._closed = closed
        self._has_patterns = any(map(is_pattern, settings.symbols or ()))
        self._listing = Listing(settings)
        self._keeper: LaneKeeper | None = None
        self._lanes: dict[str, Lane] = {}
        self._unborn: dict[str, Lane] = {}  # new pairs whose first trade is not known yet
        self._look_at = self._first_trade_at = 0.0
        self._lines = Throttle(log, *_LINES)
        self.on_end: list[Callable[[Lane], None]] = []
        """Called with each pair that is not listed any more."""

    def find(self) -> None:
        """Find the pairs.

        Raises:
            ConfigurationError: if the exchange does not know one of the names.
            RunError: if it does not answer.
        """
        self._listing.update(self._statuses())
        self._look_at = time.monotonic() + self._settings.symbols_refresh
        pairs = self._listing.pairs
        which = f": {listed(pairs, _NAMED)}" if pairs else "; waiting for one to be listed"
        events.info("symbols", f"Loading {counted(len(pairs), 'pair')}{which}", pairs=len(pairs))

    def _statuses(self) -> Mapping[str, str]:
        names = [entry for entry in self._settings.symbols or () if not is_pattern(entry)]
        patience, backoff = Deadline(self._settings.repair_outage_limit), Backoff(_FIRST_DELAY, _DELAY_CAP)
        while True:
            try:
                return self._rest.check_symbols(names)
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                if not self._has_patterns:
                    events.warn("symbol_unchecked", f"The pairs could not be checked, continuing anyway: {error}")
                    return {}
                if patience.passed or self._closed.is_set():
                    raise RunError(
                        f"Cannot list the exchange's pairs ({error}); check {named('binance_rest_url')}, or name "
                        f"the pairs in {named('symbols')}"
                    ) from error
                self._lines.warn("symbols_unknown", f"Cannot list the exchange's pairs yet: {error}; retrying")
                self._closed.wait(min(max(backoff.next(), error.retry_after), patience.remaining + 0.01))

    def prepare(self, keeper: LaneKeeper) -> dict[Lane, Position]:
        """Make the lanes, and let them resume; returns where those do that have trades on the topic.

        Raises:
            RunError: if the brokers do not answer.
        """
        self._keeper = keeper
        lanes = keeper.add(self._listing.pairs)
        self._lanes = {lane.symbol: lane for lane in lanes}
        resumed = self._resume.positions(lanes)
        for lane, position in resumed.items():
            lane.resume(position)
        self._streams.add(*(lane.symbol for lane in lanes if lane not in self._resume.unsettled))
        return resumed

    def turn(self) -> None:
        """Do what is due; called about once a second."""
        now = time.monotonic()
        if self._has_patterns and now >= self._look_at:
            self._look_at = now + self._settings.symbols_refresh
            self._look()
        for lane, start in self._resume.settle().items():
            self._join(lane, start)
        if self._unborn and now >= self._first_trade_at:
            self._first_trade_at = now + _FIRST_TRADE
            self._find_first_trades()

    def _join(self, lane: Lane, start: Start) -> None:
        if start.last == NO_TRADE:
            self._unborn[lane.symbol] = lane
            return
        if start.last is not None:
            lane.resume(Position(start.last))
            if self._settings.gap_repair == "on":
                lane.expect(start.newest, hint=True)
        self._streams.add(lane.symbol)

    def _look(self) -> None:
        try:
            change = self._listing.update(self._rest.trading_symbols())
        except UnavailableError as error:
            self._lines.warn("symbols_unknown", f"Cannot look up the pairs again: {error}; retrying later")
            return
        for symbol in change.removed:
            self._end(symbol)
        if change.added:
            self._add(change.added)

    def _end(self, symbol: str) -> None:
        lane = self._lanes.pop(symbol, None)
        if lane is None or self._keeper is None:
            return
        self._lines.info("pair_ended", f"{symbol} is no longer listed; ending it", pair=symbol)
        if self._unborn.pop(symbol, None) is None and self._resume.unsettled.pop(lane, None) is None:
            self._streams.remove(symbol)
        for forget in self.on_end:
            forget(lane)
        self._keeper.end(lane, "finished", f"{symbol} is no longer listed")

    def _add(self, symbols: Sequence[str]) -> None:
        if self._keeper is None:
            return
        self._lines.info("pairs_new", f"New pairs: {', '.join(symbols[:_NAMED])}", pairs=len(symbols))
        lanes = self._keeper.add(symbols)
        self._lanes |= {lane.symbol: lane for lane in lanes}
        try:
            resumed = self._resume.positions(lanes)
        except RunError as error:
            resumed = {}
            self._lines.warn(
                "resume_unknown",
                f"Starting new pairs at their first trade of the last 24 hours: {error}",
            )
        for lane in lanes:
            if lane in resumed:
                lane.resume(resumed[lane])
            if lane not in self._resume.unsettled:
                self._unborn[lane.symbol] = lane

    def _find_first_trades(self) -> None:
        try:
            tickers = self._rest.tickers(list(self._unborn))
        except UnavailableError as error:
            self._lines.warn("first_trade_unknown", f"Cannot look up the first trades of new pairs: {error}; retrying")
            return
        for symbol, lane in list(self._unborn.items()):
            ticker = tickers.get(symbol)
            if ticker is not None and ticker.first_id >= 0:
                del self._unborn[symbol]
                lane.start_after(ticker.first_id - 1)
                if self._settings.gap_repair == "on":  # else the stream's first trade shows what is missing
                    lane.expect(ticker.last_id, hint=True)
                self._streams.add(symbol)
