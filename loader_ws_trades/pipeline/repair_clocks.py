"""When repair gives up: the clock of REST as a whole, and those of the ids that its answers lack."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise

from loader_ws_trades.pipeline.sequencer import Gap
from loader_ws_trades.pipeline.trade import Trade

_APART = 5.0  # seconds between two answers that show an old hole


class Outage:
    """How long REST has given no useful answer, to anybody; one clock for all gaps.

    It runs while REST is asked and while a refusal is waited out, and not while we wait for our own turn.
    """

    def __init__(self) -> None:
        self._before = 0.0  # seconds that it ran before it was last held
        self._since: float | None = None
        self._held_at = time.monotonic()

    @property
    def lasted(self) -> float:
        """Seconds."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    def run(self) -> None:
        """Let it run, if it does not."""
        if self._since is None:
            self._since = time.monotonic()

    def hold(self) -> None:
        """Stop it for a while."""
        self._before, self._since, self._held_at = self.lasted, None, time.monotonic()

    def end(self) -> None:
        """Begin anew: REST gave a useful answer."""
        self._before, self._since = 0.0, None

    def forget(self, after: float) -> None:
        """Begin anew if nobody has asked for longer than `after`: what REST did so long ago says nothing of today."""
        if self._since is None and time.monotonic() - self._held_at > after:
            self.end()


class Absence:
    """What REST's answers about one pair have lacked, and since when.

    An id that is missing still was in no answer that reached it, so its clock began with the first such answer. An
    answer reaches its highest id, and one that is empty from there on reaches the newest id seen. Neither errors nor
    other ids that come out begin a clock anew.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._newest_time = 0
        self.clear()

    def clear(self) -> None:
        """Forget all answers."""
        self._asked = self._reach = -1  # of the last answer: what was asked for, and the last id that it tells about
        self._at = 0.0
        self._ids: list[int] = []
        self._times: dict[int, int] = {}
        self._reached: list[tuple[float, int]] = []  # when an answer first reached so far; both ascend
        self._enclosed: dict[
            tuple[int, int], float
        ] = {}  # ids of neighbours between which some are missing; since when

    def show(self, timestamp: int) -> None:
        """Note the time of a trade, in ms; the newest one tells how old others are."""
        self._newest_time = max(self._newest_time, timestamp)

    def note(self, first: int, seen: int, rows: Iterable[Trade]) -> None:
        """Take an answer of now.

        Args:
            first: the missing id from which on it was asked for.
            seen: the newest id of the stream, when it was.
            rows: what it holds.
        """
        if first < self._asked:
            self.clear()  # the exchange has begun its ids anew
        self._asked, self._at = first, time.monotonic()
        self._times = {row.trade_id: row.timestamp for row in rows if row.trade_id >= first - 1}
        self._ids = sorted(self._times)
        for timestamp in self._times.values():
            self.show(timestamp)
        self._reach = self._ids[-1] if self._ids and self._ids[-1] >= first else seen
        self._reached = [entry for entry in self._reached if entry[1] >= first]
        if not self._reached or self._reach > self._reached[-1][1]:
            self._reached.append((self._at, self._reach))
        self._enclosed = {pair: at for pair, at in self._enclosed.items() if pair[1] > first}
        for left, right in pairwise(self._ids):
            if right > left + 1:
                self._enclosed.setdefault((left, right), self._at)

    def lacks(self, trade_id: int) -> bool:
        """Whether the last answer tells that REST does not have this missing id."""
        return self._asked <= trade_id <= self._reach and trade_id not in self._times

    def patience(self, trade_id: int) -> float:
        """Seconds until an id that the last answer lacks is overdue."""
        since = next(at for at, reach in self._reached if reach >= trade_id)
        return max(0.0, since + self._deadline - time.monotonic())

    def hole(self, gap: Gap) -> Gap | None:
        """The ids at the beginning of `gap` that are a hole by the last answer."""
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
