"""Any interleaving of connections, REST rows, repeats, losses, holes and resets: in order, once, nothing unnamed."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from loader_ws_trades.pipeline.events import Event, Gap, Late, Position, Reset
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.trade import Trade

WINDOW = 12
PAGE = 7
STEPS = 60
ALIKE = 150  # interleavings that one test tries


class Exchange:
    """What one sequence of ids is: the trades issued, and which of them REST does not have."""

    def __init__(self, first: int, time: int) -> None:
        self.trades: list[Trade] = []
        self.holes: set[int] = set()
        self.next_id = first
        self.time = self.begun = time

    def issue(self, *, hole: bool, pause: int = 10) -> Trade:
        self.time += pause
        trade = Trade(self.next_id, "1", "1", self.time, True, "X")
        self.next_id += 1
        self.trades.append(trade)
        if hole:
            self.holes.add(trade.trade_id)
        return trade

    def rows(self, first: int) -> list[Trade]:
        return [t for t in self.trades if t.trade_id >= first and t.trade_id not in self.holes][:PAGE]


class Interleaving:
    """Drives a `Sequencer` as feeds, repair and an exchange would, and watches what comes out."""

    def __init__(self, seed: str) -> None:
        self.chance = Random(seed)
        self.exchange = Exchange(self.chance.randint(0, 100), 1_000_000)
        self.sequence = Sequencer(WINDOW)
        self.queues: list[list[Trade]] = [[], [], []]
        self.numbers = [1, 2, 3]  # of the connections
        self.out: list[int] = []
        self.named: list[Gap] = []
        self.newest_seen = -1
        self.undecided = False  # the ids were reset, which is not proved yet
        self.resets = self.late = 0
        if self.chance.random() < 0.5:
            last = self.exchange.issue(hole=False)
            self.sequence.resume(Position(last.trade_id, last.timestamp))
            self.out.append(last.trade_id)

    def play(self) -> None:
        steps = [self.issue, self.issue, self.burst, self.deliver, self.deliver, self.deliver, self.deliver]
        steps += [self.disconnect, self.repeat, self.ask_rest, self.ask_rest, self.confirm, self.reset_ids]
        for _ in range(STEPS):
            self.chance.choice(steps)()
            self.check_account()
            assert self.sequence.held <= WINDOW
        self.come_to_an_end()

    # -- what the world does

    @property
    def is_full(self) -> bool:
        """Whether new ids approach the old ones before the reset is proved: beyond that they are indistinguishable."""
        return self.undecided and self.exchange.next_id > self.out[-1] - 12

    def issue(self) -> None:
        if self.is_full:
            return
        lost = self.chance.choice([(), (), (), (0,), (1,), (0, 1), (0, 1, 2), (0, 1, 2)])
        trade = self.exchange.issue(
            hole=len(lost) == 3 and self.chance.random() < 0.5, pause=self.chance.choice([0, 10])
        )
        for place, queue in enumerate(self.queues):
            if place not in lost:
                queue.append(trade)

    def burst(self) -> None:
        for _ in range(self.chance.randint(1, 30)):
            if self.is_full:
                return
            trade = self.exchange.issue(hole=False)
            for queue in self.queues:
                queue.append(trade)

    def deliver(self) -> None:
        place, size = self.chance.randrange(3), self.chance.randint(1, 20)
        queue = self.queues[place]
        read, queue[:] = queue[:size], queue[size:]
        if not self.undecided and self.chance.random() < 0.3:
            self.chance.shuffle(read)
        self.push(read, place)

    def disconnect(self) -> None:
        self.replace(self.chance.randrange(3))

    def replace(self, place: int) -> None:
        self.queues[place].clear()
        self.numbers[place] = max(self.numbers) + 1

    def repeat(self) -> None:
        if self.undecided:
            return  # no connection brings the old sequence behind the new one
        size = self.chance.randint(1, 10)
        seen = [trade for trade in self.exchange.trades if trade.trade_id <= self.newest_seen]
        self.push(seen[-size:], self.chance.randrange(3))

    def ask_rest(self) -> None:
        if not self.undecided and (gap := self.sequence.gap()) is not None:
            foreign = [Trade(number, "9", "9", 2**40, True, "X") for number in self.foreign(gap)]
            self.watch(*self.sequence.fill(self.chance.choice([[], foreign]) + self.exchange.rows(gap.first)))

    @staticmethod
    def foreign(gap: Gap) -> list[int]:
        """Ids of another question's answer."""
        return [number for number in (*range(gap.first - 5, gap.first), 10**6) if number >= 0]

    def confirm(self) -> None:
        if self.undecided or (gap := self.sequence.gap()) is None:
            return
        rows = self.exchange.rows(gap.first)
        if rows and rows[0].trade_id == gap.first:
            return
        out, events = self.sequence.skip(min([gap.last + 1, *(row.trade_id for row in rows)]))
        for event in events:
            assert isinstance(event, Gap)
            assert set(range(event.first, event.last + 1)) <= self.exchange.holes, "only true holes are named"
        self.watch(out, events)

    def reset_ids(self) -> None:
        # A reset to higher ids cannot be distinguished from a gap.
        far = max(self.out, default=0) + 1 - self.chance.choice([20, 50])
        if self.undecided or len(self.out) < 3 or far < 0 or self.chance.random() < 0.7:
            return
        self.exchange = Exchange(self.chance.choice([0, far]), self.exchange.time + 1)
        self.undecided = True

    # -- what must hold

    def push(self, read: list[Trade], place: int) -> None:
        new = [trade.trade_id for trade in read if trade.timestamp >= self.exchange.begun]
        if not self.undecided:
            self.newest_seen = max([self.newest_seen, *new])
        out, events = self.sequence.push(read, self.numbers[place])
        proofs = [event for event in events if isinstance(event, Reset)]
        if proofs:
            assert self.undecided, "what was repeated, shuffled, lost or late is no reset"
            assert [proof.connection for proof in proofs] == [self.numbers[place]]
            self.undecided = False
            self.resets += 1
            self.newest_seen = max(new)
            for other in range(3):
                if other != place:
                    self.replace(other)
        self.watch(out, events)

    def watch(self, out: Iterable[Trade], events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Gap):
                self.named.append(event)
            elif isinstance(event, Late):
                self.late += 1
                assert any(gap.first <= event.first and event.last <= gap.last for gap in self.named)
        resets = [event for event in events if isinstance(event, Reset)]
        for trade in out:
            if resets and trade.timestamp >= self.exchange.begun:
                # What was held of the old sequence came out before; its gaps were named.
                self.check_account()
                self.out, self.named, resets = [], [], []
            assert not self.out or trade.trade_id > self.out[-1], "ascending, and none twice"
            self.out.append(trade.trade_id)

    def check_account(self) -> None:
        if self.out:
            named = {number for gap in self.named for number in range(gap.first, gap.last + 1)}
            missing = set(range(self.out[0], self.out[-1])) - set(self.out) - named
            assert not missing, f"neither out nor named: {missing}"
            assert not named & set(self.out), "named as missing, and out"

    def come_to_an_end(self) -> None:
        for place in range(3):
            read, self.queues[place] = self.queues[place], []
            self.push(read, place)
        # The stream's next trades show what is missing, and that the ids were reset.
        self.push([self.exchange.issue(hole=False) for _ in range(8 if self.undecided else 1)], 0)
        assert not self.undecided, "reset ids are a new sequence"
        for _ in range(10_000):
            if (gap := self.sequence.gap()) is None:
                break
            self.watch(*self.sequence.fill(self.exchange.rows(gap.first)))
            if self.sequence.gap() == gap:
                self.confirm()
        assert self.sequence.gap() is None, "repair comes to an end"
        self.check_account()
        if self.out and self.newest_seen >= 0:
            assert max([self.out[-1], *(gap.last for gap in self.named)]) >= self.newest_seen, "seen, and out or named"


@pytest.mark.parametrize("many", range(4))
def test_any_interleaving(many: int) -> None:
    resets = late = 0
    for number in range(ALIKE):
        seed = f"{many}.{number}"
        interleaving = Interleaving(seed)
        try:
            interleaving.play()
        except AssertionError as error:
            raise AssertionError(f"the seed {seed}: {error}") from error
        resets += interleaving.resets
        late += interleaving.late
    assert resets > ALIKE / 10
    assert late
