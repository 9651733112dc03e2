"""The Kafka sink with a scripted producer: counts, outages, rejections, the end."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.kafka.errors import FencedError
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.lifecycle import Deadline, Mailbox, StopReason
from loader_ws_trades.pipeline.stamps import stamped
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline
from tests.unit.scripted_producer import FENCED, Scripted, ids

GAPLESS = KafkaError(KafkaError._GAPLESS_GUARANTEE, "unable to satisfy gap-less guarantee", fatal=True)
NOW = 1_700_000_000_000
HALF_AN_HOUR = 1_800_000
STEPS = st.lists(st.tuples(st.sampled_from(["put", "acknowledge", "poll"]), st.integers(0, 9)), max_size=40)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Scripted:
    return Scripted(monkeypatch, clock)


@examples(max_examples=30)
@given(STEPS)
def test_each_record_counts_once_in_any_interleaving(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        run = Scripted(patch, FakeClock())
        run.producer.room = 12
        reported = 0
        for step, number in steps:
            if step == "put":
                run.put(number)
            elif step == "acknowledge":
                run.producer.acknowledge(number)
            else:
                run.poll()
                reported = len(run.producer.log)
            assert run.counts == (len(run.taken), reported, len(run.taken) - reported)
        run.producer.acknowledge()
        run.poll()
        assert run.counts == (len(run.taken), len(run.taken), 0)
        assert run.producer.log == run.taken == ids(100, len(run.taken))


def test_a_report_during_put_counts_once(run: Scripted) -> None:
    def meanwhile() -> None:
        run.producer.acknowledge()
        run.poll()

    run.producer.on_produce = meanwhile
    assert run.put(10) == 10
    assert run.counts == (10, 10, 0)


def test_a_full_queue_takes_a_part_and_the_rest_later_in_order(run: Scripted) -> None:
    run.producer.room = 5
    assert [run.put(8), run.put(3)] == [5, 0]
    run.producer.acknowledge(2)
    assert run.put(3) == 0, "unserved reports take room"
    run.poll()
    assert run.put(3) == 2
    run.producer.acknowledge()
    run.poll()
    assert run.producer.log == run.taken == ids(100, 7)


def waiting_since(run: Scripted) -> float | None:
    return run.publisher.waiting_since


def test_an_outage_and_its_end_are_logged_once(run: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run.clock.advance(1000)
    run.poll()
    began = run.clock.now
    run.put(3)
    run.clock.advance(5.0)
    run.poll()
    assert (run.publisher.outages, caplog.messages) == (0, []), "5 s are not an outage yet"
    run.poll(0.1, 0.1)
    run.clock.advance(3.0)
    run.poll()
    assert run.publisher.outages == 1
    [line] = caplog.messages
    assert "No delivery acknowledged for 5 s" in line
    assert "3 records queued; the run ends after 600 s" in line
    assert "KAFKA_OUTAGE_LIMIT" in line
    assert waiting_since(run) == began
    run.producer.acknowledge(1)
    run.poll()
    assert caplog.messages[1:] == ["Kafka acknowledges records again after 8.2 s; 2 records queued"]
    run.producer.acknowledge()
    run.poll(0, 100)
    assert (run.publisher.outages, waiting_since(run)) == (1, None)
    run.put(1)
    run.clock.advance(6)
    run.poll(0, 0)
    assert run.publisher.outages == 2


def test_an_outage_that_is_too_long_ends_the_run(run: Scripted) -> None:
    run.put(3)
    run.poll(600.0)
    run.producer.acknowledge(1)
    run.poll()  # an acknowledgement restarts the clock
    run.poll(600.0)
    with pytest.raises(RunError, match=r"acknowledged for 600 s .*check the brokers"):
        run.poll(0.1)


def test_requests_for_metadata_get_rarer_while_nothing_is_acknowledged(run: Scripted) -> None:
    run.poll(*[0.1] * 20)
    assert not run.producer.asked_at, "nothing is awaited"
    began = run.clock.now
    run.put(7)
    run.poll(*[0.1] * 80)
    assert [at - began for at in run.producer.asked_at] == pytest.approx([0.5, 1.1, 2.3, 4.7], abs=0.15)
    run.producer.acknowledge(1)
    run.poll(0.1, 0.1)
    began = run.clock.now
    run.poll(*[0.1] * 8)
    assert [at - began for at in run.producer.asked_at[4:]] == pytest.approx([0.5], abs=0.15)


def served(run: Scripted) -> tuple[float, int, int]:
    """The time that a turn takes, and how many were delivered by then, on time and late."""
    began = run.clock.now
    run.poll(0.5)
    late = run.publisher.served_late
    return round(run.clock.now - began, 3), run.publisher.delivered - late, late


def test_delivery_reports_gather_for_a_turn(run: Scripted) -> None:
    run.put(2)
    run.clock.after(0.02, lambda: run.producer.acknowledge(1))
    assert served(run) == (0.5, 0, 1)
    assert served(run) == (0.5, 0, 1), "nothing came"
    run.clock.after(0.03, run.producer.acknowledge)
    assert served(run) == (0.5, 0, 2)


def test_the_first_trade_after_a_pause_ends_the_wait(run: Scripted) -> None:
    run.poll()
    run.clock.after(0.2, lambda: run.put(1))
    run.clock.after(0.3, lambda: run.put(1))
    assert served(run) == (0.2, 0, 0)
    assert served(run) == (0.5, 0, 0), "while they come, a turn is a turn"


def test_a_pause_is_not_part_of_an_outage(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    run = Scripted(monkeypatch, clock, kafka_outage_limit="1")
    run.poll(0.9)
    run.clock.after(0.85, lambda: run.put(1))
    run.poll(0.9, 0.9)
    with pytest.raises(RunError, match="No delivery acknowledged for 1 s"):
        run.poll(0.2)


def test_a_failure_to_write_ends_the_wait(run: Scripted) -> None:
    run.put(1)
    run.producer.acknowledge()
    run.producer.refusing = KafkaError(KafkaError._STATE)
    run.clock.after(0.1, lambda: run.put(1))
    began = run.clock.now
    with pytest.raises(RunError):
        run.poll(0.5)
    assert round(run.clock.now - began, 3) == 0.2, "with a look for the report of a rejection"


def test_a_reason_to_stop_ends_the_wait(run: Scripted) -> None:
    mailbox = Mailbox()
    mailbox.on_put = run.publisher.wake
    run.clock.after(0.02, lambda: mailbox.put(StopReason.by_command()))
    began = run.clock.now
    run.poll(0.5)
    assert round(run.clock.now - began, 3) == 0.02
    mailbox.put(StopReason.by_command())
    run.poll(0.5)
    assert round(run.clock.now - began, 3) == 0.02, "also if it came just before"


def test_with_metrics_delivery_reports_gather_once_one_was_served(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    run = Scripted(monkeypatch, clock, metrics_port="9")
    run.put(5)
    for seconds in (0.02, 0.05, 0.3):
        run.clock.after(seconds, lambda: run.producer.acknowledge(1))
    assert served(run) == (0.02, 1, 0), "the first one is served at once"
    assert served(run) == (0.5, 0, 3), "the others wait"
    run.clock.after(0.01, lambda: run.producer.acknowledge(1))
    assert served(run) == (0.01, 1, 3), "the next one is served at once"
    assert served(run) == (0.5, 0, 4)
    assert served(run) == (0.19, 0, 4), "nothing came"
    run.producer.acknowledge()
    assert served(run) == (0, 1, 4)
    assert served(run) == (0.5, 0, 5)
    run.clock.after(0.3, lambda: run.put(1))
    assert served(run) == (0.3, 0, 5), "a trade ends the wait"
    run.clock.after(0.01, run.producer.acknowledge)
    assert served(run) == (0.01, 1, 5), "so that its report is served at once"


def test_delivery_reports_do_not_gather_when_they_are_many(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    run = Scripted(monkeypatch, clock, kafka_queue_records="100")
    clock.after(0.01, lambda: run.put(25))
    assert served(run) == (0.01, 0, 0), "a quarter of the queue"
    clock.after(0.01, run.producer.acknowledge)
    assert served(run) == (0.01, 25, 0)
    run.producer.room = 10
    clock.after(0.01, lambda: run.put(11))
    assert served(run) == (0.01, 0, 25), "a full queue"
    run.publisher.drain()
    clock.after(0.01, lambda: run.producer.acknowledge(5))
    assert served(run) == (0.01, 5, 25)
    clock.after(0.01, run.producer.acknowledge)
    assert served(run) == (0.01, 10, 25), "the end of a run"


@pytest.mark.parametrize("fatal_first", [True, False])
@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, ConfigurationError, r"max\.message\.bytes"),
        (KafkaError.INVALID_RECORD, ConfigurationError, r"2023-11-14.*message\.timestamp\.before\.max\.ms"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, RunError, "TOPIC_AUTHORIZATION_FAILED"),
        (9999, RunError, "Writing"),
    ],
)
def test_a_rejected_record_ends_the_run_and_its_id_is_returned(
    run: Scripted, code: int, kind: type[Exception], words: str, *, fatal_first: bool
) -> None:
    run.put(6)
    run.producer.acknowledge(2)
    if fatal_first:  # as librdkafka does: the fatal error comes before the reports that say why
        run.producer.errors.append(GAPLESS)
        run.clock.after(0.5, lambda: run.producer.refuse(code, 3))
    else:
        run.producer.refuse(code, 3)
    with pytest.raises(kind, match=words) as caught:
        run.poll()
    assert type(caught.value) is kind
    with pytest.raises(kind):
        run.poll()
    assert run.counts == (6, 2, 1)
    assert run.give_up(Deadline(1)) == ids(102, 4)
    assert run.counts == (6, 2, 0)


@pytest.mark.parametrize("seconds", [0.0, 2.0])
@pytest.mark.parametrize(
    ("code", "kind"),
    [(KafkaError.MSG_SIZE_TOO_LARGE, ConfigurationError), (KafkaError.TOPIC_AUTHORIZATION_FAILED, RunError)],
)
def test_what_the_broker_rejects_is_named_though_a_purge_is_reported_first(
    run: Scripted, seconds: float, code: int, kind: type[Exception]
) -> None:
    run.put(5)
    run.producer.refuse(KafkaError._PURGE_QUEUE, 3)

    def reject() -> None:
        run.producer.refuse(code, 1)
        run.producer.refuse(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)

    run.clock.after(seconds, reject)
    run.clock.advance(0)
    with pytest.raises(kind, match=KafkaError(code).str()) as caught:
        run.poll()
    assert type(caught.value) is kind
    assert run.give_up(Deadline(1)) == ids(100, 5)


def test_a_setting_at_fault_outranks_other_answers_of_the_brokers(run: Scripted) -> None:
    run.put(3)
    run.producer.refuse(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, 1)
    run.clock.after(1, lambda: run.producer.refuse(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(ConfigurationError):
        run.poll()


def test_a_fatal_error_ends_the_run_without_a_delivery_report(run: Scripted) -> None:
    run.put(2)
    run.producer.errors.append(GAPLESS)
    began = run.clock.now
    with pytest.raises(RunError, match="gap-less"):
        run.poll()
    assert run.clock.now - began < 4, "it does not wait longer for reports"
    run.producer.errors.append(FENCED)
    with pytest.raises(FencedError):
        run.poll()


def test_an_error_of_produce_ends_the_run(run: Scripted) -> None:
    run.put(2)
    run.producer.refusing = KafkaError(KafkaError._FATAL, "Fatal error")
    assert run.put(2) == 0
    with pytest.raises(RunError, match="Writing to the topic trades failed: Fatal error"):
        run.poll()
    assert run.give_up(Deadline(1)) == [100, 101]


@pytest.mark.parametrize(("seconds", "takes"), [(1.0, 0.0), (0.0, 0.0), (1.0, 0.5)])
def test_give_up_returns_only_undelivered_ids(run: Scripted, seconds: float, takes: float) -> None:
    run.producer.purge_takes = takes
    run.put(10)
    run.producer.acknowledge(3)
    run.poll()
    run.producer.acknowledge(2)  # their reports are not served yet
    assert run.give_up(Deadline(seconds)) == ids(105, 5)
    assert run.counts == (10, 5, 0)
    assert run.give_up(Deadline(seconds)) == ids(105, 5)


@pytest.mark.parametrize(
    ("largest", "given", "size"),
    [
        ("2000", "", 2000),
        ("1048588", "", None),
        (None, "", None),
        ("2000", "batch.size=1000", "1000"),
        ("600000", "batch.size=700000", 600_000),
    ],
)
def test_batches_are_no_larger_than_the_topic_accepts(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, largest: str | None, given: str, size: Any
) -> None:
    topic = TopicSettings("trades", {"max.message.bytes": largest})
    run = Scripted(monkeypatch, clock, topic_settings=topic, kafka_properties=given)
    assert run.producer.properties.get("batch.size") == size


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The local clock: change its one number."""
    now = [NOW / 1000]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


