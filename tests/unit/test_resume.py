"""Where a run resumes, with scripted searches and a scripted exchange."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import pytest

from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.run import resume
from loader_ws_trades.run.resume import Resume
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline

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
    assert found.position() == Position(999, SINCE)
    assert exchange.asked == [SINCE, SINCE]
    assert found.unchecked == (
        "trades before id 1000 (time 2023-11-14T22:13:20.000Z) could not be checked; run backfill"
    )
    assert found.waits is None


def test_without_trades_since_it_resumes_after_the_newest_one(make: Make) -> None:
    found = make(DOUBT, exchange=Exchange(None))
    assert found.position() == Position(900, SINCE)
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
