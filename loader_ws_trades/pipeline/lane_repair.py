"""The repair of one pair's gaps, in steps of at most one request. No waiting, and no I/O of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.repair_clocks import Absence
from loader_ws_trades.pipeline.repair_progress import RepairProgress
from loader_ws_trades.pipeline.trade import Trade

_OTHERS_GRACE, _OTHERS_LOOK = 1.0, 0.05  # seconds in which another connection may close a gap; between checks
_LAG_DELAY = 1.0  # seconds between requests for an id that REST does not have yet
_SAME_TIME = 60_000  # ms; two trades with the same id that are further apart are different trades
_PAGE = 1000  # ids; a longer hole rather means that REST no longer keeps them


class LaneRepair:
    """Not thread-safe.

    Args:
        settings: the limits.
        lane: the pair.
        request: returns trades from an id on, ascending, at most a page; raises `UnavailableError`.
        lines: for log lines.
    """

    def __init__(self, settings: Settings, lane: Lane, request: Callable[[int], list[Trade]], lines: Throttle) -> None:
        self._limit = settings.resume_limit
        self.lane = lane
        self._request_from = request
        self._lines = lines
        self.absence = Absence(settings.repair_deadline)
        self._progress: RepairProgress | None = None
        self._waited_for = -1  # the highest id that other connections were given time to bring
        self._others: tuple[int, Deadline] | None = None  # the highest id that they are given time to bring now
        self.due = math.inf
        """When the next step is due (monotonic)."""

    @property
    def size(self) -> int:
        """How many ids are missing before the first trade that is held."""
        gap = self.lane.gap()
        return len(gap) if gap else 0

    def begin(self, grace: float) -> None:
        """Trades are missing; they have `grace` seconds to arrive by themselves."""
        self._progress = RepairProgress(self.lane, self._lines)
        self.due = time.monotonic() + grace

    def step(self) -> bool:
        """Do what is due, one request at most; returns whether ids are still missing.

        Raises:
            UnavailableError: if REST did not answer.
        """
        self.due = time.monotonic()
        progress = self._progress
        gap = self.lane.gap()
        if gap is None or progress is None:
            return False
        if self._awaits_others(gap):
            self.due += _OTHERS_LOOK
        elif not progress.begun and len(gap) > self._limit:
            self.lane.skip(gap.last + 1, f"more than RESUME_LIMIT ({self._limit})")
        else:
            progress.begin(gap)
            self._fetch(gap, progress)
        return True

    def end(self) -> None:
        """Nothing is missing any more."""
        if self._progress:
            self._progress.end()
        self._progress, self.due = None, math.inf

    def leave_unrepaired(self, why: str) -> None:
        """Give up on all gaps that are open by now, because REST does not answer."""
        gap = self.lane.gap()
        if gap is None:
            return
        text = f"Trade ids {gap}{self.lane.of} are left unrepaired: {why}"
        self._lines.warn("unrepaired", text, first=gap.first, last=gap.last)
        last = self._newest_seen(gap)
        left: Gap | None = gap
        while left is not None and left.first <= last:
            self._skip(left.last + 1, "unrepaired")
            left = self.lane.gap()

    def _awaits_others(self, gap: Gap) -> bool:
        """Whether other open connections may still bring the missing ids."""
        if gap.first <= self._waited_for:
            return False
        # Later gaps are not part of this wait: another one may be open before this one is closed.
        if self._others is None or gap.first > self._others[0]:
            self._others = self._newest_seen(gap), Deadline(_OTHERS_GRACE)
        newest, grace = self._others
        if not grace.passed and not self.lane.standing().is_confirmed:
            return True
        self._waited_for, self._others = newest, None
        return False

    def _newest_seen(self, gap: Gap) -> int:
        return gap.first + self.lane.standing().behind - 1

    def _fetch(self, gap: Gap, progress: RepairProgress) -> None:
        seen, absence = self._newest_seen(gap), self.absence
        # The trade before the gap proves an old hole, together with the one after it, and shows whose trades these are.
        with_last = absence.lacks(gap.first) or self.lane.standing().is_hint
        rows = self._request_from(max(0, gap.first - 1) if with_last else gap.first)
        self.due = time.monotonic()
        if self.lane.standing().is_hint and self._is_another_pair(gap.first - 1, rows):
            self._drop_hint("belongs to another exchange or pair")
            return
        absence.add(gap.first, seen, rows)
        if came_out := self.lane.fill(rows):
            progress.note(came_out)
        self._skip_holes()

    def _skip_holes(self) -> None:
        """Give up on holes according to the last response; if there are none, and it lacks the next id, ask later."""
        self.absence.observe(self.lane.sequencer.newest_time)
        passed = False
        while (gap := self.lane.gap()) is not None and (hole := self.absence.hole(gap)) is not None:
            old = ", or older than what it keeps" if len(hole) > _PAGE else ""
            self._skip(hole.last + 1, f"a hole: REST does not have them{old}")
            passed = True
        if gap is not None and not passed and self.absence.lacks(gap.first):
            self.due = time.monotonic() + min(_LAG_DELAY, self.absence.time_left(gap.first))

    def _skip(self, before: int, why: str) -> None:
        # An id that only REST names may be another pair's, from a cache: giving up ids because of it would drop the
        # real trades as late. If they exist, the next trade of the stream shows that they are missing.
        if self.lane.standing().is_hint:
            self._drop_hint("does not return the trades up to it")
        else:
            self.lane.skip(before, why)

    def _drop_hint(self, why: str) -> None:
        newest = self.lane.standing().newest_id
        if self.lane.drop_hint():
            self.absence.clear()
            self._lines.warn(
                "newest_unconfirmed",
                f"REST reports {newest} as its newest trade id{self.lane.of} and {why}; ignoring it until the stream "
                "shows what is missing",
                newest=newest,
            )

    def _is_another_pair(self, last: int, rows: list[Trade]) -> bool:
        """Whether the row with the id of the last emitted trade has a different time."""
        time_of_last = self.lane.sequencer.last_time
        times = (row.timestamp for row in rows if row.trade_id == last)
        return time_of_last > 0 and any(abs(timestamp - time_of_last) > _SAME_TIME for timestamp in times)
