"""What a turn of the main loop costs: how long it waits, and how often it looks at how the run is doing."""

from __future__ import annotations

import pytest

from loader_ws_trades.lifecycle import Mailbox
from loader_ws_trades.monitoring import monitor
from loader_ws_trades.monitoring.progress import Progress
from loader_ws_trades.run import live
from loader_ws_trades.run.context import IDLE_TURN, LOADING_TURN, TURN, RunContext
from tests.unit.clock import FakeClock
from tests.unit.test_shutdown import Feed, Sink, Source, settings, trades


class Display:
    """Counts how often it was given the progress."""

    shown = 0

    def show(self, _progress: Progress) -> None:
        self.shown += 1

    def close(self) -> None: ...


@pytest.fixture
def sink(clock: FakeClock) -> Sink:
    return Sink(clock)


@pytest.fixture
def context(sink: Sink) -> RunContext:
    given = settings(metrics_port="9")
    return RunContext(given, Source(), sink, Mailbox(), reports=False, display=Display())


def turn(context: RunContext) -> float:
    waited = context.turn
    context.sink.poll(waited)
    context.tick()
    return waited


def test_a_turn_is_longer_only_while_nothing_comes_and_nothing_is_in_flight(context: RunContext, sink: Sink) -> None:
    assert turn(context) == IDLE_TURN
    sink.stalled = True
    context.ingest.lane.take_trades(trades(1))
    assert [turn(context), turn(context)] == [LOADING_TURN, LOADING_TURN]
    context.ingest.lane.take_trades(trades(2))
    sink.stalled = False
    assert [turn(context), turn(context), turn(context)] == [LOADING_TURN, IDLE_TURN, IDLE_TURN]


def test_the_status_is_made_once_a_second_and_latencies_are_counted_each_turn(
    context: RunContext, clock: FakeClock
) -> None:
    latencies, display = context.monitor.latencies, context.display
    assert latencies
    assert isinstance(display, Display)
    for trade_id in range(1, 101):
        context.ingest.lane.take_trades(trades(trade_id))
        latencies.note(context.sink.accepted, clock.now)
        assert turn(context) == LOADING_TURN
        assert sum(latencies.counts) == trade_id
    assert 20 <= display.shown <= 26, "in 25 seconds"


def test_an_idle_turn_ends_when_an_event_is_due(sink: Sink) -> None:
    given = settings(telemetry_interval="5")
    context = RunContext(given, Source(), sink, Mailbox(), reports=False, display=Display())
    context.lanes.start(context.lanes.all)
    assert [turn(context) for _ in range(6)] == [IDLE_TURN, IDLE_TURN, 1.0] * 2


def test_an_idle_loop_is_far_from_taken_for_stuck() -> None:
    assert monitor._TURN >= 5 * IDLE_TURN


def test_the_end_of_a_source_is_not_noticed_late(sink: Sink) -> None:
    source = Source()
    source.ends = True
    context = RunContext(settings(), source, sink, Mailbox(), reports=False, display=Display())
    assert turn(context) == TURN


def test_events_are_not_later_than_their_interval(sink: Sink) -> None:
    given = settings(telemetry_interval="0.2")
    context = RunContext(given, Source(), sink, Mailbox(), reports=False, display=Display())
    assert turn(context) == 0.1


def test_commits_are_not_later_than_their_interval(sink: Sink) -> None:
    given = settings(delivery="transactional")
    context = RunContext(given, Source(), sink, Mailbox(), reports=False, display=Display())
    context.ingest.lane.take_trades(trades(1))
    assert turn(context) == TURN


def test_the_source_learns_how_long_deliveries_take(sink: Sink) -> None:
    source, learned = Source(), list[float]()
    source.tick = learned.append  # type: ignore[assignment, method-assign]
    sink.delivery_time = 0.02
    turn(RunContext(settings(), source, sink, Mailbox(), reports=False, display=Display()))
    assert learned == [0.02]


def test_a_live_stream_is_read_no_faster_than_trades_are_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(settings())
    monkeypatch.setattr(live, "Feed", lambda _: feed)
    live.Live(settings()).tick(0.02)
    assert feed.noted == 0.02
