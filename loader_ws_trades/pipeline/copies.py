"""Two copies of each trade, from two connections: which came first, by how much, and which came alone."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence

from loader_ws_trades.pipeline.trade import Trade

_RECENT = 10_000  # reads whose second copies are awaited; the oldest are forgotten first


class Copies:
    """The copies of one pair's trades that the slots of a set of connections brought. Not thread-safe.

    Args:
        counts: those of other pairs, which its own are added to.
    """

    def __init__(self, counts: Copies | None = None) -> None:
        self.first: Counter[int] = counts.first if counts else Counter()
        """By slot: trades of which it brought the first copy."""
        self.lead_seconds: defaultdict[int, float] = counts.lead_seconds if counts else defaultdict(float)
        """By slot: the time by which its first copies came before the second ones, summed up over the trades."""
        self.skipped: Counter[int] = counts.skipped if counts else Counter()
        """By slot: ids between two of its reads, or within one, that it did not bring there."""
        self._next: dict[int, int] = {}  # by slot: the id that is due next
        self._recent: deque[tuple[int, int, int, float]] = deque(maxlen=_RECENT)  # last id, trades, slot, when

    def restart(self) -> None:
        """Await no more second copies: a connection was opened or has ended."""
        self._recent.clear()

    def note(self, slot: int, trades: Sequence[Trade], new: int, now: float) -> None:
        """A read of `slot` at `now` (seconds) brought `trades`, of which `new` had not come before."""
        first, last = trades[0].trade_id, trades[-1].trade_id
        due = self._next.get(slot, first)
        self.skipped[slot] += max(0, last + 1 - due - len(trades))
        self._next[slot] = max(due, last + 1) if last + 1 > due - _RECENT else last + 1  # far below: the ids were reset
        if new:
            self.first[slot] += new
            self._recent.append((last, new, slot, now))
        recent = self._recent
        while recent and recent[0][0] <= last and recent[0][2] != slot:
            _, count, leader, at = recent.popleft()
            self.lead_seconds[leader] += count * (now - at)
