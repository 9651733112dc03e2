"""Where a run resumes, with scripted searches and a scripted exchange."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import cast

import pytest

from loader_ws_trades.binance.rest import Rest, Ticker
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.run import resume
from loader_ws_trades.run.resume import NO_TRADE, Resume, Start
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline
from tests.unit.test_config import REQUIRED

AWAY = UnavailableError("no answer")
HIDDEN = HiddenError("trades", 0, 50)
SINCE = 1_700_000_000_000
DOUBT = Checkpoint(since=SINCE, doubt="The topic trades has no trade of POLUSDT")


class Exchange:
    """Answers in turn, the last answer for ever."""

    def __init__(self, *answers: int | UnavailableError | None, newest: int = 900) -> None:
        self.answers = list(answers)
        self.newest = newest
        self.asked: list[int] = []

    def first_id_at(self, symbol: str, moment: int) -> int | None:
        assert symbol == "POLUSDT"
        self.asked.append(moment)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    def newest_id(self, symbol: str) -> int:
        assert symbol == "POLUSDT"
        return self.newest


class One:
    """The resume of one pair."""

    def __init__(self, resume: Resume) -> None:
        self.resume = resume
        self.lane = Pipeline("POLUSDT").lane

    def position(self) -> Position | None:
        return self.resume.positions([self.lane]).get(self.lane)

    @property
    def unchecked(self) -> str | None:
        return self.lane.unchecked

    @property
    def possible(self) -> bool:
        return self.resume.possible

    @property
    def waits(self) -> str | None:
        return self.resume.waits


Make = Callable[..., One]


@pytest.fixture
def make(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A `Resume` whose searches have these outcomes, the last one for ever; each takes a second."""

    def made(*ends: Checkpoint | UnavailableError, exchange: Exchange | None = None, **values: str) -> One:
        left = list(ends)

        class Scripted:
            def run(self, patience: float) -> dict[str, Checkpoint]:
                clock.advance(patience)
                found = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(found, UnavailableError):
                    raise found
                return {"POLUSDT": found}

            def turn_to(self, topic: str) -> None:
                pass

            def close(self) -> None:
                pass

        monkeypatch.setattr(resume, "Search", lambda *_, **__: Scripted())
        monkeypatch.setattr(resume, "TopicScanner", lambda _: Scripted())
        settings = load({"symbol": "POLUSDT", "kafka_outage_limit": "10"} | values, needed=["symbol"])
        return One(Resume(settings, cast("Rest", exchange or Exchange(1000)), clock.event()))

    return made


def test_a_new_pair_starts_live_without_doubt(make: Make) -> None:
    found = make(Checkpoint())
    assert found.position() is None
    assert found.possible
    assert found.unchecked is None


def test_resume_off_reads_nothing_and_no_later_run_resumes(make: Make) -> None:
    found = make(AWAY, resume="off")
    assert found.position() is None
    assert not found.possible


