"""Fills gaps: asks for what is missing, from the first id on, and gives up on what cannot be had. No I/O of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from loader_ws_trades.config import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Throttle
from loader_ws_trades.ports import Intake
from loader_ws_trades.sequence import Gap
from loader_ws_trades.trade import Trade
from loader_ws_trades.values import shown_span

log = logging.getLogger(__name__)

_GRACE = 0.25  # seconds for which a gap may close by itself: two trades that changed places
_LAG_DELAY = 1.0  # seconds between two questions for an id that REST does not have yet
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after REST did not answer
_PROGRESS_EVERY, _PROGRESS_AT_MOST = 10.0, 300.0  # seconds between two log lines about a long repair, growing
_LINES = (30, 600.0)  # log lines of a kind, and the seconds they are counted over: a stream may lose trades for days
_TURN = 0.2  # seconds in which the end of the run is noticed


class Repair:
    """The thread that fills gaps. `run` returns once `stopping` is set.

    A gap is *repaired*; or it is a *hole*: REST answers, and has not had its first id for `REPAIR_DEADLINE`; or it is
    left *unrepaired*: REST did not answer for `REPAIR_OUTAGE_LIMIT`, or does not serve us, for `REPAIR_DEADLINE`.

    Args:
        settings: the limits.
        fetch: trades from an id on, ascending, at most a page; raises `UnavailableError`.
        newest: the newest trade's id; raises `UnavailableError`.
        ingest: what has the gaps.
        stopping: ends every wait.
    """

    def __init__(
        self,
        settings: Settings,
        fetch: Callable[[int], list[Trade]],
        newest: Callable[[], int],
        ingest: Intake,
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._newest = newest
        self._ingest = ingest
        self._stopping = stopping
        self._told = Throttle(log, *_LINES)
        self.unrepaired: Gap | None = None
        """The last gap that was left because REST did not answer."""

    def run(self, *, resuming: bool) -> None:
        """Fill every gap as it shows itself; `resuming`: what came since the checkpoint first."""
        if resuming:
            self._look_back()
        while not self._stopping.is_set():
            if self._ingest.gap_seen.wait(_TURN):
                self._ingest.gap_seen.clear()
                self._stopping.wait(_GRACE)
                self.fill_gaps()

    def _look_back(self) -> None:
        # The next trade of the stream would show the gap too, but on a quiet pair it may be long in coming.
        try:
            self._ingest.expect(self._newest())
        except UnavailableError as error:
            log.warning("What was missed since the last run cannot be asked for yet: %s", error)

    def fill_gaps(self) -> None:
        """Fill what is missing now, and return when nothing is, or the run ends."""
        backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        silent: Deadline | None = None  # when REST's silence ends the wait
        absent: Deadline | None = None  # when an id that REST does not have is a hole
        progress = _Progress(self._ingest, self._told)
        while not self._stopping.is_set() and (gap := self._ingest.gap()) is not None:
            if not progress.begun and len(gap) > self._settings.resume_limit:
                self._ingest.skip(gap.last + 1, f"more than RESUME_LIMIT ({self._settings.resume_limit})")
                continue
            progress.begin(gap)
            try:
                rows = self._fetch(gap.first)
            except UnavailableError as error:
                absent = None
                limit = self._settings.repair_deadline if error.lasting else self._settings.repair_outage_limit
                silent = silent or Deadline(limit)
                if silent.passed:
                    self._told.warn("unrepaired", f"The gap {gap} is left unrepaired: {error}")
                    self._ingest.skip(gap.last + 1, "unrepaired")
                    self.unrepaired = gap
                    continue
                delay = min(max(backoff.next(), error.retry_after), silent.remaining + 0.01)
                waits = f"Trade ids {gap} cannot be asked for ({error}), and newer trades wait for them"
                self._told.warn("refused", f"{waits}; again in {delay:.1f} s")
                self._stopping.wait(delay)
                continue
            silent = None
            backoff.reset()
            came_out = self._ingest.fill(rows)
            if came_out:
                absent = None
                progress.note(came_out)
                continue
            absent = absent or Deadline(self._settings.repair_deadline)
            if absent.passed:
                end = min([gap.last + 1, *(row.trade_id for row in rows if row.trade_id > gap.first)])
                self._ingest.skip(end, "a hole: REST does not have them")
                absent = None
                continue
            self._stopping.wait(min(_LAG_DELAY, absent.remaining + 0.01))
        if not self._stopping.is_set():
            progress.end()


class _Progress:
    """Tells in the log how a long repair goes on."""

    def __init__(self, ingest: Intake, told: Throttle) -> None:
        self._ingest = ingest
        self._lines = told
        self._every = _PROGRESS_EVERY
        self.begun = False
        self._done = 0
        self._began = self._told = time.monotonic()
        self._told_done = 0
        self._told_behind = 0

    def begin(self, gap: Gap) -> None:
        if not self.begun:
            self.begun = True
            line = f"Repairing from trade id {gap.first} on, about {len(gap)} trades are missing"
            self._lines.info("repairing", line)
            self._told_behind = self._ingest.behind()

    def note(self, trades: int) -> None:
        self._done += trades
        passed = time.monotonic() - self._told
        if passed < self._every:
            return
        self._every = min(2 * self._every, _PROGRESS_AT_MOST)
        behind = self._ingest.behind()
        rate = (self._done - self._told_done) / passed
        stream = rate + (behind - self._told_behind) / passed
        if stream > rate:
            log.warning(
                "The stream brings %.0f trades/s and repair %.0f/s: the topic is in order, and %d trades behind; "
                "REST_WEIGHT_LIMIT (--rest-weight-limit) is what repair may use",
                stream,
                rate,
                behind,
            )
        else:
            share = self._done / (self._done + behind)
            log.info(
                "Repaired %d trades, %.0f %% of what is missing, at %.0f/s; about %s left",
                self._done,
                100 * share,
                rate,
                shown_span(behind / (rate - stream) if rate > stream else 0.0),
            )
        self._told, self._told_done, self._told_behind = time.monotonic(), self._done, behind

    def end(self) -> None:
        if self.begun:
            went = f"; {self._done} trades went on, those that had waited included" if self._done else ""
            self._lines.info("in order", f"In order again after {shown_span(time.monotonic() - self._began)}{went}")
