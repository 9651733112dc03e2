"""Repairs gaps: fetches missing trades, and gives up on those that do not exist. No I/O of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.repair_clocks import Absence, Outage
from loader_ws_trades.pipeline.trade import Trade
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)
events = Events(log)

_GRACE = 0.25  # seconds in which a gap may close by itself, as when two trades are swapped
_OTHERS_GRACE, _OTHERS_LOOK = 1.0, 0.05  # seconds in which another connection may close it; between checks
_LAG_DELAY = 1.0  # seconds between requests for an id that REST does not have yet
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed request
_PROGRESS_EVERY, _PROGRESS_AT_MOST = 10.0, 300.0  # seconds between progress lines of a long repair, growing
_LINES = (30, 600.0)  # log lines of each kind, per seconds: a stream may lose trades for days
_SAME_TIME = 60_000  # ms; two trades with the same id that are further apart are different trades
_PAGE = 1000  # ids; a longer hole rather means that REST no longer keeps them
_POLL_INTERVAL = 0.2  # seconds between checks whether the run ends


class Repair:
    """The thread that repairs gaps. `run` returns once `stopping` is set.

    A gap is *repaired*; or it is a *hole*: REST responds, but has not returned its first id for `REPAIR_DEADLINE`; or
    it is left *unrepaired*: REST has not returned a useful response for `REPAIR_OUTAGE_LIMIT`, or has rejected us for
    `REPAIR_DEADLINE`. `repair_clocks` has the rules.

    Args:
        settings: the limits.
        fetch: returns trades from an id on, ascending, at most a page; raises `UnavailableError`.
        newest: returns the newest trade; raises `UnavailableError`.
        lane: has the gaps.
        stopping: ends every wait.
        await_weight: waits for request weight within our own limit; raises `UnavailableError`.
        on_idle: called several times a second while there is no gap.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        fetch: Callable[[int], list[Trade]],
        newest: Callable[[], Trade],
        lane: Lane,
        stopping: threading.Event,
        await_weight: Callable[[], None] = lambda: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._newest = newest
        self._lane = lane
        self._stopping = stopping
        self._await_weight = await_weight
        self._on_idle = on_idle
        self._outage = Outage()
        self._absence = Absence(settings.repair_deadline)
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._lines = Throttle(log, *_LINES)
        self._waited_for = -1  # the highest id that other connections were given time to bring

    def run(self, *, resumed: Position | None) -> None:
        """Repair every gap when it appears; first of all, the one after the position that the run resumed from."""
        retry = Deadline(0.0)
        while not self._stopping.is_set():
            if resumed and retry.passed:
                wait = self._look_back(resumed)
                resumed, retry = resumed if wait is not None else None, Deadline(wait or 0.0)
            self._on_idle()
            if self._lane.gap_seen.wait(_POLL_INTERVAL):
                self._lane.gap_seen.clear()
                self._stopping.wait(_GRACE)
                self.fill_gaps()

    def _look_back(self, resumed: Position) -> float | None:
        """Find out what is missing since the checkpoint; returns seconds until a retry, None if done."""
        # The next trade of the stream would show the gap too, but on a quiet pair that may take long.
        try:
            newest = self._newest()
        except UnavailableError as error:
            delay = max(self._backoff.next(), error.retry_after)
            if not self._stopping.is_set():
                self._lines.warn("resume_unknown", f"Cannot check yet what was missed since the last run: {error}")
            return None if error.lasting else delay
        self._backoff.reset()
        self._outage.reset()
        ahead, limit = newest.trade_id - resumed.trade_id, self._settings.resume_limit
        if ahead > limit:
            # It may be another pair's, from a cache: ids given up because of it would never be published.
            self._lines.warn(
                "resume_beyond_limit",
                f"REST's newest trade id {newest.trade_id} is {ahead} above the last one on the topic, more than "
                f"RESUME_LIMIT ({limit}); waiting for the next trade of the stream to show what is missing",
                newest=newest.trade_id,
                ahead=ahead,
            )
            return None
        self._absence.observe(newest.timestamp)
        self._lane.expect(newest.trade_id, hint=True)
        return None

    def fill_gaps(self) -> None:
        """Repair what is missing, and return when nothing is, or the run ends."""
        self._outage.reset_if_idle(after=self._settings.repair_outage_limit)
        progress = _Progress(self._lane, self._lines)
        while not self._stopping.is_set() and (gap := self._gap()) is not None:
            if not progress.begun and len(gap) > self._settings.resume_limit:
                self._lane.skip(gap.last + 1, f"more than RESUME_LIMIT ({self._settings.resume_limit})")
                continue
            progress.begin(gap)
            seen = self._newest_seen(gap)
            try:
                rows = self._request(gap.first)
            except UnavailableError as error:
                if not self._stopping.is_set():
                    self._wait_or_give_up(gap, error)
                continue
            if self._lane.standing().is_hint and self._is_another_pair(gap.first - 1, rows):
                self._drop_hint("belongs to another exchange or pair")
                continue
            self._absence.add(gap.first, seen, rows)
            if came_out := self._lane.fill(rows):
                progress.note(came_out)
            self._skip_holes()
        self._outage.pause()
        if not self._stopping.is_set():
            progress.end()

    def _gap(self) -> Gap | None:
        """The ids that are missing now, after giving other open connections time to bring them."""
        while (gap := self._lane.gap()) is not None and gap.first > self._waited_for:
            # Later gaps are not part of this wait: another one may be open before this one is closed.
            newest, grace = self._newest_seen(gap), Deadline(_OTHERS_GRACE)
            while gap is not None and gap.first <= newest:
                if self._lane.standing().is_confirmed or grace.passed or self._stopping.wait(_OTHERS_LOOK):
                    self._waited_for = newest
                    break
                gap = self._lane.gap()
        return gap

    def _newest_seen(self, gap: Gap) -> int:
        return gap.first + self._lane.standing().behind - 1

    def _request(self, first: int) -> list[Trade]:
        # The trade before the gap proves an old hole, together with the one after it, and shows whose trades these are.
        with_last = self._absence.lacks(first) or self._lane.standing().is_hint
        begin = max(0, first - 1) if with_last else first
        self._outage.pause()
        try:
            self._await_weight()
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
            held = f"Cannot fetch trade ids {gap} ({error}); newer trades are held"
            fields = {"first": gap.first, "last": gap.last, "delay": round(delay, 3)}
            self._lines.warn("rest_unavailable", f"{held}; retrying in {delay:.1f} s", **fields)
            self._stopping.wait(delay)
            return
        self._lines.warn("unrepaired", f"Trade ids {gap} are left unrepaired: {error}", first=gap.first, last=gap.last)
        # No gap that is open by now has had a response.
        last = self._newest_seen(gap)
        left_open: Gap | None = gap
        while left_open is not None and left_open.first <= last:
            self._skip(left_open.last + 1, "unrepaired")
            left_open = self._lane.gap()

    def _skip_holes(self) -> None:
        """Give up on holes according to the last response; if there are none, and it lacks the next id, wait."""
        self._absence.observe(self._lane.sequencer.newest_time)
        passed = False
        while (gap := self._lane.gap()) is not None and (hole := self._absence.hole(gap)) is not None:
            old = ", or older than what it keeps" if len(hole) > _PAGE else ""
            self._skip(hole.last + 1, f"a hole: REST does not have them{old}")
            passed = True
        if gap is not None and not passed and self._absence.lacks(gap.first):
            self._stopping.wait(min(_LAG_DELAY, self._absence.time_left(gap.first)))

    def _skip(self, before: int, why: str) -> None:
        # An id that only /api/v3/trades names may be another pair's, from a cache: giving up ids because of it would
        # drop the real trades as late. If they exist, the next trade of the stream shows that they are missing.
        if self._lane.standing().is_hint:
            self._drop_hint("does not return the trades up to it")
        else:
            self._lane.skip(before, why)

    def _drop_hint(self, why: str) -> None:
        newest = self._lane.standing().newest_id
        if self._lane.drop_hint():
            self._absence.clear()
            self._lines.warn(
                "newest_unconfirmed",
                f"REST reports {newest} as its newest trade id and {why}; ignoring it until the stream shows what is "
                "missing",
                newest=newest,
            )

    def _is_another_pair(self, last: int, rows: list[Trade]) -> bool:
        """Whether the row with the id of the last emitted trade has a different time."""
        time_of_last = self._lane.sequencer.last_time
        times = (row.timestamp for row in rows if row.trade_id == last)
        return time_of_last > 0 and any(abs(timestamp - time_of_last) > _SAME_TIME for timestamp in times)


