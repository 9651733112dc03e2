"""What a topic's settings mean for our records, whatever a cluster shows of them, and why a record was rejected."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka import admin, reader, startup, topics
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.diagnosis import BrokerDiagnosis
from loader_ws_trades.kafka.errors import run_error
from loader_ws_trades.kafka.topic_settings import TopicSettings, delivery_error
from loader_ws_trades.lifecycle import Deadline, Startup

POLICY, RETENTION, SIZE = "cleanup.policy", "retention.ms", "max.message.bytes"
BEFORE, AFTER = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"
DIFFERENCE, STAMP = "message.timestamp.difference.max.ms", "message.timestamp.type"
NO_LIMIT = str(2**63 - 1)


def topic(values: Mapping[str, str | None] | None = None) -> TopicSettings:
    return TopicSettings("trades", values)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *((POLICY, value, POLICY) for value in ("compact", "compact,delete", " delete , compact ", "[compact]")),
        *((SIZE, value, SIZE) for value in ("0", "100", "511")),
        (BEFORE, "999", BEFORE),
    ],
)
def test_a_topic_that_loses_or_rejects_live_trades_is_rejected(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{words}.*KAFKA_TOPIC"):
        topic({name: value}).check("kafka_topic")


@pytest.mark.parametrize("value", [None, "", "none", "1e3", "-1", "null", NO_LIMIT])
def test_an_unknown_or_unlimited_setting_rejects_nothing(value: str | None) -> None:
    for values in (None, {}, dict.fromkeys((POLICY, RETENTION, SIZE, BEFORE, AFTER, DIFFERENCE, STAMP), value)):
        found = topic(values)
        found.check("kafka_topic", age=1e9)
        assert (found.max_age, found.max_ahead, found.max_batch_size) == (None, None, math.inf)
        assert found.retention in (None, math.inf)


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({BEFORE: "60000"}, (BEFORE, 60.0)),
        ({BEFORE: "60000", DIFFERENCE: "1000"}, (BEFORE, 60.0)),  # Kafka 3.6 to 3.9 have both
        ({BEFORE: NO_LIMIT, DIFFERENCE: "1000"}, (DIFFERENCE, 1.0)),
        ({DIFFERENCE: "1000"}, (DIFFERENCE, 1.0)),
        ({BEFORE: "60000", STAMP: "LogAppendTime"}, None),
    ],
)
def test_the_age_that_a_topic_accepts(values: dict[str, str | None], limit: tuple[str, float] | None) -> None:
    found = topic(values)
    assert found.max_age == limit
    if limit:
        found.check("kafka_topic", age=limit[1])
        with pytest.raises(ConfigurationError, match=limit[0]):
            found.check("kafka_topic", age=limit[1] + 0.1)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({POLICY: "delete", RETENTION: "1000"}, 1.0),
        ({RETENTION: "1000"}, 1.0),
        ({RETENTION: "-1"}, math.inf),
        ({POLICY: "compact", RETENTION: "1000"}, math.inf),
        ({POLICY: "delete"}, None),
    ],
)
def test_how_long_a_topic_keeps_records(values: dict[str, str | None], seconds: float | None) -> None:
    assert topic(values).retention == seconds


@pytest.mark.parametrize(
    ("code", "age", "words"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, 0, SIZE),
        (KafkaError.RECORD_LIST_TOO_LARGE, 0, "segment.bytes"),
        *((code, 60, f"raise its {BEFORE}") for code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD)),
        *((code, -60, f"raise its {AFTER}") for code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD)),
        *((code, None, "rejects our records") for code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD)),
        (KafkaError.POLICY_VIOLATION, 0, "policies"),
    ],
)
def test_a_rejection_by_the_topics_settings_is_a_configuration_error(code: int, age: int | None, words: str) -> None:
    moment = None if age is None else int((time.time() - age) * 1000)
    error = delivery_error(KafkaError(code), "trades", "kafka_topic", moment)
    assert isinstance(error, ConfigurationError)
    assert words in str(error)


def test_foreign_text_in_an_error_is_printable_and_bounded() -> None:
    foreign = KafkaError(KafkaError.POLICY_VIOLATION, "no\x1b[2J\r\nINFO forged line \u202e" + "x" * 100_000)
    for error in (delivery_error(foreign, "trades", "kafka_topic"), run_error(KafkaException(foreign), "Writing")):
        assert str(error).isprintable()
        assert len(str(error)) < 1000


class Cluster:
    """A client that shows what a test says: a topic's metadata, and one answer to each request of an admin."""

    def __init__(self, answer: object = None, *, controller: int = 1, topics: Mapping[str, Any] | None = None) -> None:
        self.properties: Any = {}
        self.diagnosis = BrokerDiagnosis("the user")
        self._answer = answer
        broker = SimpleNamespace(host="kafka-1", port=9092)
        self._metadata = SimpleNamespace(controller_id=controller, brokers={1: broker}, topics=topics or {})

    def list_topics(self, _topic: str = "", *, timeout: float) -> Any:
        assert timeout > 0
        return self._metadata

    def poll(self, _timeout: float) -> None:
        """Nothing to serve."""

    def describe_configs(self, resources: list[Any], **_options: object) -> dict[Any, Future[Any]]:
        return {resources[0]: self._future()} if self._answer else {}

    def describe_topics(self, _topics: Any, **_options: object) -> dict[str, Future[Any]]:
        return {"trades": self._future()} if self._answer else {}

    def list_offsets(self, places: dict[Any, Any], **_options: object) -> dict[Any, Future[Any]]:
        assert places, "librdkafka rejects an empty request"
        return {place: self._future() for place in places}

    def _future(self) -> Future[Any]:
        return answered(self._answer)


