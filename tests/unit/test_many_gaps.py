"""Repair and stream checks of several pairs: fair turns, one clock for REST, and one request for many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.pipeline.events import Event, Gap, Position
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.look_back import LookBack
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.stream_check import StreamCheck
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED

NOW = 1_700_000_000_000  # ms
GIVEN = REQUIRED | {"kafka_topic": "trades"}


class Lanes(Ingest):
    """Several pairs without a stream."""

    def __init__(self, outlet: Outlet[Lane], lanes: Sequence[Lane]) -> None:
        self._outlet = outlet
        self.lanes = {lane.symbol: lane for lane in lanes}


class Exchange:
    """REST that knows the ids from 1 to `newest` of each pair."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.newest: dict[str, int] = {}
        self.holes: set[tuple[str, int]] = set()
        self.is_away: Callable[[], bool] = lambda: False
        self.asked: list[str] = []
        self.asked_last_ids: list[int] = []

    def trade(self, symbol: str, trade_id: int) -> Trade:
        return Trade(trade_id, "1", "1", NOW, False, symbol)

    def fetch(self, symbol: str, first: int) -> list[Trade]:
        self.asked.append(symbol)
        assert len(self.asked) < 3000, "repair does not end"
        self.clock.advance(0.1)
        if self.is_away():
            raise UnavailableError("away")
        ids = range(first, min(first + 1000, self.newest[symbol] + 1))
        return [self.trade(symbol, number) for number in ids if (symbol, number) not in self.holes]

    def last_ids(self, symbols: Sequence[str]) -> dict[str, int]:
        self.asked_last_ids.append(len(symbols))
        return {symbol: self.newest[symbol] for symbol in symbols if self.newest.get(symbol, -1) >= 0}


class Scene:
    """Pairs, each at id 1, and the thread that repairs them."""

    def __init__(self, clock: FakeClock, symbols: Sequence[str]) -> None:
        self.clock, self.began = clock, clock.now
        self.exchange = Exchange(clock)
        self.out: list[tuple[str, int]] = []
        self.named: list[tuple[float, str, Event]] = []
        self.stopping = clock.event()
        settings = load({**GIVEN, "symbols": ",".join(symbols), "symbol": None})
        self.outlet = Outlet(self.put, limit=None, on_limit=lambda: None)
        self.outlet.gap_seen = clock.event()
        self.lanes = {name: self.lane(settings.for_symbol(name)) for name in symbols}
        self.ingest = Lanes(self.outlet, list(self.lanes.values()))
        self.replaced: list[tuple[float, str]] = []
        self.repair = Repair(
            settings,
            fetch=self.exchange.fetch,
            ingest=self.ingest,
            stopping=self.stopping,
            on_turn=lambda: self.look_back.turn(),  # noqa: PLW0108 - it is made below
        )
        self.look_back = LookBack(
            settings,
            self.repair,
            newest=lambda symbol: self.exchange.trade(symbol, self.exchange.newest[symbol]),
            last_ids=lambda: self.exchange.last_ids([name for name in symbols if name != "OLDUSDT"]),
            stopping=self.stopping,
        )
        self.check = StreamCheck(
            settings,
            lanes=lambda: list(self.lanes.values()),
            last_ids=self.exchange.last_ids,
            is_open=lambda _: True,
            replace=self.replace,
        )

    def lane(self, settings: object) -> Lane:
        symbol = settings.symbol  # type: ignore[attr-defined]
        return Lane(
            settings,  # type: ignore[arg-type]
            Sequencer(),
            self.outlet,
            on_events=lambda events, _: self.named.extend((self.passed, symbol, event) for event in events),
        )

    @property
    def passed(self) -> float:
        return round(self.clock.now - self.began, 1)

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        self.out += [(lane.symbol, trade.trade_id) for trade in trades]
        return len(trades)

    def replace(self, symbol: str) -> bool:
        self.replaced.append((self.passed, symbol))
        return True

    def bring(self, symbol: str, *ids: int) -> None:
        """Trades of the stream; REST has them, and those below."""
        newest = self.exchange.newest
        newest[symbol] = max(newest.get(symbol, -1), *ids)
        self.lanes[symbol].take_trades([self.exchange.trade(symbol, number) for number in ids])

    def run(self, seconds: float) -> None:
        self.clock.after(seconds, self.stopping.set)
        self.repair.run()

    def ids(self, symbol: str) -> list[int]:
        return [number for name, number in self.out if name == symbol]


def test_pairs_take_turns_by_page_and_the_smallest_gap_is_first(clock: FakeClock) -> None:
    scene = Scene(clock, ["AUSDT", "BUSDT", "CUSDT"])
    for symbol, last in (("AUSDT", 2502), ("BUSDT", 102), ("CUSDT", 1502)):
        scene.bring(symbol, 1, last)
    scene.run(5)
    assert scene.exchange.asked == ["BUSDT", "CUSDT", "AUSDT", "CUSDT", "AUSDT", "AUSDT"]
    assert {symbol: scene.ids(symbol) for symbol in scene.lanes} == {
        "AUSDT": list(range(1, 2503)),
        "BUSDT": list(range(1, 103)),
        "CUSDT": list(range(1, 1503)),
    }


