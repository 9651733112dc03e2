"""How a run ends: what is delivered, what is named and with which exit code, with a scripted source and sink."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import EndOfOutputError, LoaderError, RunError, UnavailableError
from loader_ws_trades.kafka import control
from loader_ws_trades.lifecycle import Activity, Deadline, Task
from loader_ws_trades.pipeline import ingest
from loader_ws_trades.pipeline.interfaces import Intake, Link, OnDeath
from loader_ws_trades.pipeline.trade import Refusal, Trade
from loader_ws_trades.run import live, service
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED
from tests.unit.test_ingest import frames


class Sink:
    """Delivers what it was given at each poll, while it is not `stalled`; each poll takes its whole timeout."""

    outages = 0
    waiting_since = None

    def __init__(self, clock: FakeClock) -> None:
        self.stalled = False
        self.room = 1_000_000
        self.failure: LoaderError | None = None
        self.accepted = 0
        self.delivered_ids: list[int] = []
        self._queue: list[int] = []
        self._clock = clock

    def __str__(self) -> str:
        return "a list"

    @property
    def delivered(self) -> int:
        return len(self.delivered_ids)

    @property
    def in_flight(self) -> int:
        return len(self._queue)

    def open(self, startup: object) -> None: ...

    def put(self, trades: Iterable[Trade]) -> int:
        taken = [trade.trade_id for trade in trades][: self.room - len(self._queue)]
        self._queue += taken
        self.accepted += len(taken)
        return len(taken)

    def poll(self, timeout: float) -> None:
        self._clock.advance(timeout)
        if self.failure:
            raise self.failure
        if not self.stalled:
            self.delivered_ids += self._queue
            self._queue.clear()

    def drain(self) -> None: ...

    def give_up(self, deadline: Deadline) -> list[int]:
        return self._queue


class Source:
    """Brings `trades` at its start. With `held`, it needs that many seconds before it ends, if it is given them."""

    total: int | None = None
    state = "live"
    reconnects = 0
    link = Link()
    rest_weight = 0
    done = False

    def __init__(self, *trades: Trade, resumes: bool = True) -> None:
        self.trades = trades
        self.resumes = resumes
        self.unchecked = None
        self.checking: Callable[[], None] = lambda: None
        self.preparing: Callable[[], None] = lambda: None
        self.finishing: Callable[[Intake], bool] = lambda _intake: True  # whether repair has ended by itself
        self.closed = 0

    def activities(self) -> list[Activity]:
        return []

    def check(self) -> None:
        self.checking()

    def prepare(self, intake: Intake) -> None:
        self.preparing()

    def start(self, intake: Intake, on_death: OnDeath) -> None:
        self.intake, self.on_death = intake, on_death
        Task("bringing", lambda: intake.give(self.trades)).start()

    def tick(self) -> None: ...

    def refused(self, refusal: Refusal, connection: int) -> bool:
        return False

    def keep_only(self, connection: int) -> None:
        self.kept = connection

    def close(self) -> None:
        self.closed += 1

    def finish(self, *, final: bool, patient: bool) -> bool:
        if not hasattr(self, "intake"):
            return True
        if final and patient and self.intake.has_gap and not self.finishing(self.intake):
            return False
        if final:
            self.intake.give_up("the run ended")
        return True

    def join(self, timeout: float) -> bool:
        return True

    def trouble(self) -> str | None:
        return None


def trade(trade_id: int) -> Trade:
    return Trade(trade_id, "1.0", "1.0", 1_700_000_000_000 + trade_id, False, "BTCUSDT")


def trades(*ids: int) -> list[Trade]:
    return [trade(trade_id) for trade_id in ids]


def settings(**given: str) -> Settings:
    return load({**REQUIRED, **given})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("loader_ws_trades")
    before = logger.propagate
    logger.propagate = True
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        yield caplog
    logger.propagate = before


class Ended:
    """A run that is over: its exit code and its last log line."""

    def __init__(self, source: Source, sink: Sink, log: pytest.LogCaptureFixture, **given: str) -> None:
        self.exit_code = service.run(settings(**given), lambda: source, lambda: sink, reports=False)
        self.last = log.messages[-1]


def signals(clock: FakeClock, *after: float) -> None:
    for seconds in after:
        clock.after(seconds, lambda: signal.raise_signal(signal.SIGTERM))


def test_a_signal_delivers_the_tail_and_leaves_the_gap_to_the_next_run(
    clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    source, sink = Source(*trades(1, 2, 5, 6)), Sink(clock)
    signals(clock, 1.0)
    ended = Ended(source, sink, log)
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 2]
    assert "missing trade ids" not in ended.last


def test_a_run_that_no_later_one_resumes_delivers_what_a_gap_held_back_and_names_the_gap(
    clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    source, sink = Source(*trades(1, 2, 5, 6, 9), resumes=False), Sink(clock)
    source.finishing = lambda _intake: False  # repair does not get there
    signals(clock, 1.0)
    ended = Ended(source, sink, log)
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 2, 5, 6, 9]
    assert "missing trade ids 3-4, 7-8" in ended.last


def test_a_final_end_gives_repair_half_of_the_time(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1, 2, 5), resumes=False), Sink(clock)
    asked: list[float] = []

    def finishing(intake: Intake) -> bool:
        asked.append(clock.now)
        if asked[-1] - asked[0] > 5:
            intake.fill(trades(3, 4))
        return not intake.has_gap

    source.finishing = finishing
    signals(clock, 1.0)
    ended = Ended(source, sink, log, shutdown_timeout="20")
    assert sink.delivered_ids == [1, 2, 3, 4, 5]
    assert "missing trade ids" not in ended.last
    assert ended.exit_code == 143


def test_an_obeyed_stop_is_final(
    clock: FakeClock, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = Source(*trades(1, 3, 4)), Sink(clock)
    source.finishing = lambda _intake: False
    monkeypatch.setattr(control.NoControl, "start", lambda _self, on_stop, _on_death: clock.after(1.0, on_stop))
    ended = Ended(source, sink, log)
    assert ended.exit_code == 0
    assert "missing trade ids 2" in ended.last
    assert sink.delivered_ids == [1, 3, 4]


def test_what_is_not_delivered_in_time_is_named(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1, 2, 3, 4, 5)), Sink(clock)
    sink.stalled, sink.room = True, 3
    signals(clock, 1.0)
    began = clock.now
    ended = Ended(source, sink, log, shutdown_timeout="20")
    assert ended.exit_code == 1
    assert "not delivered: trade ids 1-5" in ended.last  # those that waited for room as well
    assert clock.now - began <= 1.0 + 20


def test_a_final_end_names_what_is_held_when_kafka_is_gone(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1, 2, 5, 6, 9), resumes=False), Sink(clock)
    source.finishing = lambda _intake: False
    sink.stalled = True
    signals(clock, 1.0)
    ended = Ended(source, sink, log)
    assert ended.exit_code == 1
    assert "not delivered: trade ids 1-2, 5-6, 9" in ended.last
    assert "missing trade ids 3-4, 7-8" in ended.last


def test_a_sink_that_fails_while_draining_names_what_is_held_too(
    clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    source, sink = Source(*trades(1, 4), resumes=False), Sink(clock)
    source.finishing = lambda _intake: False
    sink.stalled = True
    signals(clock, 1.0)
    clock.after(2.0, lambda: setattr(sink, "failure", RunError("Kafka has acknowledged nothing")))
    ended = Ended(source, sink, log)
    assert ended.exit_code == 1
    assert "not delivered: trade ids 1, 4" in ended.last
    assert "missing trade ids 2-3" in ended.last


def test_a_reader_that_went_away_wants_nothing_more(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1, 2), resumes=False), Sink(clock)
    clock.after(1.0, lambda: setattr(sink, "failure", EndOfOutputError("The reader has had enough")))
    assert Ended(source, sink, log).exit_code == 0


@pytest.mark.parametrize("resumes", [True, False])
def test_a_second_signal_shortens_the_rest(clock: FakeClock, log: pytest.LogCaptureFixture, resumes: bool) -> None:
    source, sink = Source(*trades(1, 2, 5), resumes=resumes), Sink(clock)
    source.finishing = lambda _intake: False
    sink.stalled = True
    signals(clock, 1.0, 5.0)
    began = clock.now
    ended = Ended(source, sink, log, shutdown_timeout="600")
    assert ended.exit_code == 1
    assert clock.now - began <= 5.0 + 2.0
    assert ("not delivered: trade ids 1-2, 5" if not resumes else "not delivered: trade ids 1-2") in ended.last


def test_a_second_signal_leaves_repair_no_time_but_delivers_what_was_held(
    clock: FakeClock, log: pytest.LogCaptureFixture
) -> None:
    source, sink = Source(*trades(1, 2, 5), resumes=False), Sink(clock)
    source.finishing = lambda _intake: False
    signals(clock, 1.0, 2.0)
    ended = Ended(source, sink, log)
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 2, 5]


def test_what_a_gap_held_back_waits_for_room_and_is_delivered(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1, 3, 4, 5, 6, 7), resumes=False), Sink(clock)
    sink.room = 2
    signals(clock, 1.0)
    ended = Ended(source, sink, log)
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("step", ["checking", "preparing"])
def test_a_step_of_the_start_that_hangs_is_left_behind(
    clock: FakeClock, log: pytest.LogCaptureFixture, step: str
) -> None:
    source, sink, hanging = Source(), Sink(clock), threading.Event()
    setattr(source, step, hanging.wait)
    source.tick = lambda: signal.raise_signal(signal.SIGTERM)  # type: ignore[method-assign]
    assert Ended(source, sink, log).exit_code == 143
    hanging.set()


def test_a_thread_that_hangs_with_the_lock_does_not_keep_the_ids_from_being_named(
    clock: FakeClock, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_LOCK_TIME", 0.001)
    source, sink = Source(*trades(1, 2, 5), resumes=False), Sink(clock)
    source.finishing = lambda _intake: False

    def hang() -> None:
        vars(source.intake)["_lock"].acquire()

    clock.after(0.5, hang)
    signals(clock, 1.0)
    ended = Ended(source, sink, log, shutdown_timeout="1")
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 2, 5]
    assert "missing trade ids 3-4" in ended.last


def test_a_graver_reason_that_comes_while_draining_decides(clock: FakeClock, log: pytest.LogCaptureFixture) -> None:
    source, sink = Source(*trades(1)), Sink(clock)
    sink.stalled = True
    signals(clock, 1.0)
    clock.after(2.0, lambda: source.on_death(RunError("The control thread died")))
    clock.after(3.0, lambda: setattr(sink, "stalled", False))
    ended = Ended(source, sink, log)
    assert ended.exit_code == 1
    assert sink.delivered_ids == [1]
    assert ended.last.startswith("Error: The control thread died")


# -- the live source


class Feed:
    """A connection that is never made."""

    connections = 0
    opened = lost = None

    def __init__(self, _settings: Settings) -> None:
        self.reconnects: dict[str, int] = {}

    def start(self, *_: Any, **_named: Any) -> None: ...

    def close(self) -> None: ...

    def join(self, timeout: float) -> bool:
        return True

    def trouble(self) -> str | None:
        return None


class HangingRest:
    """A request that ends when the test lets it."""

    weight_used = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def await_turn(self) -> None: ...

    def trades_from(self, _symbol: str, _first_id: int) -> tuple[list[Trade], list[Refusal]]:
        self.asked.set()
        self.let_go.wait()
        raise UnavailableError("let go")

    def close(self) -> None: ...


@pytest.mark.parametrize(("final", "delivered"), [(True, [1, 4, 7]), (False, [1])])
def test_a_repair_that_hangs_in_a_request_holds_nothing_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, final: bool, delivered: list[int]
) -> None:
    monkeypatch.setattr(live, "Feed", Feed)
    monkeypatch.setattr(live, "Rest", HangingRest)
    checked = settings(resume="off" if final else "on", shutdown_timeout="1")
    source = live.Live(checked)
    rest: Any = source._rest
    source.check = lambda: None  # type: ignore[method-assign]
    source.prepare = lambda intake: None  # type: ignore[method-assign]
    source._feed.tick = lambda: None  # type: ignore[method-assign]
    start = source.start

    def bring(intake: Intake, on_death: OnDeath) -> None:
        start(intake, on_death)
        intake.take(frames(1, 4, 7))
        assert rest.asked.wait(10)
        signal.raise_signal(signal.SIGTERM)

    source.start = bring  # type: ignore[method-assign]
    sink = Sink(FakeClock())  # its polls take no time, and the deadlines are real ones
    assert service.run(checked, lambda: source, lambda: sink, reports=False) == 143
    assert sink.delivered_ids == delivered
    assert ("missing trade ids 2-3, 5-6" in log.messages[-1]) == final
    rest.let_go.set()


@pytest.mark.parametrize("moment", ["checking", "preparing", "loading"])
def test_why_a_run_failed_is_told_once(clock: FakeClock, log: pytest.LogCaptureFixture, moment: str) -> None:
    source, sink = Source(*trades(1)), Sink(clock)
    reason = "The exchange has gone"

    def fail() -> None:
        raise RunError(reason)

    if moment == "loading":
        clock.after(1.0, lambda: source.on_death(RunError(reason)))
    else:
        setattr(source, moment, fail)
    source.trouble = lambda: reason  # type: ignore[method-assign]
    ended = Ended(source, sink, log)
    assert ended.exit_code == 1
    assert "".join(log.messages).count(reason) == 1
    assert ended.last.startswith(f"Error: {reason}; ")
