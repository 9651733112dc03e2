"""Fills gaps: asks for what is missing, from the first id on, and gives up on what cannot be had. No I/O of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.interfaces import Intake
from loader_ws_trades.pipeline.repair_clocks import Absence, Outage
from loader_ws_trades.pipeline.sequencer import Gap, Position
from loader_ws_trades.pipeline.trade import Trade
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

_GRACE = 0.25  # seconds for which a gap may close by itself: two trades that changed places
_OTHERS_GRACE, _OTHERS_LOOK = 1.0, 0.05  # seconds for which another connection may still bring it; between two looks
_LAG_DELAY = 1.0  # seconds between two questions for an id that REST does not have yet
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed REST request
_PROGRESS_EVERY, _PROGRESS_AT_MOST = 10.0, 300.0  # seconds between two log lines about a long repair, growing
_LINES = (30, 600.0)  # log lines of a kind, and the seconds they are counted over: a stream may lose trades for days
_SAME_TIME = 60_000  # ms; trades with the same id that are further apart are not the same trade
_PAGE = 1000  # ids; what REST lacks beyond it is rather the end of what it keeps than a hole
_TURN = 0.2  # seconds in which the end of the run is noticed


class Repair:
    """The thread that fills gaps. `run` returns once `stopping` is set.

    A gap is *repaired*; or it is a *hole*: REST answers, and has not had its first id for `REPAIR_DEADLINE`; or it is
    left *unrepaired*: REST gave no useful answer for `REPAIR_OUTAGE_LIMIT`, or does not serve us, for
    `REPAIR_DEADLINE`. `repair_clocks` has the rules.

    Args:
        settings: the limits.
        fetch: trades from an id on, ascending, at most a page; raises `UnavailableError`.
        newest: the newest trade; raises `UnavailableError`.
        ingest: what has the gaps.
        stopping: ends every wait.
        await_turn: waits until we may ask by our own limit; raises `UnavailableError`.
        on_turn: called several times a second, while no gap is open.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        fetch: Callable[[int], list[Trade]],
        newest: Callable[[], Trade],
        ingest: Intake,
        stopping: threading.Event,
        await_turn: Callable[[], None] = lambda: None,
        on_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._newest = newest
        self._ingest = ingest
        self._stopping = stopping
        self._await_turn = await_turn
        self._on_turn = on_turn
        self._outage = Outage()
        self._absence = Absence(settings.repair_deadline)
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._told = Throttle(log, *_LINES)
        self._waited_for = -1  # the highest id that other connections were given time to bring

    def run(self, *, resumed: Position | None) -> None:
        """Fill every gap as it shows itself; what came since the position that the run resumed from first."""
        again = Deadline(0.0)
        while not self._stopping.is_set():
            if resumed and again.passed:
                wait = self._look_back(resumed)
                resumed, again = resumed if wait is not None else None, Deadline(wait or 0.0)
            self._on_turn()
            if self._ingest.gap_seen.wait(_TURN):
                self._ingest.gap_seen.clear()
                self._stopping.wait(_GRACE)
                self.fill_gaps()

    def _look_back(self, resumed: Position) -> float | None:
        """Ask what is missing since the checkpoint; seconds until that is to be tried again, None if it is not."""
        # The next trade of the stream would show the gap too, but on a quiet pair it may be long in coming.
        try:
            newest = self._newest()
        except UnavailableError as error:
            delay = max(self._backoff.next(), error.retry_after)
            if not self._stopping.is_set():
                self._told.warn(
                    "resume_unknown", f"What was missed since the last run cannot be asked for yet: {error}"
                )
            return None if error.lasting else delay
        self._backoff.reset()
        self._outage.reset()
        ahead, limit = newest.trade_id - resumed.trade_id, self._settings.resume_limit
        if ahead > limit:
            # It may be another pair's, out of a cache: what is given up for it would never be published again.
            self._told.warn(
                "resume_beyond_limit",
                f"REST's newest trade id {newest.trade_id} is {ahead} above the last one on the topic, more than "
                f"RESUME_LIMIT ({limit}): the next trade of the stream shows what is missing",
                newest=newest.trade_id,
                ahead=ahead,
            )
            return None
        self._absence.observe(newest.timestamp)
        self._ingest.expect(newest.trade_id, hint=True)
        return None

    def fill_gaps(self) -> None:
        """Fill what is missing now, and return when nothing is, or the run ends."""
        self._outage.reset_if_idle(after=self._settings.repair_outage_limit)
        progress = _Progress(self._ingest, self._told)
        while not self._stopping.is_set() and (gap := self._gap()) is not None:
            if not progress.begun and len(gap) > self._settings.resume_limit:
                self._ingest.skip(gap.last + 1, f"more than RESUME_LIMIT ({self._settings.resume_limit})")
                continue
            progress.begin(gap)
            seen = self._newest_seen(gap)
            try:
                rows = self._ask(gap.first)
            except UnavailableError as error:
                if not self._stopping.is_set():
                    self._wait_or_give_up(gap, error)
                continue
            if self._ingest.is_hint() and self._are_foreign(gap.first - 1, rows):
                self._drop_hint("belongs to another exchange or pair")
                continue
            self._absence.add(gap.first, seen, rows)
            if came_out := self._ingest.fill(rows):
                progress.note(came_out)
            self._pass_holes()
        self._outage.pause()
        if not self._stopping.is_set():
            progress.end()

    def _gap(self) -> Gap | None:
        """The ids that are missing now; those that another open connection may still bring are given time for that."""
        gap = self._ingest.gap()
        if gap is not None and gap.first > self._waited_for:
            patience = Deadline(_OTHERS_GRACE)
            while not (self._ingest.is_confirmed() or patience.passed or self._stopping.wait(_OTHERS_LOOK)):
                pass
            gap = self._ingest.gap()
            if gap is not None:
                self._waited_for = self._newest_seen(gap)
        return gap

    def _newest_seen(self, gap: Gap) -> int:
        return gap.first + self._ingest.behind() - 1

    def _ask(self, first: int) -> list[Trade]:
        # An old hole shows by its neighbours on both sides, and whose answers these are by the trade before.
        with_last = self._absence.lacks(first) or self._ingest.is_hint()
        begin = max(0, first - 1) if with_last else first
        self._outage.pause()
        try:
            self._await_turn()
        finally:
            self._outage.start()
        rows = self._fetch(begin)
        self._outage.reset()
        self._backoff.reset()
        return rows

    def _wait_or_give_up(self, gap: Gap, error: UnavailableError) -> None:
        limit = self._settings.repair_deadline if error.lasting else self._settings.repair_outage_limit
        left = limit - self._outage.lasted
        if left > 0:
            delay = min(max(self._backoff.next(), error.retry_after), left)
            waits = f"Trade ids {gap} cannot be asked for ({error}), and newer trades wait for them"
            fields = {"first": gap.first, "last": gap.last, "delay": round(delay, 3)}
            self._told.warn("rest_unavailable", f"{waits}; again in {delay:.1f} s", **fields)
            self._stopping.wait(delay)
            return
        self._told.warn("unrepaired", f"The gap {gap} is left unrepaired: {error}", first=gap.first, last=gap.last)
        # None of those that are open by now has had an answer.
        last = self._newest_seen(gap)
        left_open: Gap | None = gap
        while left_open is not None and left_open.first <= last:
            self._skip(left_open.last + 1, "unrepaired")
            left_open = self._ingest.gap()

    def _pass_holes(self) -> None:
        """Give up on what is a hole by the last answer; if nothing is, and it lacks what comes next, wait."""
        self._absence.observe(self._ingest.newest_time)
        passed = False
        while (gap := self._ingest.gap()) is not None and (hole := self._absence.hole(gap)) is not None:
            old = ", or older than what it keeps" if len(hole) > _PAGE else ""
            self._skip(hole.last + 1, f"a hole: REST does not have them{old}")
            passed = True
        if gap is not None and not passed and self._absence.lacks(gap.first):
            self._stopping.wait(min(_LAG_DELAY, self._absence.time_left(gap.first)))

    def _skip(self, before: int, why: str) -> None:
        # An id that only /api/v3/trades names may be another pair's, out of a cache: to give up ids for it would drop
        # the real trades as late. If they exist, the next trade of the stream shows that they are missing.
        if self._ingest.is_hint():
            self._drop_hint("does not return the trades up to it")
        else:
            self._ingest.skip(before, why)

    def _drop_hint(self, why: str) -> None:
        newest = self._ingest.newest_id
        if self._ingest.drop_hint():
            self._absence.clear()
            self._told.warn(
                "newest_unconfirmed",
                f"REST names {newest} as its newest trade id and {why}: nothing is repaired for it, until the stream "
                "shows what is missing",
                newest=newest,
            )

    def _are_foreign(self, last: int, rows: list[Trade]) -> bool:
        """Whether the row with the id of the last trade that came out is of another time."""
        time_of_last = self._ingest.last_time
        times = (row.timestamp for row in rows if row.trade_id == last)
        return time_of_last > 0 and any(abs(timestamp - time_of_last) > _SAME_TIME for timestamp in times)


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
            self._lines.info("gap", line, first=gap.first, missing=len(gap))
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
                extra={"event": "repair_behind", "rate": round(rate), "stream_rate": round(stream), "behind": behind},
            )
        else:
            share = self._done / (self._done + behind)
            log.info(
                "Repaired %d trades, %.0f %% of what is missing, at %.0f/s; about %s left",
                self._done,
                100 * share,
                rate,
                format_duration(behind / (rate - stream) if rate > stream else 0.0),
                extra={"event": "repair_progress", "rate": round(rate), "done": round(share, 4), "behind": behind},
            )
        self._told, self._told_done, self._told_behind = time.monotonic(), self._done, behind

    def end(self) -> None:
        if self.begun:
            went = f"; {self._done} trades went on, those that had waited included" if self._done else ""
            seconds = time.monotonic() - self._began
            line = f"In order again after {format_duration(seconds)}{went}"
            self._lines.info("repaired", line, trades=self._done, seconds=round(seconds, 3))