def test_a_small_gap_that_appears_in_the_middle_of_a_round_is_next(clock: FakeClock) -> None:
    scene = Scene(clock, [f"P{number}USDT" for number in range(20)] + ["AUSDT"])
    for symbol in list(scene.lanes)[:20]:
        scene.bring(symbol, 1, 1002)
    scene.bring("AUSDT", 1)
    clock.after(1.5, lambda: scene.bring("AUSDT", 3))
    scene.run(5)
    assert 12 <= scene.exchange.asked.index("AUSDT") <= 16, "a quarter of a second later"
    assert sorted(scene.exchange.asked) == sorted(scene.lanes), "each once"


def test_a_gap_holds_back_its_own_pair_only(clock: FakeClock) -> None:
    scene = Scene(clock, ["AUSDT", "BUSDT"])
    scene.exchange.holes = {("AUSDT", 2)}
    scene.bring("AUSDT", 1, 3)
    scene.bring("BUSDT", 1)
    for number in range(2, 30):
        clock.after(number, lambda number=number: scene.bring("BUSDT", number))  # type: ignore[misc]
    clock.after(30, lambda: scene.bring("BUSDT", 33))
    clock.after(40, lambda: scene.out.append(("", 0)))
    scene.run(80)
    assert scene.ids("BUSDT") == list(range(1, 34))
    assert scene.ids("AUSDT") == [1, 3]
    assert scene.out.index(("BUSDT", 33)) < scene.out.index(("", 0)) < scene.out.index(("AUSDT", 3))
    assert [(symbol, event) for _, symbol, event in scene.named] == [("AUSDT", Gap(2, 2))]


def test_rest_that_is_away_has_one_clock_and_one_request_at_a_time_for_all_pairs(clock: FakeClock) -> None:
    symbols = [f"{letter}USDT" for letter in "ABCDEFGH"]
    scene = Scene(clock, symbols)
    scene.exchange.is_away = lambda: True
    for symbol in symbols:
        scene.bring(symbol, 1, 3)
    scene.run(310)
    assert [(symbol, event) for _, symbol, event in scene.named] == [(symbol, Gap(2, 2)) for symbol in symbols]
    assert {round(at) for at, _, _ in scene.named} <= {300, 301}
    assert len(scene.exchange.asked) < 120, "as many as for one pair"


def test_an_answer_for_any_pair_restarts_the_clock_of_rest(clock: FakeClock) -> None:
    scene = Scene(clock, ["AUSDT", "BUSDT"])
    answered: list[float] = []

    def is_away() -> bool:
        if scene.passed < 250 or (answered and scene.passed < answered[0] + 250):
            return True
        answered.append(scene.passed)
        return False

    scene.exchange.is_away = is_away
    scene.bring("AUSDT", 1, 3)
    scene.bring("BUSDT", 1, 30_000)
    scene.run(700)
    assert scene.named == []
    assert scene.ids("BUSDT") == list(range(1, 30_001))


def test_a_pair_that_has_ended_is_not_repaired(clock: FakeClock) -> None:
    scene = Scene(clock, ["AUSDT", "BUSDT"])
    for symbol in scene.lanes:
        scene.bring(symbol, 1, 3)
    scene.repair.note_gaps(grace=0.0)
    scene.repair.forget(scene.lanes["AUSDT"])
    scene.run(2)
    assert scene.exchange.asked == ["BUSDT"]


def test_one_request_finds_what_all_pairs_missed_since_their_checkpoints(clock: FakeClock) -> None:
    scene = Scene(clock, ["AUSDT", "BUSDT", "CUSDT", "OLDUSDT"])
    scene.exchange.newest = {"AUSDT": 10, "BUSDT": 13, "OLDUSDT": 12}
    # CUSDT was traded within the 24 hours that the statistics cover, by its checkpoint.
    resumed = {lane: Position(10, 10**14 if name == "CUSDT" else NOW) for name, lane in scene.lanes.items()}
    for lane, position in resumed.items():
        lane.resume(position)
    scene.look_back.add(resumed)
    scene.run(3)
    assert scene.exchange.asked_last_ids == [3], "once, for all"
    assert sorted(set(scene.exchange.asked)) == ["BUSDT", "OLDUSDT"]
    assert (scene.ids("BUSDT"), scene.ids("OLDUSDT")) == ([11, 12, 13], [11, 12])


@pytest.mark.parametrize(("pairs", "requests"), [(1, [1]), (20, [20]), (50, [20, 20, 10]), (900, [900])])
def test_quiet_pairs_are_asked_for_together(clock: FakeClock, pairs: int, requests: list[int]) -> None:
    scene = Scene(clock, [f"P{number}USDT" for number in range(pairs + (pairs == 1))])
    for symbol in list(scene.lanes)[:pairs]:
        scene.bring(symbol, 1)
    if pairs == 1:
        del scene.lanes["P1USDT"]
    scene.repair._on_turn = scene.check.turn
    scene.run(100)
    assert scene.exchange.asked_last_ids == requests
    assert scene.replaced == []


def test_one_silent_pair_among_quiet_ones_is_repaired_and_its_connection_replaced(clock: FakeClock) -> None:
    scene = Scene(clock, [f"P{number}USDT" for number in range(40)])
    for symbol in scene.lanes:
        scene.bring(symbol, 1)
    clock.after(10, lambda: scene.exchange.newest.update(P7USDT=4))
    scene.repair._on_turn = scene.check.turn
    scene.run(100)
    assert scene.ids("P7USDT") == [1, 2, 3, 4]
    assert scene.exchange.asked == ["P7USDT"]
    assert [symbol for _, symbol in scene.replaced] == ["P7USDT"]
    assert [name for name, lane in scene.lanes.items() if lane.trouble] == ["P7USDT"]