def answered(answer: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
    return future


def topic_admin(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> TopicAdmin:
    monkeypatch.setattr(admin, "AdminClient", lambda _properties: cluster)
    return TopicAdmin({}, "trades")


@pytest.mark.parametrize("controller", [1, -1])
@pytest.mark.parametrize("answer", [{}, None, KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))])
def test_a_cluster_that_shows_nothing(monkeypatch: pytest.MonkeyPatch, answer: object, controller: int) -> None:
    found = topic_admin(monkeypatch, Cluster(answer, controller=controller))
    monkeypatch.setattr(admin, "unreachable", lambda _addresses, _seconds: pytest.fail("it answered"))
    found.settings().check("kafka_topic")
    assert not found.permissions()


@pytest.mark.parametrize("silence", [TimeoutError(), KafkaException(KafkaError(KafkaError._TIMED_OUT))])
def test_brokers_that_answer_once_advertise_an_address_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, silence: Exception
) -> None:
    found = topic_admin(monkeypatch, Cluster(silence))
    away = {"kafka-1:9092": "Connection refused"}
    monkeypatch.setattr(admin, "unreachable", lambda addresses, _seconds: {name: away[name] for name in addresses})
    for ask in (found.settings, found.permissions):
        with pytest.raises(UnavailableError, match=r"kafka-1:9092 \(Connection refused\); check their advertised"):
            ask()
    assert "kafka-1:9092" in str(found.read_timeout())
    monkeypatch.setattr(admin, "unreachable", lambda _addresses, _seconds: {})
    assert not found.permissions()
    assert "The topic trades could not be read" in str(found.read_timeout())


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("silent", [3, 4])
def test_silence_at_the_start_is_not_taken_for_a_permission_at_once(
    monkeypatch: pytest.MonkeyPatch, silent: int, many: bool
) -> None:
    denied = SimpleNamespace(authorized_operations=[SimpleNamespace(name="DESCRIBE")])
    answers: list[object] = [*[TimeoutError()] * silent, denied]
    cluster: Any = Cluster(topics={"trades": SimpleNamespace(error=None, partitions={0: None})})
    monkeypatch.setattr(cluster, "describe_topics", lambda *_, **__: {"trades": answered(answers.pop(0))})
    for module in (admin, topics):
        monkeypatch.setattr(module, "AdminClient", lambda _properties: cluster)
    monkeypatch.setattr(admin, "unreachable", lambda _addresses, _seconds: {})
    monkeypatch.setattr(startup, "_PAUSE", 0)
    given, why = Startup(Deadline(20), 0, stopped=lambda: False), None
    try:
        if many:
            why = topics.check_topics({}, ["trades"], given, credentials="the user").get("trades")
        else:
            startup.await_topic(cluster, "trades", "kafka_topic", given, operation="WRITE")
    except ConfigurationError as error:
        why = error
    assert (why is None) == (silent == 4)
    assert why is None or "denies WRITE on the topic trades" in str(why)


NO_PARTITIONS = {"trades": SimpleNamespace(error=None, partitions={})}
TWO_PARTITIONS = {"trades": SimpleNamespace(error=None, partitions={0: None, 1: None})}


@pytest.mark.parametrize("topics", [{}, NO_PARTITIONS])
def test_metadata_without_partitions_is_not_an_empty_topic(
    monkeypatch: pytest.MonkeyPatch, topics: Mapping[str, Any]
) -> None:
    cluster: Any = Cluster(topics=topics)
    monkeypatch.setattr(reader, "Consumer", lambda _properties: cluster)
    given = Startup(Deadline(0), 0, stopped=lambda: False)
    with pytest.raises(UnavailableError, match="do not return the partitions"):
        topic_admin(monkeypatch, cluster).bounds()
    with pytest.raises(UnavailableError, match="do not return the partitions"):
        reader.TopicReader(load({}, needed=()), "trades").assign(beginning=True)
    with pytest.raises(RunError, match="do not return the partitions of the topic trades"):
        startup.await_topic(cluster, "trades", "kafka_topic", given, operation="WRITE")


