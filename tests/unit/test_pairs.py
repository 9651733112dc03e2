"""Which pairs a live run loads, with a scripted exchange; the test moves the clock."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from loader_ws_trades.binance.rest import Rest, Ticker
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.run.pairs import Pairs
from loader_ws_trades.run.resume import NO_TRADE, Start
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline
from tests.unit.test_config import REQUIRED

AWAY = UnavailableError("no answer")


class Exchange:
    """The pairs that are listed, and their trade ids."""

    def __init__(self) -> None:
        self.listed = dict.fromkeys(("AUSDT", "BUSDT", "CBTC"), "TRADING")
        self.ids: dict[str, Ticker] = {}
        self.away = 0
        self.asked: list[str] = []

    def check_symbols(self, names: Collection[str]) -> dict[str, str]:
        if unknown := set(names) - set(self.listed):
            raise ConfigurationError(f"does not know {unknown}")
        return self.trading_symbols()

    def trading_symbols(self) -> dict[str, str]:
        self.asked.append("pairs")
        if self.away:
            self.away -= 1
            raise AWAY
        return dict(self.listed)

    def tickers(self, symbols: Sequence[str]) -> dict[str, Ticker]:
        self.asked.append("tickers")
        return {name: self.ids[name] for name in symbols if name in self.ids}


class Scene:
    """The pairs of a run with patterns, what its streams carry, and which lanes have ended."""

    def __init__(self, clock: FakeClock, symbols: str = "*USDT", **values: str) -> None:
        self.clock = clock
        self.exchange = Exchange()
        self.streams: list[str] = []
        self.on_topic: dict[str, int] = {}
        self.unreadable = False
        self.rejected: set[str] = set()  # pairs whose topic is missing
        self.ended: list[tuple[str, str]] = []
        self.forgotten: list[str] = []
        settings = load({**REQUIRED, "symbol": None, "symbols": symbols, "symbols_refresh": "60", **values})
        rest = cast("Rest", self.exchange)
        self.unsettled: dict[Lane, Checkpoint] = {}
        self.settled: dict[str, Start] = {}
        self.pairs = Pairs(settings, rest, cast("Any", self), cast("Any", self), clock.event())
        self.pairs.on_end.append(lambda lane: self.forgotten.append(lane.symbol))
        self.lanes: dict[str, Lane] = {}

    def positions(self, lanes: Sequence[Lane]) -> dict[Lane, Position]:
        if self.unreadable:
            raise RunError("unreadable")
        self.unsettled |= {lane: Checkpoint(since=1) for lane in lanes if lane.symbol in self.settled}
        return {lane: Position(self.on_topic[lane.symbol]) for lane in lanes if lane.symbol in self.on_topic}

    def settle(self) -> dict[Lane, Start]:
        """As `Resume`."""
        found = {lane: self.settled[lane.symbol] for lane in self.unsettled}
        self.unsettled = {}
        return found

    def add(self, *symbols: str) -> list[Lane]:
        """As the run, which makes lanes, and as the streams, which carry them."""
        self.streams += symbols
        return []

    def remove(self, symbol: str) -> None:
        self.streams.remove(symbol)

    def start(self) -> None:
        self.pairs.find()
        self.pairs.prepare(cast("Any", Keeper(self)))

    def look(self, *listed: str) -> None:
        """The exchange lists these besides `CBTC`; a minute later the pairs are looked up again."""
        self.exchange.listed = dict.fromkeys((*listed, "CBTC"), "TRADING")
        self.clock.advance(60)
        self.pairs.turn()


class Keeper:
    """What a run does with lanes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def add(self, symbols: Sequence[str]) -> list[Lane]:
        made = {symbol: Pipeline(symbol).lane for symbol in symbols if symbol not in self.scene.rejected}
        self.scene.lanes |= made
        return list(made.values())

    def end(self, lane: Lane, status: str, _message: str) -> None:
        self.scene.ended.append((lane.symbol, status))


@pytest.fixture
def scene(clock: FakeClock) -> Scene:
    return Scene(clock)


def test_the_pairs_that_match_are_loaded_and_resume(scene: Scene) -> None:
    scene.on_topic = {"BUSDT": 7}
    scene.start()
    assert scene.streams == ["AUSDT", "BUSDT"]
    assert scene.lanes["BUSDT"].gap() is None
    scene.lanes["BUSDT"].expect(9)
    assert str(scene.lanes["BUSDT"].gap()) == "8-9"


def test_pairs_that_rest_must_be_asked_for_join_later_and_delay_nobody(scene: Scene) -> None:
    scene.exchange.listed |= dict.fromkeys(("DUSDT", "EUSDT"), "TRADING")
    scene.on_topic = {"AUSDT": 3}
    scene.settled = {"BUSDT": Start(7, 9), "DUSDT": Start(NO_TRADE), "EUSDT": Start()}
    scene.start()
    assert scene.streams == ["AUSDT"]
    scene.pairs.turn()
    assert scene.streams == ["AUSDT", "BUSDT", "EUSDT"], "REST does not say where EUSDT resumes"
    assert str(scene.lanes["BUSDT"].gap()) == "8-9"
    scene.clock.advance(5)
    scene.exchange.ids["DUSDT"] = Ticker(100, 100)
    scene.pairs.turn()
    assert scene.streams == ["AUSDT", "BUSDT", "EUSDT", "DUSDT"], "at its first trade"
    assert str(scene.lanes["DUSDT"].gap()) == "100"


