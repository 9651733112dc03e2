"""When repair gives up: a clock for REST as a whole, and clocks for the ids missing from its responses."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.trade import Trade

_APART = 5.0  # seconds between two responses that prove an old hole


class Outage:
    """How long REST has not returned a useful response; one clock for all gaps.

    It runs during requests and the delays after failed ones, but not while we wait for request weight.
    """

    def __init__(self) -> None:
        self._before = 0.0  # seconds until it was last paused
        self._since: float | None = None
        self._paused_at = time.monotonic()

    @property
    def lasted(self) -> float:
        """Seconds."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def start(self) -> None:
        """Start it, unless it is running."""
        if self._since is None:
            self._since = time.monotonic()

    def pause(self) -> None:
        """Pause it."""
        self._before, self._since, self._paused_at = self.lasted, None, time.monotonic()

    def reset(self) -> None:
        """Set it back to 0: REST returned a useful response."""
        self._before, self._since = 0.0, None

    def reset_if_idle(self, after: float) -> None:
        """Set it back to 0 if there was no request for longer than `after`: the last failures are too old to count."""
        if self._since is None and time.monotonic() - self._paused_at > after:
            self.reset()


class Absence:
    """Which ids REST's responses about one pair have lacked, and for how long.

    A missing id was in no response that reached it, so its clock started with the first of these. A response reaches up
    to its highest id, or, if it has no row from the requested id on, up to the newest id seen. Neither errors nor
    progress with other ids restart a clock.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._newest_time = 0
        self.clear()

    def clear(self) -> None:
        """Forget all responses."""
        self._asked = self._reach = -1  # of the last response: the id requested, and the id it reaches
        self._at = 0.0
        self._ids: list[int] = []
        self._times: dict[int, int] = {}
        self._reached: list[tuple[float, int]] = []  # when a response first reached an id; both ascend
        # Adjacent ids of a response between which some are missing -> since when.
        self._enclosed: dict[tuple[int, int], float] = {}

    def observe(self, timestamp: int) -> None:
        """Observe the time of a trade, in ms; others are dated by the newest one."""
        self._newest_time = max(self._newest_time, timestamp)

    def add(self, first: int, seen: int, rows: Iterable[Trade]) -> None:
        """Add a response that has just arrived.

        Args:
            first: the missing id from which rows were requested.
            seen: the newest id of the stream at that time.
            rows: the rows returned.
        """
        if first < self._asked:
            self.clear()  # the exchange has reset its ids
        self._asked, self._at = first, time.monotonic()
        self._times = {row.trade_id: row.timestamp for row in rows if row.trade_id >= first - 1}
        self._ids = sorted(self._times)
        for timestamp in self._times.values():
            self.observe(timestamp)
        self._reach = self._ids[-1] if self._ids and self._ids[-1] >= first else seen
        self._reached = [entry for entry in self._reached if entry[1] >= first]
        if not self._reached or self._reach > self._reached[-1][1]:
            self._reached.append((self._at, self._reach))
        self._enclosed = {pair: at for pair, at in self._enclosed.items() if pair[1] > first}
        for left, right in pairwise(self._ids):
            if right > left + 1:
                self._enclosed.setdefault((left, right), self._at)

    def lacks(self, trade_id: int) -> bool:
        """Whether the last response shows that REST does not have this missing id."""
        return self._asked <= trade_id <= self._reach and trade_id not in self._times

    def time_left(self, trade_id: int) -> float:
        """Seconds until the deadline of an id that the last response lacks."""
        since = next(at for at, reach in self._reached if reach >= trade_id)
        return max(0.0, since + self._deadline - time.monotonic())

    def hole(self, gap: Gap) -> Gap | None:
        """The ids at the start of `gap` that are a hole according to the last response."""
        if not self.lacks(gap.first):
            return None
        place = bisect_left(self._ids, gap.first)
        behind = self._ids[place] if place < len(self._ids) else self._reach + 1
        last = min(gap.last, behind - 1)
        overdue = max((reach for at, reach in self._reached if at + self._deadline <= self._at), default=-1)
        if overdue >= gap.first:
            return Gap(gap.first, min(last, overdue))
        since = self._enclosed.get((gap.first - 1, behind))
        if since is None or last != behind - 1 or self._at < since + _APART or gap.first - 1 not in self._times:
            return None
        youngest = max(self._times[gap.first - 1], self._times[behind])
        return Gap(gap.first, last) if self._newest_time - youngest > self._deadline * 1000 else None
