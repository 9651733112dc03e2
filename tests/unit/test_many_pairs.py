"""A run of several pairs: each has its own events, counts and end, with a scripted source and sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError
from loader_ws_trades.lifecycle import Mailbox, StopReason
from loader_ws_trades.monitoring.progress import ProgressLog
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.run import context, lanes
from loader_ws_trades.run.context import RunContext
from loader_ws_trades.run.shutdown import Shutdown
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED
from tests.unit.test_lanes import frame
from tests.unit.test_shutdown import Sink as OneSink
from tests.unit.test_shutdown import Source

GIVEN = {name: value for name, value in REQUIRED.items() if name != "symbol"} | {
    "kafka_topic": "trades-{symbol}",
    "telemetry_producer_id": "loader-{symbol}",
}


class Sink(OneSink):
    """Delivers each pair's trades at the next poll, but for those of the `stalled_for`."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.refused: dict[str, LoaderError] = {}
        self.stalled_for: set[str] = set()
        self.away = False
        self.queued: list[tuple[Lane, int]] = []

    @property
    def in_flight(self) -> int:
        return len(self.queued)

    def admit(self, lanes: Any, startup: Any) -> dict[Lane, LoaderError]:
        if self.away:
            raise RunError("No Kafka broker answered")
        return {lane: self.refused[lane.symbol] for lane in lanes if lane.symbol in self.refused}

    def put(self, trades: Any, lane: Lane) -> int:
        self.queued += [(lane, trade.trade_id) for trade in trades]
        self.accepted += len(trades)
        lane.accepted += len(trades)
        return len(trades)

    def poll(self, timeout: float) -> None:
        self._wakeup.wait(timeout)
        for lane, trade_id in self.queued:
            if lane.symbol not in self.stalled_for:
                lane.delivered += 1
                self.delivered_ids.append(trade_id)
        self.queued = [(lane, trade_id) for lane, trade_id in self.queued if lane.symbol in self.stalled_for]

    def give_up(self, deadline: object) -> list[tuple[str, int]]:
        return [(lane.symbol, trade_id) for lane, trade_id in self.queued]


class Telemetry:
    """Keeps the events that were sent: when, of which pair, and whether it was the last."""

    is_open = flushed = True
    congested = False

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.events: list[tuple[float, str, str, str, int, bool]] = []

    def send(self, status: str, message: str, written: int, settings: Settings, *, finished: bool = False) -> None:
        assert settings.telemetry_producer_id == f"loader-{settings.symbol}" or not self.events
        self.events.append((self._clock.now, settings.symbol, status, message, written, finished))

    def poll(self, timeout: float = 0) -> None: ...

    def give_up(self) -> None: ...


class Stage:
    """A run that has begun to load, and what it sent."""

    def __init__(self, clock: FakeClock, patch: pytest.MonkeyPatch, symbols: str, **given: str) -> None:
        self.clock = clock
        self.telemetry = Telemetry(clock)
        patch.setattr(context, "Telemetry", lambda _settings: self.telemetry)
        patch.setattr(context, "Control", lambda _settings: None)
        self.mailbox = Mailbox()
        self.sink, self.source = Sink(clock), Source()
        display = ProgressLog(context.log, "status")
        self.context = RunContext(
            load(GIVEN | {"symbols": symbols} | given),
            self.source,
            self.sink,
            self.mailbox,
            reports=True,
            display=display,
        )
        self.lanes = self.context.lanes

    def bring(self, symbol: str, *ids: int) -> None:
        self.context.ingest.take([frame(symbol, trade_id) for trade_id in ids])

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.sink.poll(0.1)
            self.context.tick()

    def sent(self, symbol: str) -> list[tuple[str, str, int, bool]]:
        return [event[2:] for event in self.telemetry.events if event[1] == symbol]


Make = Callable[..., Stage]


