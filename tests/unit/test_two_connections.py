"""Any interleaving of two copies of a stream, with losses, delays, disorder and cuts: each id once, in order."""

from __future__ import annotations

import random
from functools import partial

import pytest

from loader_ws_trades.errors import UnavailableError
from tests.unit.clock import FakeClock
from tests.unit.test_gap_repair import Stage

ALIKE = 25  # interleavings of a seed
TRADES, APART = 120, 0.05  # trades, and the mean of the seconds between two of them


class TwoConnections:
    """A stage with two slots, whose connections lose, delay and reorder trades, are cut and stall, each on its own."""

    def __init__(self, clock: FakeClock, seed: str) -> None:
        self.chance = random.Random(seed)
        self.stage = Stage(clock)
        self.stage.takes = self.chance.choice([0.0, 0.05, 2.0])
        self.numbers = [self.stage.ingest.connect(slot) for slot in (0, 1)]
        self.busy = [0.0, 0.0]  # by slot: when its last trade arrives; they overtake each other only where reordered
        self.cuts = self.lost = 0
        lag, outage = self.chance.choice([0.0, 0.5, 4.0]), self.chance.uniform(0, TRADES * APART)
        self.stage.fails = lambda _: UnavailableError("away") if outage < self.stage.passed < outage + 2 else None
        losses = [self.chance.choice([0.0, 0.02, 0.3]) for _ in (0, 1)]
        delays = [self.chance.choice([0.0, 0.01, 0.3, 1.5]) for _ in (0, 1)]
        disorder = [self.chance.random() < 0.3 for _ in (0, 1)]
        moment = 0.0
        for trade_id in range(1, TRADES + 1):
            clock.after(moment + lag, partial(self.stage.has.add, trade_id))
            for slot in (0, 1):
                # What comes first begins the sequence, and what comes last shows what is missing.
                if 1 < trade_id < TRADES and self.chance.random() < losses[slot]:
                    self.lost += 1
                    continue
                arrives = moment + (self.chance.expovariate(1 / delays[slot]) if delays[slot] and trade_id > 1 else 0)
                self.busy[slot] = arrives = arrives if disorder[slot] else max(arrives, self.busy[slot])
                clock.after(arrives, partial(self.bring, slot, trade_id))
            moment += self.chance.expovariate(1 / APART)
        for slot in (0, 1):
            for _ in range(self.chance.choice([0, 0, 1, 3])):
                clock.after(self.chance.uniform(0.1, moment * 0.9), partial(self.cut, slot))
        self.end = max(moment, *self.busy) + 60
        clock.after(self.end, self.stage.stopping.set)

    def bring(self, slot: int, trade_id: int) -> None:
        """A connection that is cut by then loses what was on its way; the last trade of all comes on each."""
        if self.numbers[slot]:
            self.stage.ingest.take([self.stage.frame(trade_id)], self.numbers[slot])
        elif trade_id == TRADES:
            self.stage.clock.after(1.0, partial(self.bring, slot, trade_id))
        else:
            self.lost += 1

    def cut(self, slot: int) -> None:
        """The connection ends, and another one is opened after a time."""
        if self.numbers[slot]:
            self.cuts += 1
            self.stage.ingest.disconnect(self.numbers[slot])
            self.numbers[slot] = 0
            self.stage.clock.after(self.chance.uniform(0.0, 1.0), partial(self.open, slot))

    def open(self, slot: int) -> None:
        self.numbers[slot] = self.stage.ingest.connect(slot)


@pytest.mark.parametrize("many", range(4))
def test_any_interleaving_of_two_copies_gives_each_trade_once_in_order(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = lost = asked = 0
    for number in range(ALIKE):
        seed = f"{many}.{number}"
        clock = FakeClock()
        monkeypatch.setattr("time.monotonic", lambda clock=clock: clock.now)
        two = TwoConnections(clock, seed)
        two.stage.run_repair(resumed=None)
        assert two.stage.out == list(range(1, TRADES + 1)), f"the seed {seed}"
        assert two.stage.named == [], f"the seed {seed}"
        cuts, lost, asked = cuts + two.cuts, lost + two.lost, asked + len(two.stage.asked)
    assert min(cuts, lost, asked) > ALIKE / 2, "each of them happens"