def at(*moments: int) -> list[Trade]:
    return [Trade(number, "1.50", "2", moment, True, "BTCUSDT") for number, moment in enumerate(moments)]


@pytest.mark.usefixtures("wall")
def test_the_record_timestamp_is_the_trade_time_unless_that_is_far_ahead_of_the_clock(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    run = Scripted(monkeypatch, clock)
    moments = [1, NOW, NOW + HALF_AN_HOUR, NOW + HALF_AN_HOUR + 1, NOW + 1, 2**63 // 1000]
    assert run.publisher.put(at(*moments), run.lane) == 6
    assert [record.timestamp for record in run.producer.produced] == [1, NOW, NOW + HALF_AN_HOUR, NOW, NOW + 1, NOW]
    fields = [record.value() for record in run.producer.produced]
    assert [b'"timestamp":%d,' % moment in value for moment, value in zip(moments, fields, strict=True)] == [True] * 6
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "trade 3, 2023-11-14T22:43:20.001Z, is more than 30 minutes ahead" in line.getMessage()


def test_the_bound_moves_with_the_clock(monkeypatch: pytest.MonkeyPatch, clock: FakeClock, wall: list[float]) -> None:
    run = Scripted(monkeypatch, clock)
    later = NOW + HALF_AN_HOUR + 60_000
    run.publisher.put(at(later), run.lane)
    wall[0] += 60
    run.poll()
    run.publisher.put(at(later), run.lane)
    assert [record.timestamp for record in run.producer.produced] == [NOW, later]


def test_headers_are_added_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    for asked_for in ("off", "on"):
        run = Scripted(monkeypatch, clock, record_headers=asked_for)
        run.publisher.put(stamped([Trade(1, "1", "1", NOW, True, "BTCUSDT")], "rest"), run.lane)
        [record] = run.producer.produced
        assert set(record.headers or ()) == ({"received", "source"} if asked_for == "on" else set())


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
def test_each_of_many_pairs_has_its_topic_and_its_count(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, delivery: str
) -> None:
    given: dict[str, Any] = {"symbols": "BTCUSDT,ETHUSDT", "kafka_topic": "trades-{symbol}", "delivery": delivery}
    run = Scripted(monkeypatch, clock, symbol=None, **given)
    lanes = {symbol: Pipeline(symbol).lane for symbol in ("BTCUSDT", "ETHUSDT")}
    for symbol, number in [("BTCUSDT", 3), ("ETHUSDT", 1), ("BTCUSDT", 1)]:
        lanes[symbol].settings = run.publisher._settings.for_symbol(symbol)
        taken = [Trade(number, "1", "1", NOW, True, symbol) for number in range(number)]
        assert run.publisher.put(taken, lanes[symbol]) == number
    assert {(record.topic(), record.key) for record in run.producer.produced} == {
        ("trades-BTCUSDT", b"BTCUSDT"),
        ("trades-ETHUSDT", b"ETHUSDT"),
    }
    run.producer.acknowledge(4)
    run.poll()
    run.producer.refuse(KafkaError._PURGE_QUEUE)
    with pytest.raises(RunError):
        run.poll()
    counts = {symbol: (lane.accepted, lane.delivered) for symbol, lane in lanes.items()}
    if delivery == "idempotent":
        assert counts == {"BTCUSDT": (4, 3), "ETHUSDT": (1, 1)}
        assert run.publisher.give_up(Deadline(1)) == [("BTCUSDT", 0)]
    else:
        assert counts == {"BTCUSDT": (4, 0), "ETHUSDT": (1, 0)}, "nothing is committed"
        assert len(run.publisher.give_up(Deadline(1))) == 5


def test_the_delivery_time_is_the_shorter_of_the_last_two_reports_served_as_they_come(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    run = Scripted(monkeypatch, clock, kafka_properties="linger.ms=5")

    def deliveries(number: int, seconds: float) -> float:
        for _ in range(number):
            run.poll(2.0, 0.1)
            run.put(1)
            clock.after(seconds, run.producer.acknowledge)
            while run.publisher._unacknowledged:
                run.poll(0.1)
        return run.publisher.delivery_time

    assert deliveries(2, 0.013) == pytest.approx(0.008), "without the linger"
    assert deliveries(1, 60.0) == pytest.approx(0.008), "an outage is over"
    assert deliveries(2, 0.013) == pytest.approx(0.008)
    run.put(1)
    run.producer.acknowledge()
    run.poll(0.2)
    assert run.publisher.delivery_time == pytest.approx(0.008), "one that gathered says nothing"
    assert deliveries(2, 2.0) == 0.1
    assert deliveries(1, 0.001) == 0.0


def test_a_linger_that_is_no_decimal_number_is_left_to_the_client(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    Scripted(monkeypatch, clock, kafka_properties="linger.ms=0x5")


def encoded_by(run: Scripted) -> list[int]:
    """The ids of the trades that are encoded from now on, as they are."""
    encoded: list[int] = []
    encode = run.lane.encode

    def noted(trade: Trade) -> str:
        encoded.append(trade.trade_id)
        return encode(trade)

    run.lane.encode = noted
    return encoded


def test_all_records_are_encoded_before_the_first_is_produced(run: Scripted) -> None:
    encoded = encoded_by(run)
    run.producer.on_produce = lambda: seen.append(len(encoded))
    seen: list[int] = []
    run.put(3)
    assert seen == [3, 3, 3]


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
def test_no_more_is_encoded_than_the_queue_has_room_for(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, delivery: str
) -> None:
    run = Scripted(monkeypatch, clock, kafka_queue_records="1000", delivery=delivery)
    encoded = encoded_by(run)
    assert [run.put(1200), run.put(101)] == [1000, 0]
    assert encoded == run.taken == ids(100, 1000)
