"""Finds out from REST what is missing since the checkpoints that a run resumed from."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Backoff
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed request
_LINES = (30, 600.0)  # log lines of each kind, per seconds
_STATISTICS = 24 * 3600.0  # seconds that the exchange's statistics cover


class Newest(NamedTuple):
    """REST's newest trade of a pair: its id, and its time in ms, 0 if unknown."""

    trade_id: int
    timestamp: int = 0


class LookBack:
    """Without it, only the next trade of each stream would show what is missing, which on a quiet pair may take long.

    One pair is asked for by its newest trade. Several are asked for together, in the statistics of 24 hours, which name
    the newest id of each; then those that were not traded in that time, and have an older checkpoint, one by one.

    Args:
        settings: the limits.
        repair: repairs what is found.
        newest: REST's newest trade of a pair; raises `UnavailableError`.
        last_ids: the newest ids of all pairs that were traded within 24 hours; raises `UnavailableError`.
        stopping: set when the run ends.
    """

    def __init__(
        self,
        settings: Settings,
        repair: Repair,
        *,
        newest: Callable[[str], Trade],
        last_ids: Callable[[], Mapping[str, int]],
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._repair = repair
        self._newest = newest
        self._last_ids = last_ids
        self._stopping = stopping
        self._lines = Throttle(log, *_LINES)
        self._left: dict[Lane, Position] = {}
        self._together = False
        self._retry_at = -math.inf
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)

    def add(self, resumed: Mapping[Lane, Position]) -> None:
        """Ask for these pairs, which resumed after these positions."""
        self._left |= resumed
        self._together = len(self._left) > 1

    def turn(self) -> None:
        """Send at most one request, if it is due."""
        if not self._left or time.monotonic() < self._retry_at:
            return
        try:
            if self._together:
                self._ask_together()
            else:
                lane, resumed = next(iter(self._left.items()))
                trade = self._newest(lane.symbol)
                del self._left[lane]
                self._look(lane, resumed, Newest(trade.trade_id, trade.timestamp))
        except UnavailableError as error:
            self._retry_at = time.monotonic() + max(self._backoff.next(), error.retry_after)
            if not self._stopping.is_set():
                self._lines.warn("resume_unknown", f"Cannot check yet what was missed since the last run: {error}")
            if error.lasting:
                self._left.clear()
        else:
            self._backoff.reset()
            self._repair.outage.reset()

    def _ask_together(self) -> None:
        last_ids = self._last_ids()
        self._together = False
        now = time.time()
        for lane, resumed in list(self._left.items()):
            last_id = last_ids.get(lane.symbol, -1)
            if last_id >= 0 or resumed.timestamp / 1000 > now - _STATISTICS:
                del self._left[lane]
                self._look(lane, resumed, Newest(last_id))

    def _look(self, lane: Lane, resumed: Position, newest: Newest) -> None:
        ahead, limit = newest.trade_id - resumed.trade_id, self._settings.resume_limit
        if ahead > limit:
            # It may be another pair's, from a cache: ids given up because of it would never be published.
            self._lines.warn(
                "resume_beyond_limit",
                f"REST's newest trade id {newest.trade_id}{lane.of} is {ahead} above the last one on the topic, more "
                f"than RESUME_LIMIT ({limit}); waiting for the next trade of the stream to show what is missing",
                newest=newest.trade_id,
                ahead=ahead,
            )
            return
        self._repair.of(lane).absence.observe(newest.timestamp)
        lane.expect(newest.trade_id, hint=True)
