"""A silent subscription is distinguished from a quiet pair; nothing is lost, invented or given up because of REST."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.pipeline.connection_check import ConnectionCheck
from loader_ws_trades.pipeline.stream_check import StreamCheck
from tests.unit.clock import FakeClock
from tests.unit.test_gap_repair import GIVEN, NOW, Stage, Watched


class Scene(Stage):
    """A stage whose stream may be silent; REST names the newest of the ids that it has."""

    def __init__(self, clock: FakeClock, **limits: str) -> None:
        super().__init__(clock, **limits)
        self.last_id: Callable[[], int] = lambda: max(self.has, default=-1)
        self.asked_for_newest: list[float] = []
        self.replaced: list[float] = []
        self.is_open = True
        self.takes_over = False  # whether a replacement has not taken over yet
        self.connection = self.ingest.connect()
        self.check = StreamCheck(
            load(GIVEN | limits),
            lanes=lambda: [self.lane],
            last_ids=lambda _: {"POLUSDT": self.newest_id()},
            is_open=lambda _: self.is_open,
            replace=lambda _: self.replace(),
        )
        self.repair._on_turn = self.check.turn

    def replace(self) -> bool:
        if self.takes_over:
            return False
        self.replaced.append(self.passed)
        return True

    def newest_id(self) -> int:
        self.asked_for_newest.append(round(self.passed))
        return self.last_id()

    def bring(self, *ids: int) -> None:
        """Trades that the exchange has, and that the stream brings."""
        self.has.update(ids)
        self.ingest.take([self.frame(number) for number in ids], self.connection)

    def has_until(self, *moments: tuple[float, int]) -> None:
        """At so many seconds the exchange has the trades up to an id."""
        for seconds, last in moments:
            self.clock.after(seconds, lambda last=last: self.has.update(range(1, last + 1)))  # type: ignore[misc]

    def run(self, seconds: float) -> None:
        self.clock.after(seconds, self.stopping.set)
        self.run_repair(resumed=None)


@pytest.fixture
def scene(clock: FakeClock) -> Scene:
    return Scene(clock)


def test_a_quiet_pair_costs_one_question_an_interval_and_nothing_else(scene: Scene) -> None:
    scene.bring(1)
    scene.run(200)
    assert scene.asked_for_newest == [60, 120, 180]
    assert (scene.asked, scene.replaced, scene.out) == ([], [], [1])


def test_while_trades_come_nothing_is_asked(scene: Scene) -> None:
    for number in range(1, 20):
        scene.clock.after(number * 50, lambda number=number: scene.bring(number))  # type: ignore[misc]
    scene.run(990)
    assert scene.asked_for_newest == []


def test_a_trade_that_the_stream_brings_late_is_not_repaired(scene: Scene) -> None:
    scene.bring(1)
    scene.has_until((59, 3))
    scene.clock.after(74, lambda: scene.bring(2, 3))
    scene.run(100)
    assert (scene.asked, scene.replaced, scene.out) == ([], [], [1, 2, 3])


def test_a_silent_stream_is_replaced_and_rest_carries_the_pair_until_it_speaks(scene: Scene) -> None:
    scene.bring(1)
    scene.has_until((10, 5), (100, 9), (500, 12))
    silent: list[bool] = []
    scene.clock.after(76, lambda: silent.append(scene.lane.trouble is not None))
    scene.clock.after(700, lambda: scene.bring(13))
    scene.run(720)
    assert scene.out == list(range(1, 14))
    assert silent == [True]
    assert scene.lane.trouble is None
    assert scene.named == []
    assert len(scene.asked) == 3
    assert scene.asked_for_newest[:4] == [60, 120, 180, 240]
    assert [round(at) for at in scene.replaced] == [75, 540], "not while REST has nothing newer"


def test_pauses_between_replacements_grow(scene: Scene) -> None:
    scene.bring(1)
    scene.has_until(*((10 + 60 * number, 2 + number) for number in range(200)))
    scene.run(10_000)
    pauses = [later - earlier for earlier, later in zip(scene.replaced, scene.replaced[1:], strict=False)]
    assert len(scene.replaced) < 10
    assert pauses == sorted(pauses)
    assert pauses[0] >= 60
    assert scene.out == list(range(1, scene.out[-1] + 1))
    assert scene.out[-1] > 150


@pytest.mark.parametrize(
    ("has", "names"),
    [
        ({1}, 50),  # REST's trades lag behind its ticker, or the ticker is another pair's
        ({1}, 10**12),  # beyond RESUME_LIMIT
        (set(), -1),
        ({1}, 0),
    ],
)
def test_nothing_is_given_up_for_what_rest_names(scene: Scene, has: set[int], names: int) -> None:
    scene.bring(1)
    scene.has = has
    scene.last_id = lambda: names
    scene.clock.after(900, lambda: scene.bring(*range(2, 60)))
    scene.run(905)
    assert scene.out == list(range(1, 60))
    assert scene.named == []
    assert len(scene.replaced) <= 900 / 60


def test_trades_of_another_exchange_are_not_taken(scene: Scene) -> None:
    scene.bring(1)
    scene.times = dict.fromkeys(range(1, 51), NOW + 10**9)
    scene.has = set(range(1, 51))
    scene.run(900)
    assert scene.out == [1]
    assert scene.named == []


def test_rest_that_is_away_costs_a_question_an_interval(scene: Scene) -> None:
    def away() -> int:
        raise UnavailableError("REST is away")

    scene.bring(1)
    scene.last_id = away
    scene.run(310)
    assert scene.asked_for_newest == [60, 120, 180, 240, 300]
    assert (scene.replaced, scene.lane.trouble) == ([], None)


def test_a_stream_that_was_silent_from_the_beginning_is_carried_from_where_rest_was_then(scene: Scene) -> None:
    scene.has_until((0, 100), (70, 104))
    scene.run(200)
    assert scene.out == [101, 102, 103, 104]
    assert len(scene.replaced) == 1


def test_rest_is_not_queried_without_a_connection(scene: Scene) -> None:
    scene.bring(1)
    scene.is_open = False
    scene.clock.after(200, lambda: setattr(scene, "is_open", True))
    scene.run(250)
    assert scene.asked_for_newest == []


def test_a_replacement_that_must_wait_does_not_lengthen_the_pauses(clock: FakeClock) -> None:
    scene = Scene(clock, stream_check_interval="5")
    scene.bring(1)
    scene.has_until(*((second, second) for second in range(2, 200)))
    scene.clock.after(21, lambda: setattr(scene, "takes_over", True))
    scene.clock.after(51, lambda: setattr(scene, "takes_over", False))
    scene.run(100)
    pauses = [later - earlier for earlier, later in pairwise(scene.replaced)]
    assert pauses == pytest.approx([33, 10, 20], rel=0.1), "5 s, and then 10 s and 20 s after the one before"
    assert scene.out[-1] > 90


def test_end_of_one_of_two_silent_connections_is_no_trade(scene: Scene) -> None:
    second = scene.ingest.connect()
    scene.bring(1)
    scene.ingest.take([scene.frame(2)], second)
    scene.has_until((0, 5), (100, 9), (500, 12))
    scene.clock.after(110, lambda: scene.ingest.disconnect(second))
    silent: list[bool] = []
    scene.clock.after(115, lambda: silent.append(scene.lane.trouble is not None))
    scene.run(130)
    assert silent == [True]
    assert scene.out == list(range(1, 10))


class Several(Stage):
    """A stage with a set of connections, whose silent ones are replaced by others that are silent as told."""

    def __init__(self, clock: FakeClock, count: int = 2) -> None:
        super().__init__(clock)
        self.replaced: list[float] = []
        self.still_silent = False
        self.open = [self.ingest.connect(slot) for slot in range(count)]
        self.silent: set[int] = set()
        self.check = ConnectionCheck(load(GIVEN), lanes=lambda: [self.lane], replace=self.replace)
        self.repair._on_turn = self.check.turn

    def replace(self, number: int) -> bool:
        self.replaced.append(round(self.passed))
        self.ingest.disconnect(number)
        slot = self.open.index(number)
        self.open[slot] = self.ingest.connect(slot)
        if self.still_silent:
            self.silent.add(self.open[slot])
        return True

    def bring(self, trade_id: int) -> None:
        for number in self.open:
            if number not in self.silent:
                self.ingest.take([self.frame(trade_id)], number)

    def run(self, trades: int, apart: float) -> None:
        for trade_id in range(1, trades + 1):
            self.clock.after((trade_id - 1) * apart, partial(self.bring, trade_id))
        self.clock.after(trades * apart, self.stopping.set)
        self.run_repair(resumed=None)
        assert self.out == list(range(1, trades + 1))


def test_a_connection_that_brings_nothing_while_another_does_is_replaced(clock: FakeClock) -> None:
    several = Several(clock)
    clock.after(100, lambda: several.silent.add(several.open[1]))
    several.run(400, 1.0)
    assert several.replaced == pytest.approx([100 + 3 + 75], abs=2)


def test_pauses_between_silent_replacements_of_a_connection_grow(clock: FakeClock) -> None:
    several = Several(clock)
    several.still_silent = True
    several.silent.add(several.open[0])
    several.run(1000, 10.0)
    pauses = [later - earlier for earlier, later in pairwise(several.replaced)]
    assert pauses == sorted(pauses)
    assert 4 < len(pauses) < 10


@pytest.mark.parametrize("apart", [1.0, 50.0, 1000.0])
def test_connections_that_all_bring_trades_are_not_replaced(clock: FakeClock, apart: float) -> None:
    several = Several(clock)
    clock.after(10 * apart - 0.5, lambda: several.silent.add(several.open[1]))  # it loses one
    clock.after(10 * apart + 0.5, several.silent.clear)
    several.run(20, apart)
    assert several.replaced == []


def test_a_connection_opened_on_a_quiet_pair_is_not_replaced(clock: FakeClock) -> None:
    several = Several(clock)
    clock.after(5.5, lambda: several.open.append(several.ingest.connect(2)))
    clock.after(1000, lambda: several.bring(7))
    several.run(6, 1.0)
    several.stopping.clear()
    clock.after(1200, several.stopping.set)
    several.run_repair(resumed=None)
    assert several.replaced == []


def test_a_stream_that_is_not_read_while_the_sink_is_full_is_not_silent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "full", property(lambda _: scene.passed < 200))
    scene.bring(1)
    scene.has_until((10, 100))
    scene.clock.after(210, lambda: scene.bring(*range(2, 101)))
    scene.run(250)
    assert (scene.asked_for_newest, scene.replaced, scene.out) == ([], [], list(range(1, 101)))


def test_a_connection_that_is_not_read_because_the_sink_is_full_is_not_replaced(clock: FakeClock) -> None:
    several = Several(clock)
    for trade_id in range(1, 6):
        several.ingest.take([several.frame(trade_id)], several.open[0])
        several.check.turn()
    several.outlet._waiting.append((several.lane, [several.trade(6)]))
    for _ in range(30):
        clock.advance(10)
        several.check.turn()
    several.outlet._waiting.clear()
    several.check.turn()
    assert several.replaced == []
