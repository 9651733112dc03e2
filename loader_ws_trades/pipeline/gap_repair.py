"""The thread that repairs gaps: which pair's turn it is, and when REST as a whole is given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Backoff
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.lane_repair import LaneRepair
from loader_ws_trades.pipeline.repair_clocks import Outage
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_GRACE = 0.25  # seconds in which a gap may close by itself, as when two trades are swapped
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed request
_LINES = (30, 600.0)  # log lines of each kind, per seconds: a stream may lose trades for days
_POLL_INTERVAL = 0.2  # seconds between checks whether the run ends, while there is a gap
# Seconds between two looks while there is no gap; a new gap ends the wait. With several pairs each look covers a slice
# of them, so looks must be frequent. With one, a look every second was a seventh of an idle loader's CPU time.
_IDLE_INTERVAL, _LONGEST_IDLE = 1.0, 3.0


class Repair:
    """The thread that repairs gaps. `run` returns once `stopping` is set.

    A gap is *repaired*; or it is a *hole*: REST responds, but has not returned its first id for `REPAIR_DEADLINE`; or
    it is left *unrepaired*: REST has not returned a useful response for `REPAIR_OUTAGE_LIMIT`, or has rejected us for
    `REPAIR_DEADLINE`. `repair_clocks` has the rules.

    Pairs with gaps take turns: in each round one page each, the smallest gap first, also if it has just appeared. A
    delay after a failed request is for all of them.

    Args:
        settings: the limits.
        fetch: returns trades of a pair from an id on, ascending, at most a page; raises `UnavailableError`.
        ingest: has the pairs.
        stopping: ends every wait.
        await_weight: waits for request weight within our own limit; raises `UnavailableError`.
        on_turn: called at least every second, with one pair every three, and between two requests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        fetch: Callable[[str, int], list[Trade]],
        ingest: Ingest,
        stopping: threading.Event,
        await_weight: Callable[[], None] = lambda: None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._ingest = ingest
        self._stopping = stopping
        self._await_weight = await_weight
        self._on_turn = on_turn
        self.outage = Outage()
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        # From an interval of 20 s on, a check is at most two looks late: a tenth of the interval.
        longer = 0.0 if settings.many else settings.stream_check_interval / 20
        self._idle = min(_LONGEST_IDLE, max(_IDLE_INTERVAL, longer))
        self._ask_from = 0.0  # when REST may be asked again (monotonic)
        self._lines = Throttle(log, *_LINES)
        self._repairs: dict[Lane, LaneRepair] = {}  # of all pairs that have had a gap
        self._open: dict[Lane, LaneRepair] = {}  # of those that have one
        self._served: set[LaneRepair] = set()  # those that have had their turn in this round

    def run(self) -> None:
        """Repair every gap when it appears."""
        while not self._stopping.is_set():
            self._on_turn()
            self.note_gaps()
            if not self.turn():
                self._ingest.gap_seen.wait(self._idle)

    def of(self, lane: Lane) -> LaneRepair:
        """The repair of a pair."""
        if lane not in self._repairs:
            request = partial(self._request, lane.symbol)
            self._repairs[lane] = LaneRepair(self._settings, lane, request, self._lines)
        return self._repairs[lane]

    def forget(self, lane: Lane) -> None:
        """A pair has ended."""
        self._repairs.pop(lane, None)
        self._open.pop(lane, None)

    def note_gaps(self, grace: float = _GRACE) -> None:
        """Take note of new gaps, which have `grace` seconds to close by themselves."""
        if not self._ingest.gap_seen.is_set():
            return
        self._ingest.gap_seen.clear()
        for lane in self._ingest.lanes_with_gaps():
            if lane not in self._open:
                if not self._open:
                    self.outage.reset_if_idle(after=self._settings.repair_outage_limit)
                self._open[lane] = self.of(lane)
                self._open[lane].begin(grace)

    def turn(self) -> bool:
        """Take the next step that is due, or wait for it for a moment; returns whether any pair has a gap."""
        if not self._open or self._stopping.is_set():
            return False
        now = time.monotonic()
        due = [repair for repair in self._open.values() if repair.due <= now]
        if now < self._ask_from or not due:
            next_at = max(self._ask_from, min(repair.due for repair in self._open.values()))
            self._stopping.wait(min(next_at - now, _POLL_INTERVAL))
            return True
        waiting = [repair for repair in due if repair not in self._served]
        if not waiting:
            self._served.clear()
        self._step(min(waiting or due, key=lambda repair: repair.size))
        return bool(self._open)

    def _step(self, repair: LaneRepair) -> None:
        self._served.add(repair)
        try:
            if repair.step():
                return
        except UnavailableError as error:
            if not self._stopping.is_set():
                self._wait_or_give_up(repair, error)
            return
        del self._open[repair.lane]
        repair.end()
        if not self._open:
            self.outage.pause()

    def _request(self, symbol: str, first: int) -> list[Trade]:
        self.outage.pause()
        try:
            self._await_weight()
        finally:
            self.outage.start()
        rows = self._fetch(symbol, first)
        self.outage.reset()
        self._backoff.reset()
        return rows

    def _wait_or_give_up(self, repair: LaneRepair, error: UnavailableError) -> None:
        settings = self._settings
        limit = settings.repair_deadline if error.lasting else settings.repair_outage_limit
        left = limit - self.outage.lasted
        if left > 0:
            delay = min(max(self._backoff.next(), error.retry_after), left)
            self._ask_from = time.monotonic() + delay
            if gap := repair.lane.gap():
                held = f"Cannot fetch trade ids {gap}{repair.lane.of} ({error}); newer trades are held"
                fields = {"first": gap.first, "last": gap.last, "delay": round(delay, 3)}
                self._lines.warn("rest_unavailable", f"{held}; retrying in {delay:.1f} s", **fields)
            return
        # No gap that is open by now has had a response.
        for each in self._open.values():
            each.leave_unrepaired(str(error))