@pytest.fixture
def stage(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda symbols="BTCUSDT,ETHUSDT", **given: Stage(clock, monkeypatch, symbols, **given)


def test_each_pair_has_events_of_its_own_spread_over_the_interval(stage: Make) -> None:
    run = stage("*", telemetry_interval="10")
    symbols = [f"P{number}USDT" for number in range(10)]
    began = run.clock.now
    assert [lane.symbol for lane in run.lanes.add(symbols)] == symbols
    run.bring("P3USDT", 1, 2)
    run.turn()
    assert {event[2] for event in run.telemetry.events} == {"started"}
    run.turn(100)
    assert run.sent("P3USDT") == [
        ("started", "Started loading trades of P3USDT into trades-P3USDT", 2, False),
        ("loading", "Loaded and published 2 trade records", 2, False),
    ]
    moments = [round(event[0] - began) for event in run.telemetry.events if event[2] == "loading"]
    assert moments == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    run.turn(100)
    assert [event[0] for event in run.sent("P9USDT")] == ["started", "loading", "loading"]


def test_turns_that_are_late_do_not_make_events_rarer(stage: Make) -> None:
    run = stage("*", telemetry_interval="1")
    run.lanes.add(["BTCUSDT"])
    for _ in range(100):
        run.sink.poll(0.3)
        run.context.tick()
    assert [event[0] for event in run.sent("BTCUSDT")].count("loading") in (29, 30), "in 30 s"


def test_missing_ids_are_named_in_the_events_of_their_pair(stage: Make, logged: pytest.LogCaptureFixture) -> None:
    run = stage(gap_repair="off", telemetry_interval="1")
    run.lanes.add(["BTCUSDT", "ETHUSDT"])
    run.bring("BTCUSDT", 1, 4)
    run.turn(15)
    assert "missing trade ids 2-3" in run.sent("BTCUSDT")[1][1]
    assert "missing" not in run.sent("ETHUSDT")[1][1]
    assert "Missing trade ids of BTCUSDT 2-3 (repair is off)" in logged.text


def test_a_pair_whose_topic_is_missing_ends_with_an_error_and_the_others_go_on(stage: Make) -> None:
    run = stage()
    run.sink.refused = {"BTCUSDT": ConfigurationError("The topic trades-BTCUSDT does not exist")}
    assert [lane.symbol for lane in run.lanes.add(["BTCUSDT", "ETHUSDT"])] == ["ETHUSDT"]
    run.bring("BTCUSDT", 1)
    run.bring("ETHUSDT", 1)
    run.turn()
    message = "The topic trades-BTCUSDT does not exist; Loaded and published 0 trade records"
    assert run.sent("BTCUSDT") == [("error", message, 0, True)]
    assert run.sink.delivered_ids == [1]
    assert run.mailbox.empty()


@pytest.mark.parametrize(("symbols", "waits"), [("BTCUSDT,ETHUSDT", False), ("*", True)])
def test_the_run_ends_once_no_pair_is_left_unless_others_may_join(stage: Make, symbols: str, waits: bool) -> None:
    run = stage(symbols)
    for lane in run.lanes.add(["BTCUSDT", "ETHUSDT"]):
        run.lanes.end(lane, "finished", f"{lane.symbol} is not traded any more")
    run.turn()
    assert [event[2:] for event in run.telemetry.events if event[5]] == [
        ("finished", f"{symbol} is not traded any more; Loaded and published 0 trade records", 0, True)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    assert run.mailbox.empty() == waits
    assert waits or run.mailbox.get() == StopReason.complete("All pairs have ended")


def test_the_worst_failure_ends_the_run_if_no_pair_is_left(stage: Make) -> None:
    run = stage("*")
    run.sink.refused = {"BTCUSDT": ConfigurationError("no topic")}
    [lane] = run.lanes.add(["BTCUSDT", "ETHUSDT"])
    run.turn()
    assert run.mailbox.empty()
    run.lanes.end(lane, "error", "it cannot go on")
    run.turn()
    assert run.mailbox.get() == StopReason.failed("no topic", 2)


def test_pairs_that_are_refused_together_end_together(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage()
    run.sink.refused = {"BTCUSDT": RunError("no answer"), "ETHUSDT": ConfigurationError("no topic")}
    with monkeypatch.context() as patch:
        patch.setattr(lanes.events, "error", lambda *_, **__: run.turn())  # meanwhile, in the main thread
        run.lanes.add(["BTCUSDT", "ETHUSDT"])
    run.turn()
    assert [event[1:3] for event in run.telemetry.events] == [("BTCUSDT", "error"), ("ETHUSDT", "error")]
    assert run.mailbox.get() == StopReason.failed("no topic", 2)


def test_a_pair_ends_once_its_tail_is_delivered_and_names_what_it_lacks(stage: Make) -> None:
    run = stage()
    lane, other = run.lanes.add(["BTCUSDT", "ETHUSDT"])
    run.bring("BTCUSDT", 1, 4)
    run.sink.stalled_for = {"BTCUSDT"}
    run.lanes.end(lane, "finished", "it is gone")
    run.bring("BTCUSDT", 5)
    run.turn(5)
    assert [event[0] for event in run.sent("BTCUSDT")] == ["started"]
    run.sink.stalled_for = set()
    run.turn()
    message = "it is gone; Loaded and published 2 trade records; missing trade ids 2-3"
    assert run.sent("BTCUSDT")[1:] == [("finished", message, 2, True)]
    assert [(one.symbol, one.ended) for one in run.lanes.all] == [("BTCUSDT", True), ("ETHUSDT", False)]
    assert not other.ended
    assert [one.symbol for one in run.lanes.add(["BTCUSDT"])] == ["BTCUSDT"], "it is listed again"
    run.bring("BTCUSDT", 9)
    run.turn()
    assert run.sent("BTCUSDT")[2:] == [("started", "Started loading trades of BTCUSDT into trades-BTCUSDT", 1, False)]


def test_at_the_end_each_pair_names_what_it_could_not_deliver(stage: Make, logged: pytest.LogCaptureFixture) -> None:
    run = stage(shutdown_timeout="2")
    run.lanes.add(["BTCUSDT", "ETHUSDT"])
    run.bring("BTCUSDT", 7, 8)
    run.bring("ETHUSDT", 3)
    run.sink.stalled_for = {"BTCUSDT"}
    run.turn()
    assert Shutdown(run.context, StopReason.by_command()).run() == 1
    assert [event[2:] for event in run.telemetry.events if event[5]] == [
        ("error", "Stopped by command; not delivered: trade ids 7-8; Loaded and published 0 trade records", 0, True),
        ("interrupted", "Stopped by command; Loaded and published 1 trade records", 1, True),
    ]
    assert "Not delivered: trade ids of BTCUSDT 7-8" in logged.text
    assert "not delivered: 2 trades" in logged.messages[-1]


def test_an_end_before_any_pair_is_known_is_reported_for_all_of_them(stage: Make) -> None:
    run = stage("*USDT")
    run.turn()
    assert Shutdown(run.context, StopReason.failed("No broker", 1)).run() == 1
    assert [event[1:] for event in run.telemetry.events] == [("*USDT", "error", "No broker", 0, True)]


def test_a_topic_that_cannot_have_the_name_of_a_pair_ends_that_pair(stage: Make) -> None:
    run = stage("*")
    assert [lane.symbol for lane in run.lanes.add(["币安USDT", "BTCUSDT"])] == ["BTCUSDT"]
    run.turn()
    [(status, message, _, finished)] = run.sent("币安USDT")
    assert (status, finished) == ("error", True)
    assert "characters not allowed in topic names" in message


def test_all_of_1600_pairs_get_their_last_event_within_the_time_for_it(stage: Make) -> None:
    run = stage("*")
    symbols = [f"P{number}USDT" for number in range(1600)]
    run.lanes.add(symbols)
    for symbol in symbols:
        run.bring(symbol, 1, 2)
    run.turn()
    began = run.clock.now
    assert Shutdown(run.context, StopReason.by_command()).run() == 0
    last = [event for event in run.telemetry.events if event[5]]
    assert [event[1] for event in last] == symbols
    assert {event[4] for event in last} == {2}
    assert run.clock.now - began < 3


def test_brokers_that_are_away_end_a_start_but_no_run_that_a_pair_joins(stage: Make) -> None:
    run = stage("*")
    run.sink.away = True
    with pytest.raises(RunError):
        run.lanes.add(["BTCUSDT"])
    run = stage("*")
    run.lanes.add(["BTCUSDT"])
    run.sink.away = True
    assert [lane.symbol for lane in run.lanes.add(["ETHUSDT"])] == ["ETHUSDT"]
    run.bring("ETHUSDT", 1)
    run.turn()
    assert run.sink.delivered_ids == [1]