def test_an_offset_that_is_not_returned_is_not_an_empty_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(SimpleNamespace(offset=-1), topics=TWO_PARTITIONS)
    with pytest.raises(UnavailableError, match="do not return the offsets"):
        topic_admin(monkeypatch, cluster).bounds()


def test_a_rejection_before_an_outage_does_not_use_up_the_grace_period() -> None:
    rejected, away = ConfigurationError("rejected"), UnavailableError("away")

    def retry(*outcomes: Exception | None, seconds: float = 20) -> bool:
        left = list(outcomes)

        def attempt() -> None:
            if error := left.pop(0):
                raise error

        # The grace period is over at the second rejection in a row.
        given = Startup(Deadline(seconds), grace=1e-9, stopped=lambda: False)
        return startup.retry_until_ready(attempt, given, lambda _seconds: None)

    assert retry(rejected, away, away, rejected, None)
    with pytest.raises(ConfigurationError):
        retry(rejected, away, rejected)
    with pytest.raises(RunError, match="away"):
        retry(rejected, away, seconds=0)


class Partitions(Cluster):
    """A consumer of a topic, whose bounds and messages are what a test says."""

    def __init__(self, *bounds: tuple[int, int]) -> None:
        partitions = dict.fromkeys(range(len(bounds)))
        super().__init__(topics={"trades": SimpleNamespace(error=None, partitions=partitions)})
        self._bounds = bounds
        self.assigned: list[tuple[int, int]] = []
        self.messages: list[Any] = []

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return self._bounds[place.partition]

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.assigned += [(place.partition, place.offset) for place in places]

    def poll(self, _timeout: float) -> Any:
        return self.messages.pop(0) if self.messages else None

    def send(self, partition: int, offset: int, *, end: bool = False) -> None:
        error = KafkaError(KafkaError._PARTITION_EOF) if end else None
        answers: dict[str, Any] = {"error": error, "partition": partition, "offset": offset}
        answers |= {"timestamp": (1, 0), "value": b"{}", "key": None}
        self.messages.append(SimpleNamespace(**{name: lambda value=value: value for name, value in answers.items()}))


@pytest.mark.parametrize("beginning", [True, False])
def test_a_reader_knows_without_a_fetch_that_there_is_nothing_to_read(
    monkeypatch: pytest.MonkeyPatch, beginning: bool
) -> None:
    consumer = Partitions((0, 0), (7, 7))
    monkeypatch.setattr(reader, "Consumer", lambda _properties: consumer)
    topic = reader.TopicReader(load({}, needed=()), "trades")
    found = [topic.at_end]
    topic.assign(beginning=beginning)
    assert [*found, topic.at_end] == [False, True]
    assert consumer.assigned == [(0, 0), (1, 7)]


def test_a_reader_is_at_the_end_after_the_last_record_or_where_the_broker_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = Partitions((0, 0), (3, 5), (0, 4))
    monkeypatch.setattr(reader, "Consumer", lambda _properties: consumer)
    topic = reader.TopicReader(load({}, needed=()), "trades")
    topic.assign(beginning=True)
    consumer.send(1, 3)
    consumer.send(2, 0)
    assert topic.poll(1)
    assert topic.poll(1)
    consumer.send(1, 4)
    assert topic.poll(1)
    found = [topic.at_end]
    # What follows in partition 2 are markers of transactions, which are not shown.
    consumer.send(2, 4, end=True)
    consumer.send(1, 5)
    record = topic.poll(1)
    assert record is not None, "no poll ends with an event while there is a record"
    assert (record.partition, record.offset) == (1, 5)
    assert [*found, topic.at_end] == [False, True]


def test_a_rejection_that_librdkafka_does_not_repeat_counts_for_the_next_attempt() -> None:
    diagnosis = BrokerDiagnosis("the user")
    address = "sasl_plaintext://127.0.0.1:9/bootstrap"
    for attempt in range(3):
        if not attempt:
            text = "Broker: Request not valid in current SASL state: (after 0ms in state AUTH_HANDSHAKE)"
            diagnosis.note_error("_AUTHENTICATION", f"{address}: {text}")
        with pytest.raises(ConfigurationError, match="requires no user"):
            diagnosis.check({})
        diagnosis.next_attempt()
    diagnosis.note_error("_TRANSPORT", f"{address}: Connect failed: Connection refused (after 0ms in state CONNECT)")
    diagnosis.check({})
    diagnosis.next_attempt()
    diagnosis.check({})