def test_a_pair_that_ends_before_rest_was_asked_is_forgotten(clock: FakeClock) -> None:
    scene = Scene(clock)
    many = [f"P{number}USDT" for number in range(20)]
    scene.exchange.listed |= dict.fromkeys(many, "TRADING")
    scene.settled = {"AUSDT": Start(7, 9)}
    scene.start()
    scene.settle = dict  # type: ignore[method-assign]
    for _ in range(3):
        scene.look("BUSDT", *many)
    assert scene.ended == [("AUSDT", "finished")]
    assert scene.unsettled == {}


def test_a_pair_whose_topic_is_missing_has_no_stream_and_ends_silently_later(scene: Scene) -> None:
    scene.rejected = {"AUSDT"}
    scene.start()
    assert scene.streams == ["BUSDT"]
    for _ in range(3):
        scene.look("BUSDT")
    assert scene.ended == []


def test_a_new_listing_is_joined_once_its_first_trade_is_known(scene: Scene) -> None:
    scene.start()
    scene.look("AUSDT", "BUSDT", "NEWUSDT")
    for _ in range(3):
        scene.clock.advance(5)
        scene.pairs.turn()
    assert scene.streams == ["AUSDT", "BUSDT"], "its first trades would come before the stream does"
    scene.exchange.ids["NEWUSDT"] = Ticker(1, 3)
    scene.clock.advance(5)
    scene.pairs.turn()
    assert scene.streams == ["AUSDT", "BUSDT", "NEWUSDT"]
    assert str(scene.lanes["NEWUSDT"].gap()) == "1-3"


def test_a_pair_that_returns_resumes_after_its_newest_trade_on_the_topic(scene: Scene) -> None:
    scene.start()
    scene.on_topic, scene.exchange.ids = {"NEWUSDT": 50}, {"NEWUSDT": Ticker(10, 52)}
    scene.look("AUSDT", "BUSDT", "NEWUSDT")
    assert str(scene.lanes["NEWUSDT"].gap()) == "51-52"


def test_a_new_listing_begins_at_its_first_trade_if_the_topic_cannot_be_read(scene: Scene) -> None:
    scene.start()
    scene.unreadable, scene.exchange.ids = True, {"NEWUSDT": Ticker(10, 12)}
    scene.look("AUSDT", "BUSDT", "NEWUSDT")
    assert str(scene.lanes["NEWUSDT"].gap()) == "10-12"


def test_a_pair_ends_after_three_look_ups_without_it(clock: FakeClock) -> None:
    scene = Scene(clock)
    many = [f"P{number}USDT" for number in range(20)]
    scene.exchange.listed |= dict.fromkeys(many, "TRADING")
    scene.start()
    for ended in ([], [], [("AUSDT", "finished")], [("AUSDT", "finished")]):
        scene.look("BUSDT", *many)
        assert scene.ended == ended
    assert "AUSDT" not in scene.streams
    assert scene.forgotten == ["AUSDT"]


def test_look_ups_that_fail_change_nothing(scene: Scene) -> None:
    scene.start()
    scene.exchange.away = 5
    for _ in range(5):
        scene.look()
    assert (scene.ended, scene.streams) == ([], ["AUSDT", "BUSDT"])


def test_names_are_not_looked_up_again(clock: FakeClock) -> None:
    scene = Scene(clock, "AUSDT,BUSDT")
    scene.start()
    scene.look()
    assert scene.exchange.asked == ["pairs"]
    assert scene.streams == ["AUSDT", "BUSDT"]


def test_names_are_loaded_even_if_the_exchange_does_not_list_its_pairs(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(clock, "AUSDT,BUSDT")
    scene.exchange.away = 1
    scene.start()
    assert scene.streams == ["AUSDT", "BUSDT"]
    assert any(
        "could not be checked" in record.message for record in caplog.records if record.levelno >= logging.WARNING
    )


@pytest.mark.parametrize(("failures", "found"), [(3, True), (10_000, False)])
def test_patterns_wait_for_the_exchange_until_the_limit(clock: FakeClock, failures: int, found: bool) -> None:
    scene = Scene(clock, repair_outage_limit="20")
    scene.exchange.away = failures
    began = clock.now
    if found:
        scene.start()
        assert scene.streams == ["AUSDT", "BUSDT"]
    else:
        with pytest.raises(RunError, match="Cannot list the exchange's pairs"):
            scene.start()
        assert 20 <= clock.now - began < 22


def test_a_pattern_without_a_pair_waits_for_one(clock: FakeClock) -> None:
    scene = Scene(clock, "*EUR")
    scene.start()
    assert scene.streams == []
    scene.exchange.ids = {"NEWEUR": Ticker(0, 0)}
    scene.look("AUSDT", "BUSDT", "NEWEUR")
    assert scene.streams == ["NEWEUR"]
