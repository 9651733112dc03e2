"""How a run ends: what is delivered, what is named and with which exit code, with a scripted source and sink."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import ConfigurationError, EndOfOutputError, LoaderError, RunError, UnavailableError
from loader_ws_trades.lifecycle import Activity, Deadline, Startup, Task
from loader_ws_trades.pipeline import interfaces, outlet
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import LaneKeeper, OnDeath, SourceStatus, Undelivered
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade
from loader_ws_trades.run import context, live, service
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED
from tests.unit.test_ingest import frames


class Sink:
    """Delivers what it was given at each poll, while it is not `stalled`; each lasts its timeout, unless woken."""

    outages = 0
    waiting_since = None
    served_late = 0
    delivery_time = 0.0

    def __init__(self, clock: FakeClock) -> None:
        self.stalled = False
        self.room = 1_000_000
        self.failure: LoaderError | None = None
        self.accepted = 0
        self.delivered_ids: list[int] = []
        self._queue: list[int] = []
        self._wakeup = clock.wakeup()

    def __str__(self) -> str:
        return "a list"

    @property
    def delivered(self) -> int:
        return len(self.delivered_ids)

    @property
    def in_flight(self) -> int:
        return len(self._queue)

    def open(self, startup: object) -> None: ...

    def wake(self) -> None:
        self._wakeup.set()

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        taken = [trade.trade_id for trade in trades][: self.room - len(self._queue)]
        self._queue += taken
        self.accepted += len(taken)
        lane.accepted += len(taken)
        self._lane = lane
        return len(taken)

    def poll(self, timeout: float) -> None:
        self._wakeup.wait(timeout)
        if self.failure:
            raise self.failure
        if not self.stalled:
            if self._queue:
                self._lane.delivered += len(self._queue)
            self.delivered_ids += self._queue
            self._queue.clear()

    def drain(self) -> None: ...

    def give_up(self, deadline: Deadline) -> list[Undelivered]:
        return [("BTCUSDT", trade_id) for trade_id in self._queue]

    def admit(self, lanes: Sequence[Lane], startup: Startup) -> dict[Lane, LoaderError]:
        return {}

    def forget(self) -> None:
        self._queue = []


class Source(interfaces.Source):
    """Hands over `trades` at its start; its status and its steps can be replaced."""

    done = False

    def __init__(self, *trades: Trade, resumes: bool = True) -> None:
        self.trades = trades
        self.state = SourceStatus("live", resumes=resumes)
        self.checking: Callable[[], None] = lambda: None
        self.preparing: Callable[[], None] = lambda: None
        self.finishing: Callable[[Ingest], bool] = lambda _receiver: True  # whether repair has ended by itself

    def status(self) -> SourceStatus:
        return self.state

    def check(self) -> None:
        self.checking()

    def prepare(self, receiver: Ingest, lanes: LaneKeeper) -> None:
        self.preparing()

    def start(self, receiver: Ingest, on_death: OnDeath) -> None:
        self.receiver, self.on_death = receiver, on_death
        bringing = Task("bringing", lambda: receiver.lane.take_trades(self.trades))
        bringing.start()
        while not bringing.join(0.001) and not receiver.full:
            pass

    def keep_only(self, connection: int) -> None:
        self.kept = connection

    def close(self) -> None: ...

    def finish(self, *, final: bool, patient: bool) -> bool:
        if not hasattr(self, "receiver"):
            return True
        if final and patient and self.receiver.has_gap and not self.finishing(self.receiver):
            return False
        if final:
            self.receiver.give_up("the run ended")
        return True

    def join(self, timeout: float) -> bool:
        return True


def trade(trade_id: int) -> Trade:
    return Trade(trade_id, "1.0", "1.0", 1_700_000_000_000 + trade_id, False, "BTCUSDT")


def trades(*ids: int) -> list[Trade]:
    return [trade(trade_id) for trade_id in ids]


def settings(**given: str) -> Settings:
    return load({**REQUIRED, "telemetry_interval": "1000", **given})


class Control:
    """Sends a stop command after `seconds`, if there is one to send."""

    silent_for = 0.0

    def __init__(self, clock: FakeClock, seconds: float | None = None) -> None:
        self._clock, self._seconds = clock, seconds
        self.caught_up = threading.Event()
        self.caught_up.set()

    def open(self, startup: object) -> None: ...

    def start(self, on_stop: Callable[[], None], _on_death: OnDeath) -> None:
        if self._seconds:
            self._clock.after(self._seconds, on_stop)

    def close(self) -> None: ...

    def join(self, timeout: float) -> bool:
        return True


class Telemetry:
    """Keeps the events that were sent."""

    is_open = flushed = True
    congested = False

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def open(self, startup: object) -> None: ...

    def send(self, status: str, message: str, _written: int, _settings: Settings, *, finished: bool = False) -> None:
        assert not self.events or self.events[-1][0] == "started"
        assert finished == bool(self.events)
        self.events.append((status, message))

    def poll(self, timeout: float = 0) -> None: ...

    def give_up(self) -> None: ...


@dataclass
class Ended:
    """A run that is over: its exit code, and its last event, which the last log line repeats."""

    exit_code: int
    status: str
    message: str


Run = Callable[..., Ended]


@pytest.fixture
def run(clock: FakeClock, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs to the end, with signals or a stop command after so many seconds."""

    def made(
        source: Source, sink: Sink, *, signals: tuple[float, ...] = (), stop: float | None = None, **given: str
    ) -> Ended:
        for seconds in signals:
            clock.after(seconds, lambda: signal.raise_signal(signal.SIGTERM))
        telemetry = Telemetry()
        monkeypatch.setattr(context, "Control", lambda _settings: Control(clock, stop))
        monkeypatch.setattr(context, "Telemetry", lambda _settings: telemetry)
        exit_code = service.run(settings(**given), lambda: source, lambda: sink)
        status, message = telemetry.events[-1]
        assert logged.messages[-1].startswith(f"{status.capitalize()}: {message} (")
        return Ended(exit_code, status, message)

    return made


