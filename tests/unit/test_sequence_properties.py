"""Any interleaving of connections, REST rows, repeats, losses, holes and resets: in order, once, nothing unnamed."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from loader_ws_trades.sequence import Gap, Position, Reset, Sequence
from loader_ws_trades.trade import Trade

WINDOW = 12
PAGE = 7


class Exchange:
    """What one sequence of ids is: the trades issued, and which of them REST does not have."""

    def __init__(self, first: int, time: int) -> None:
        self.trades: list[Trade] = []
        self.holes: set[int] = set()
        self.next_id = first
        self.time = time

    def issue(self, hole: bool) -> Trade:
        self.time += 10
        trade = Trade(self.next_id, "1", "1", self.time, True, "X")
        self.next_id += 1
        self.trades.append(trade)
        if hole:
            self.holes.add(trade.trade_id)
        return trade

    def rows(self, first: int) -> list[Trade]:
        return [t for t in self.trades if t.trade_id >= first and t.trade_id not in self.holes][:PAGE]


class Interleaving(RuleBasedStateMachine):
    """Drives a `Sequence` as feeds, repair and an exchange would, and watches what comes out."""

    @initialize(first=st.integers(0, 100), resume=st.booleans())
    def begin(self, first: int, resume: bool) -> None:
        self.exchange = Exchange(first, 1_000_000)
        self.sequence = Sequence(WINDOW)
        self.queues: list[list[Trade]] = [[], []]
        self.out: list[int] = []
        self.named: list[Gap] = []
        self.newest_seen = -1
        if resume:
            last = self.exchange.issue(hole=False)
            self.sequence.resume(Position(last.trade_id, last.timestamp))
            self.out.append(last.trade_id)

    # -- what the world does

    @rule(hole=st.booleans(), lost=st.sampled_from(["neither", "neither", "neither", "first", "second", "both"]))
    def issue(self, hole: bool, lost: str) -> None:
        trade = self.exchange.issue(hole and lost == "both")
        for number, name in enumerate(("first", "second")):
            if lost not in (name, "both"):
                self.queues[number].append(trade)

    @rule(count=st.integers(1, 30))
    def burst(self, count: int) -> None:
        for _ in range(count):
            self.issue(hole=False, lost="neither")

    @rule(number=st.integers(0, 1), size=st.integers(1, 20), shuffle=st.randoms(use_true_random=False))
    def deliver(self, number: int, size: int, shuffle: object) -> None:
        queue = self.queues[number]
        read, queue[:] = queue[:size], queue[size:]
        if size % 3 == 0:
            shuffle.shuffle(read)  # type: ignore[attr-defined]
        self._push(read)

    @rule(number=st.integers(0, 1), size=st.integers(1, 10))
    def disconnect(self, number: int, size: int) -> None:
        del self.queues[number][:size]

    @rule(size=st.integers(1, 10))
    def replay(self, size: int) -> None:
        if not self.queues[0] and not self.queues[1] and self.out:
            self._push([trade for trade in self.exchange.trades if trade.trade_id <= self.newest_seen][-size:])

    @precondition(lambda self: self.sequence.gap() is not None)
    @rule()
    def ask_rest(self) -> None:
        gap = self.sequence.gap()
        assert gap is not None
        out, events = self.sequence.fill(self.exchange.rows(gap.first))
        self._watch(out, events)

    @precondition(lambda self: self.sequence.gap() is not None)
    @rule()
    def confirm_a_hole(self) -> None:
        self._confirm()

    @rule(first=st.integers(0, 3))
    def begin_anew(self, first: int) -> None:
        # A sequence that begins above the one before cannot be told from a gap.
        if self.exchange.next_id < 50 or not self.out or self.out[-1] <= first:
            return
        self.exchange = Exchange(first, self.exchange.time + 60_000)
        self.queues = [[], []]
        self.newest_seen = -1
        self.issue(hole=False, lost="neither")
        self.deliver(0, 1, _NoShuffle())

    # -- what must hold

    def _push(self, trades: list[Trade]) -> None:
        self.newest_seen = max([self.newest_seen, *(trade.trade_id for trade in trades)])
        self._watch(*self.sequence.push(trades))

    def _watch(self, out: Iterable[Trade], events: list[Gap | Reset]) -> None:
        for event in events:
            if isinstance(event, Gap):
                self.named.append(event)
            else:
                self._check_account()
                self.out, self.named = [], []
        for trade in out:
            if trade.timestamp < self.exchange.trades[0].timestamp:
                continue  # held from the sequence that ended; checked by the account above
            assert not self.out or trade.trade_id > self.out[-1], "ascending, and none twice"
            self.out.append(trade.trade_id)

    def _confirm(self) -> None:
        gap = self.sequence.gap()
        assert gap is not None
        rows = self.exchange.rows(gap.first)
        if rows and rows[0].trade_id == gap.first:
            return
        end = min([gap.last + 1, *(row.trade_id for row in rows)])
        out, events = self.sequence.skip(end)
        for event in events:
            assert isinstance(event, Gap)
            assert set(range(event.first, event.last + 1)) <= self.exchange.holes, "only true holes are named"
        self._watch(out, events)

    def _check_account(self) -> None:
        if self.out:
            named = {trade_id for gap in self.named for trade_id in range(gap.first, gap.last + 1)}
            missing = set(range(self.out[0], self.out[-1])) - set(self.out) - named
            assert not missing, f"neither out nor named: {missing}"
            assert not named & set(self.out), "named as missing, and out"

    @invariant()
    def every_id_is_out_or_named_and_what_is_held_is_bounded(self) -> None:
        if hasattr(self, "sequence"):
            self._check_account()
            assert self.sequence.held <= WINDOW

    def teardown(self) -> None:
        if not hasattr(self, "sequence"):
            return
        for number in (0, 1):
            self.deliver(number, 10_000, _NoShuffle())
        # The stream's next trade shows what it left behind.
        self._push([self.exchange.issue(hole=False)])
        for _ in range(10_000):
            if (gap := self.sequence.gap()) is None:
                break
            self._watch(*self.sequence.fill(self.exchange.rows(gap.first)))
            if self.sequence.gap() == gap:
                self._confirm()
        assert self.sequence.gap() is None, "repair comes to an end"
        self._check_account()
        if self.out and self.newest_seen >= 0:
            last = max(self.out[-1], *(gap.last for gap in self.named)) if self.named else self.out[-1]
            assert last >= self.newest_seen, "what was seen is out or named"


class _NoShuffle:
    def shuffle(self, trades: list[Trade]) -> None:
        """Leave them as they are."""


Interleaving.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking an interleaving takes longer than reading it
)
TestInterleaving = Interleaving.TestCase