class _Progress:
    """Logs the progress of a repair."""

    def __init__(self, lane: Lane, lines: Throttle) -> None:
        self._lane = lane
        self._lines = lines
        self._every = _PROGRESS_EVERY
        self.begun = False
        self._done = 0
        self._began = self._logged = time.monotonic()
        self._logged_done = 0
        self._logged_behind = 0

    def begin(self, gap: Gap) -> None:
        if not self.begun:
            self.begun = True
            line = f"Repairing a gap from trade id {gap.first}: about {len(gap)} trades are missing"
            self._lines.info("gap", line, first=gap.first, missing=len(gap))
            self._logged_behind = self._lane.standing().behind

    def note(self, trades: int) -> None:
        self._done += trades
        passed = time.monotonic() - self._logged
        if passed < self._every:
            return
        self._every = min(2 * self._every, _PROGRESS_AT_MOST)
        behind = self._lane.standing().behind
        rate = (self._done - self._logged_done) / passed
        stream = rate + (behind - self._logged_behind) / passed
        if stream > rate:
            events.warn(
                "repair_behind",
                f"Repair is slower than the stream ({rate:.0f} and {stream:.0f} trades/s); the topic is in order, "
                f"{behind} trades behind: raise REST_WEIGHT_LIMIT (--rest-weight-limit), or wait",
                rate=round(rate),
                stream_rate=round(stream),
                behind=behind,
            )
        else:
            share = self._done / (self._done + behind)
            events.info(
                "repair_progress",
                f"Repaired {self._done} trades, {100 * share:.0f} % of what is missing, at {rate:.0f}/s; about "
                f"{format_duration(behind / (rate - stream) if rate > stream else 0.0)} left",
                rate=round(rate),
                done=round(share, 4),
                behind=behind,
            )
        self._logged, self._logged_done, self._logged_behind = time.monotonic(), self._done, behind

    def end(self) -> None:
        if self.begun:
            published = f"; {self._done} trades published" if self._done else ""
            seconds = time.monotonic() - self._began
            line = f"Gap closed after {format_duration(seconds)}{published}"
            self._lines.info("repaired", line, trades=self._done, seconds=round(seconds, 3))