@dataclass
class Case:
    """What comes in, what happens, and how it must end."""

    ids: tuple[int, ...]
    exit_code: int
    delivered: tuple[int, ...]
    says: tuple[str, ...] = ()
    signals: tuple[float, ...] = (1.0,)
    stop: float | None = None
    resumes: bool = False
    stalled: bool = False
    room: int = 1_000_000


CASES = {
    "a signal leaves the gap to the next run": Case((1, 2, 5, 6), 143, (1, 2), resumes=True),
    "a run that none resumes names the gap and delivers what it held back": Case(
        (1, 2, 5, 6, 9), 143, (1, 2, 5, 6, 9), ("missing trade ids 3-4, 7-8",)
    ),
    "a stop command is final": Case(
        (1, 3, 4), 0, (1, 3, 4), ("Stopped by command", "missing trade ids 2"), (), stop=1.0, resumes=True
    ),
    "a full sink takes what a gap held back": Case(
        (1, 3, 4, 5, 6, 7), 143, (1, 3, 4, 5, 6, 7), ("missing trade ids 2",), room=2
    ),
    "a second signal leaves repair no time": Case(
        (1, 2, 5), 143, (1, 2, 5), ("missing trade ids 3-4",), signals=(1.0, 2.0)
    ),
    "undelivered ids are named, those that waited for room as well": Case(
        (1, 2, 3, 4, 5), 1, (), ("not delivered: trade ids 1-5",), resumes=True, stalled=True, room=3
    ),
    "undelivered and missing ids are named": Case(
        (1, 2, 5, 6, 9),
        1,
        (),
        ("not delivered: trade ids 1-2, 5-6, 9", "missing trade ids 3-4, 7-8"),
        stalled=True,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_end_of_a_run(clock: FakeClock, run: Run, case: Case) -> None:
    source, sink, began = Source(*trades(*case.ids), resumes=case.resumes), Sink(clock), clock.now
    source.finishing = lambda _receiver: False  # repair does not get there
    sink.stalled, sink.room = case.stalled, case.room
    ended = run(source, sink, signals=case.signals, stop=case.stop, shutdown_timeout="20")
    assert (ended.exit_code, tuple(sink.delivered_ids)) == (case.exit_code, case.delivered)
    for text in case.says:
        assert text in ended.message
    assert ("missing" in ended.message) == any("missing trade" in text for text in case.says)
    assert clock.now - began <= 1.0 + (20 if case.stalled else 20 / 2), "half of the time is for repair"


@pytest.mark.parametrize("resumes", [True, False])
def test_a_second_signal_leaves_two_seconds(clock: FakeClock, run: Run, resumes: bool) -> None:
    source, sink, began = Source(*trades(1, 2, 5), resumes=resumes), Sink(clock), clock.now
    source.finishing = lambda _receiver: False
    sink.stalled = True
    ended = run(source, sink, signals=(1.0, 5.0), shutdown_timeout="600")
    assert ended.exit_code == 1
    assert clock.now - began <= 5.0 + 2.0
    assert ("not delivered: trade ids 1-2" if resumes else "not delivered: trade ids 1-2, 5") in ended.message


def test_a_final_end_gives_repair_half_of_the_time(clock: FakeClock, run: Run) -> None:
    source, sink, asked = Source(*trades(1, 2, 5), resumes=False), Sink(clock), list[float]()

    def finishing(receiver: Ingest) -> bool:
        asked.append(clock.now)
        if asked[-1] - asked[0] > 5:
            receiver.lane.fill(trades(3, 4))
        return not receiver.has_gap

    source.finishing = finishing
    ended = run(source, sink, signals=(1.0,), shutdown_timeout="20")
    assert sink.delivered_ids == [1, 2, 3, 4, 5]
    assert "missing trade ids" not in ended.message
    assert ended.exit_code == 143


def test_a_sink_that_fails_while_draining_names_what_is_held_too(clock: FakeClock, run: Run) -> None:
    source, sink = Source(*trades(1, 4), resumes=False), Sink(clock)
    source.finishing = lambda _receiver: False
    sink.stalled = True
    clock.after(2.0, lambda: setattr(sink, "failure", RunError("Kafka has acknowledged nothing")))
    ended = run(source, sink, signals=(1.0,))
    assert ended.exit_code == 1
    assert "not delivered: trade ids 1, 4" in ended.message
    assert "missing trade ids 2-3" in ended.message


@pytest.mark.parametrize("failing", [1.0, 2.0], ids=["loading", "draining"])
def test_closed_output_is_not_an_error(clock: FakeClock, run: Run, failing: float) -> None:
    source, sink = Source(*trades(1, 2), resumes=False), Sink(clock)
    sink.stalled = True
    clock.after(failing, lambda: setattr(sink, "failure", EndOfOutputError("The reader went away")))
    clock.after(failing, sink.forget)
    assert run(source, sink, stop=1.5).exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_exit_code_is_decided_does_not_change_it(clock: FakeClock, run: Run, number: int) -> None:
    came: list[int] = []
    signal.signal(number, lambda number, _: came.append(number))
    ended = run(Source(*trades(1)), Sink(clock), stop=1.0)
    signal.raise_signal(number)
    assert (ended.exit_code, came) == (0, [])


def test_a_run_ends_when_its_duration_has_passed(clock: FakeClock) -> None:
    class Endless(Source):
        def start(self, receiver: Ingest, on_death: OnDeath) -> None:
            super().start(receiver, on_death)
            self.began = clock.now

        def close(self) -> None:
            self.ended, self.done = clock.now, True

    source, sink = Endless(), Sink(clock)
    assert service.run(settings(duration="1.3"), lambda: source, lambda: sink, reports=False) == 0
    assert round(source.ended - source.began, 3) == 1.3


@pytest.mark.parametrize("step", ["checking", "preparing"])
def test_a_step_of_the_start_that_hangs_is_abandoned(clock: FakeClock, run: Run, step: str) -> None:
    source, sink, hanging = Source(), Sink(clock), threading.Event()
    setattr(source, step, hanging.wait)
    source.tick = lambda delivery_time: signal.raise_signal(signal.SIGTERM)  # type: ignore[method-assign]
    assert service.run(settings(), lambda: source, lambda: sink, reports=False) == 143
    hanging.set()


def test_a_thread_that_hangs_with_the_lock_does_not_keep_the_ids_from_being_named(
    clock: FakeClock, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "_LOCK_TIME", 0.001)
    source, sink = Source(*trades(1, 2, 5), resumes=False), Sink(clock)
    source.finishing = lambda _receiver: False

    def hang() -> None:
        vars(source.receiver)["_outlet"].lock.acquire()

    clock.after(0.5, hang)
    ended = run(source, sink, signals=(1.0,), shutdown_timeout="1")
    assert ended.exit_code == 143
    assert sink.delivered_ids == [1, 2, 5]
    assert "missing trade ids 3-4" in ended.message


@pytest.mark.parametrize(
    ("during", "while_draining", "code"),
    [
        (None, RunError("Something died"), 1),
        (RunError("The feed died"), ConfigurationError("Something is set wrong"), 2),
        (ConfigurationError("Something is set wrong"), RunError("The feed died"), 2),
        (RunError("Something died"), RunError("The feed died"), 1),
    ],
)
def test_the_worst_reason_counts_and_of_equal_ones_the_first(
    clock: FakeClock, run: Run, during: LoaderError | None, while_draining: LoaderError, code: int
) -> None:
    source, sink = Source(*trades(1)), Sink(clock)
    sink.stalled = True
    if during:
        clock.after(1.0, lambda: source.on_death(during))
    clock.after(2.0, lambda: source.on_death(while_draining))
    clock.after(3.0, lambda: setattr(sink, "stalled", False))
    ended = run(source, sink, signals=() if during else (1.0,))
    assert ended.exit_code == code
    assert sink.delivered_ids == [1]
    assert ended.message.startswith("Something ")


@pytest.mark.parametrize("moment", ["checking", "preparing", "loading"])
def test_the_reason_of_a_failure_is_logged_once(
    clock: FakeClock, logged: pytest.LogCaptureFixture, run: Run, moment: str
) -> None:
    source, sink, reason = Source(*trades(1)), Sink(clock), "The exchange has gone"

    def fail() -> None:
        raise RunError(reason)

    if moment == "loading":
        clock.after(1.0, lambda: source.on_death(RunError(reason)))
    else:
        setattr(source, moment, fail)
    source.state = source.state._replace(trouble=reason)
    if moment == "checking":
        assert service.run(settings(), lambda: source, lambda: sink, reports=False) == 1
    else:
        assert run(source, sink).exit_code == 1
    assert "".join(logged.messages).count(reason) == 1
    assert logged.messages[-1].startswith(f"Error: {reason}; ")


def test_a_reset_names_the_gap_before_it_and_closes_other_connections(
    clock: FakeClock, logged: pytest.LogCaptureFixture, run: Run
) -> None:
    new = [Trade(number, "1", "1", 1_800_000_000_000 + number, True, "BTCUSDT") for number in (1, 2, 3)]
    source, sink = Source(*trades(100, 103), *new), Sink(clock)
    ended = run(source, sink, signals=(1.0,))
    assert sink.delivered_ids == [100, 103, 1, 2, 3]
    assert source.kept == 0
    assert "Missing trade ids 101-102 (before the reset of trade ids)" in logged.messages
    assert "missing trade ids 101-102" in ended.message


def test_late_trades_are_logged_and_counted(clock: FakeClock, logged: pytest.LogCaptureFixture, run: Run) -> None:
    source, sink = Source(*trades(1, 4, 2, 3)), Sink(clock)
    run(source, sink, signals=(1.0,), gap_repair="off")
    assert any(message.startswith("Trade ids 2-3 came after they were given up") for message in logged.messages)
    assert any("late 2" in message for message in logged.messages)


@pytest.mark.parametrize("resume", ["on", "off"])
def test_trades_too_few_to_prove_a_reset_are_named_at_the_end(
    clock: FakeClock, logged: pytest.LogCaptureFixture, run: Run, resume: str
) -> None:
    new = [Trade(number, "1", "1", 1_800_000_000_000 + number, True, "BTCUSDT") for number in (1, 2)]
    source, sink = Source(*trades(100, 101), *new), Sink(clock)
    ended = run(source, sink, signals=(1.0,), resume=resume)
    assert sink.delivered_ids == [100, 101]
    assert "missing trade ids 1-2" in ended.message
    assert any(re.match("Missing trade ids 1-2|Missing trade ids 1, 2", line) for line in logged.messages)


# -- the live source


class Feed:
    """A connection that is never made."""

    connections = 0
    groups = ()
    opened = lost = None

    def __init__(self, _settings: Settings) -> None:
        self.reconnects: dict[str, int] = {}

    def start(self, *_: Any, **_named: Any) -> None: ...

    def is_open(self, _symbol: str) -> bool:
        return False

    def group(self, _symbol: str) -> int:
        return 0

    def note_delivery_time(self, seconds: float) -> None:
        self.noted = seconds

    def tick(self) -> None: ...

    def close(self) -> None: ...

    def join(self, timeout: float) -> bool:
        return True

    def trouble(self) -> str | None:
        return None

    def activities(self) -> list[Activity]:
        return [WAITING]


WAITING = Activity("The feed", "been waiting", 0.0, 1.0)


class HangingRest:
    """A request that ends when the test lets it."""

    weight_used = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def await_weight(self, _weight: int) -> None: ...

    newest_trade = None

    def trades_from(self, _symbol: str, _first_id: int) -> tuple[list[Trade], list[RejectedFrame]]:
        self.asked.set()
        self.let_go.wait()
        raise UnavailableError("let go")

    def close(self) -> None: ...


@pytest.mark.parametrize(("final", "delivered"), [(True, [1, 4, 7]), (False, [1])])
def test_a_repair_that_hangs_in_a_request_holds_nothing_back_at_the_end(
    monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture, final: bool, delivered: list[int]
) -> None:
    monkeypatch.setattr(live, "Feed", Feed)
    monkeypatch.setattr(live, "Rest", HangingRest)
    checked = settings(resume="off" if final else "on", shutdown_timeout="1")
    source = live.Live(checked)
    rest: Any = source._rest
    source.check = lambda: None  # type: ignore[method-assign]
    source.prepare = lambda receiver, lanes: None  # type: ignore[method-assign]
    source._feed.tick = lambda: None  # type: ignore[method-assign]
    start = source.start

    def bring(receiver: Ingest, on_death: OnDeath) -> None:
        start(receiver, on_death)
        receiver.take(frames(1, 4, 7))
        assert rest.asked.wait(10)
        assert source.status().activities == [WAITING], "health is judged by them"
        signal.raise_signal(signal.SIGTERM)

    source.start = bring  # type: ignore[method-assign]
    sink = Sink(FakeClock())  # its polls take no time, and the deadlines are real ones
    assert service.run(checked, lambda: source, lambda: sink, reports=False) == 143
    assert sink.delivered_ids == delivered
    assert ("missing trade ids 2-3, 5-6" in logged.messages[-1]) == final
    rest.let_go.set()