def test_without_read_permission_no_later_run_resumes(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    found = make(UnavailableError("Kafka denies READ on the topic trades", lasting=True))
    assert found.position() is None
    assert not found.possible
    [line] = caplog.messages
    assert "denies READ" in line


@pytest.mark.parametrize("error", [AWAY, HIDDEN])
def test_an_unreadable_checkpoint_is_retried_and_logged_once(
    make: Make, error: UnavailableError, caplog: pytest.LogCaptureFixture
) -> None:
    found = make(error, error, error, Checkpoint(Position(7, SINCE)))
    assert found.position() == Position(7, SINCE)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    assert found.waits is None


@pytest.mark.parametrize(
    ("error", "advice"), [(AWAY, "check the brokers"), (HIDDEN, "raise KAFKA_OUTAGE_LIMIT (--kafka-outage-limit)")]
)
def test_the_checkpoint_is_retried_until_the_limit(
    make: Make, clock: FakeClock, error: UnavailableError, advice: str
) -> None:
    found, began = make(error), clock.now
    with pytest.raises(RunError) as raised:
        found.position()
    assert str(raised.value).endswith(advice)
    assert 10 <= clock.now - began <= 13
    assert str(error) in (found.waits or "")


def test_a_pair_that_is_not_found_resumes_at_the_start_of_the_searched_time(make: Make) -> None:
    exchange = Exchange(AWAY, 1000)
    found = make(DOUBT, exchange=exchange)
    assert found.position() == Position(999)
    assert exchange.asked == [SINCE, SINCE]
    assert found.unchecked == (
        "trades before id 1000 (time 2023-11-14T22:13:20.000Z) could not be checked; run backfill"
    )
    assert found.waits is None


def test_without_trades_since_it_resumes_after_the_newest_one(make: Make) -> None:
    found = make(DOUBT, exchange=Exchange(None))
    assert found.position() == Position(900)
    assert "trades before id 901 " in (found.unchecked or "")


@pytest.mark.parametrize("error", [AWAY, UnavailableError("HTTP 451", lasting=True)])
def test_without_rest_the_run_starts_live_and_reports_what_is_unchecked(
    make: Make, clock: FakeClock, error: UnavailableError
) -> None:
    found, began = make(DOUBT, exchange=Exchange(error), repair_outage_limit="20"), clock.now
    assert found.position() is None
    assert found.unchecked == "trades before the first live one could not be checked; run backfill"
    assert clock.now - began <= 22
    assert found.possible


def test_an_unknown_time_is_not_requested(make: Make) -> None:
    exchange = Exchange(1000)
    found = make(Checkpoint(doubt="The topic trades holds nothing any more"), exchange=exchange)
    assert found.position() is None
    assert not exchange.asked
    assert "before the first live one" in (found.unchecked or "")


def test_a_closed_run_stops_waiting(make: Make, clock: FakeClock) -> None:
    found = make(HIDDEN)
    clock.after(3, found.resume._closed.set)
    assert found.position() is None


class Listed:
    """REST that knows the newest ids of pairs, and the first id since any time."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.newest: dict[str, int] = {}
        self.first: dict[str, int] = {}
        self.failing: dict[str, UnavailableError] = {}
        self.asked: list[str] = []

    def tickers(self, symbols: Collection[str]) -> dict[str, Ticker]:
        self.asked.append(f"tickers of {len(symbols)}")
        return {symbol: Ticker(1, self.newest[symbol]) for symbol in symbols if symbol in self.newest}

    def first_id_at(self, symbol: str, moment: int) -> int | None:
        self.asked.append(symbol)
        self.clock.advance(0.1)
        if symbol in self.failing:
            raise self.failing[symbol]
        assert moment == RECENT
        return self.first.get(symbol)


RECENT = round(time.time() * 1000) - 3_600_000
ASKED_FOR = Checkpoint(since=RECENT, doubt="The topic trades has no trade")


class Several:
    """The resume of several pairs whose newest trades were not found."""

    def __init__(self, clock: FakeClock, *symbols: str, checkpoint: Checkpoint = ASKED_FOR) -> None:
        self.clock = clock
        self.rest = Listed(clock)
        settings = load(REQUIRED | {"symbol": None, "symbols": ",".join(symbols)})
        self.resume = Resume(settings, cast("Rest", self.rest), clock.event())
        pipeline = Pipeline(*symbols)
        for lane in pipeline.ingest.lanes.values():
            lane.of = f" of {lane.symbol}"
            self.resume.unsettled[lane] = checkpoint

    def settle(self, seconds: int = 1) -> dict[str, Start]:
        found: dict[Lane, Start] = {}
        for _ in range(seconds):
            found |= self.resume.settle()
            self.clock.advance(1)
        return {lane.symbol: start for lane, start in found.items()}


def test_several_pairs_are_asked_for_with_few_requests(clock: FakeClock) -> None:
    pairs = Several(clock, *(f"P{number}USDT" for number in range(25)))
    pairs.rest.newest = {"P0USDT": 50, "P1USDT": 60}
    pairs.rest.first = {"P0USDT": 41}
    found = pairs.settle()
    assert (found["P0USDT"], found["P1USDT"]) == (Start(40, 50), Start(60, 60))
    assert set(found.values()) == {Start(40, 50), Start(60, 60), Start(NO_TRADE)}
    assert pairs.rest.asked == ["tickers of 20", "P0USDT", "P1USDT", "tickers of 5"]


def test_pairs_not_traded_today_are_asked_for_if_the_topic_was_searched_from_before(clock: FakeClock) -> None:
    since = RECENT - 48 * 3_600_000
    pairs = Several(clock, "AUSDT", "BUSDT", checkpoint=ASKED_FOR._replace(since=since))
    asked: list[int] = []
    pairs.rest.first_id_at = lambda _symbol, moment: asked.append(moment)  # type: ignore[method-assign,assignment]
    assert pairs.settle() == dict.fromkeys(("AUSDT", "BUSDT"), Start(NO_TRADE, NO_TRADE))
    assert asked == [since, since]


def test_asking_for_many_pairs_leaves_time_for_repair(clock: FakeClock) -> None:
    names = [f"P{number}USDT" for number in range(25)]
    pairs = Several(clock, *names)
    pairs.rest.newest = dict.fromkeys(names, 9)
    first = len(pairs.resume.settle())
    assert first in {5, 6}
    assert len(pairs.settle(5)) == 25 - first


def test_a_pair_that_rest_does_not_answer_for_holds_up_no_other(clock: FakeClock) -> None:
    names = ["AUSDT", "BUSDT", "CUSDT"]
    pairs = Several(clock, *names)
    pairs.rest.newest = dict.fromkeys(names, 9)
    pairs.rest.failing = {"AUSDT": AWAY, "BUSDT": UnavailableError("Invalid symbol", lasting=True)}
    assert pairs.settle(3) == {"BUSDT": Start(), "CUSDT": Start(9, 9)}
    assert [lane.symbol for lane in pairs.resume.unsettled] == ["AUSDT"]
    assert pairs.settle(400) == {"AUSDT": Start()}, "after REPAIR_OUTAGE_LIMIT"
    assert pairs.rest.asked.count("AUSDT") < 60, "of 300 turns, with a delay of 15 s on average"
