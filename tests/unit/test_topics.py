"""What a topic's settings mean for our records, whatever a cluster tells of them, and what a refusal is put down to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka import offsets, topics
from loader_ws_trades.kafka import reader as reading
from loader_ws_trades.kafka.diagnosis import Trouble
from loader_ws_trades.kafka.topics import Inspector, TopicSettings
from loader_ws_trades.lifecycle import Deadline, Startup

BEFORE, AFTER = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"
DIFFERENCE = "message.timestamp.difference.max.ms"
NO_LIMIT = str(2**63 - 1)


def settings(told: Mapping[str, str | None] | None = None) -> TopicSettings:
    return TopicSettings("trades", told)


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact", " compact , delete ", "[compact]"])
def test_every_policy_that_compacts_is_refused(policy: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is compacted.*cleanup\.policy.*KAFKA_TOPIC"):
        settings({"cleanup.policy": policy}).check("kafka_topic")


@pytest.mark.parametrize("value", [None, "", "none", "1e3", "-1", "null", NO_LIMIT])
def test_what_is_not_told_or_no_limit_refuses_nothing(value: str | None) -> None:
    names = ("cleanup.policy", "retention.ms", "max.message.bytes", BEFORE, AFTER, DIFFERENCE, "message.timestamp.type")
    for told in (None, {}, dict.fromkeys(names, value)):
        found = settings(told)
        found.check("kafka_topic", age=1e9)
        assert (found.oldest, found.newest, found.largest_batch) == (None, None, math.inf)
        assert found.kept in (None, math.inf)


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({BEFORE: "60000"}, (BEFORE, 60.0)),
        ({BEFORE: "60000", DIFFERENCE: "1000"}, (BEFORE, 60.0)),  # Kafka 3.6 to 3.9 have both
        ({BEFORE: NO_LIMIT, DIFFERENCE: "1000"}, (DIFFERENCE, 1.0)),
        ({DIFFERENCE: "1000"}, (DIFFERENCE, 1.0)),
        ({BEFORE: "60000", "message.timestamp.type": "LogAppendTime"}, None),
    ],
)
def test_the_age_that_is_taken(told: dict[str, str | None], limit: tuple[str, float] | None) -> None:
    found = settings(told)
    assert found.oldest == limit
    if limit:
        found.check("kafka_topic", age=limit[1])
        with pytest.raises(ConfigurationError, match=limit[0]):
            found.check("kafka_topic", age=limit[1] + 0.1)


def test_a_limit_that_refuses_live_trades_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=BEFORE):
        settings({BEFORE: "999"}).check("kafka_topic")
    settings({BEFORE: "1000", AFTER: "0"}).check("kafka_topic")
    for size in ("0", "100", "511"):
        with pytest.raises(ConfigurationError, match=r"max\.message\.bytes"):
            settings({"max.message.bytes": size}).check("kafka_topic")
    settings({"max.message.bytes": "512"}).check("kafka_topic")


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"cleanup.policy": "delete", "retention.ms": "1000"}, 1.0),
        ({"retention.ms": "1000"}, 1.0),
        ({"retention.ms": "-1"}, math.inf),
        ({"cleanup.policy": "compact", "retention.ms": "1000"}, math.inf),
        ({"cleanup.policy": "delete"}, None),
    ],
)
def test_how_long_it_keeps_records(told: dict[str, str | None], kept: float | None) -> None:
    assert settings(told).kept == kept


def test_a_refusal_by_the_topics_settings_is_a_fault_of_the_configuration() -> None:
    def told(code: int, timestamp: float | None = None) -> str:
        moment = None if timestamp is None else int(timestamp * 1000)
        error = kafka.undelivered(KafkaError(code), "trades", "kafka_topic", moment)
        assert isinstance(error, ConfigurationError)
        return str(error)

    now = time.time()
    assert "max.message.bytes" in told(KafkaError.MSG_SIZE_TOO_LARGE, now)
    assert "segment.bytes" in told(KafkaError.RECORD_LIST_TOO_LARGE, now)
    for code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD):
        assert f"raise its {BEFORE}" in told(code, now - 60)
        assert f"raise its {AFTER}" in told(code, now + 60)
        assert "refuses our records" in told(code)
    assert "policies" in told(KafkaError.POLICY_VIOLATION, now)


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._GAPLESS_GUARANTEE, 9999, -9999])
def test_any_other_refusal_may_pass(code: int) -> None:
    error = kafka.undelivered(KafkaError(code), "trades", "kafka_topic", 0)
    assert isinstance(error, RunError)
    assert "the topic trades" in str(error)


class Admin:
    """Stands for librdkafka's: answers what a test says."""

    def __init__(self, answer: object, controller: int = 1) -> None:
        self._answer = answer
        broker = SimpleNamespace(host="kafka-1", port=9092)
        self._cluster = SimpleNamespace(controller_id=controller, brokers={1: broker})

    def list_topics(self, _topic: str, timeout: float) -> Any:
        assert timeout > 0
        return self._cluster

    def describe_configs(self, resources: list[Any], **_timeout: float) -> dict[Any, Future[Any]]:
        return {resources[0]: self._future()}

    def describe_topics(self, _topics: Any, **_options: object) -> dict[str, Future[Any]]:
        return {"trades": self._future()}

    def _future(self) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(self._answer, Exception):
            future.set_exception(self._answer)
        else:
            future.set_result(self._answer)
        return future


def inspector(monkeypatch: pytest.MonkeyPatch, admin: Admin) -> Inspector:
    monkeypatch.setattr(topics, "AdminClient", lambda _properties: admin)
    return Inspector({})


def test_a_broker_that_tells_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"retention.ms": SimpleNamespace(value="1000"), BEFORE: SimpleNamespace(value=None)}
    found = inspector(monkeypatch, Admin(told)).settings("trades")
    assert (found.compacted, found.oldest, found.kept) == (False, None, 1.0)


@pytest.mark.parametrize("answer", [{}, None, KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))])
def test_a_cluster_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    look = inspector(monkeypatch, Admin(answer))
    monkeypatch.setattr(topics, "unreachable", lambda _addresses, _seconds: pytest.fail("it answered"))
    look.settings("trades").check("kafka_topic")
    assert not look.rights("trades")
    look = inspector(monkeypatch, Admin(answer, controller=-1))
    assert look.rights("trades") is None


SILENT = [TimeoutError(), KafkaException(KafkaError(KafkaError._TIMED_OUT))]


@pytest.mark.parametrize("silence", SILENT)
def test_brokers_that_answer_and_then_are_silent_name_an_address_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, silence: Exception
) -> None:
    look = inspector(monkeypatch, Admin(silence))
    away: dict[str, str] = {"kafka-1:9092": "Connection refused"}
    monkeypatch.setattr(topics, "unreachable", lambda addresses, _seconds: {name: away[name] for name in addresses})
    for ask in (look.settings, look.rights, look.check_addresses):
        with pytest.raises(UnavailableError, match=r"kafka-1:9092 \(Connection refused\); check their advertised"):
            ask("trades")
    assert "kafka-1:9092" in str(topics.unread({}, "commands"))
    monkeypatch.setattr(topics, "unreachable", lambda _addresses, _seconds: {})
    assert look.rights("trades") is None
    assert "The topic commands could not be read" in str(topics.unread({}, "commands"))


class Client:
    """Answers what a test says about topics."""

    def __init__(self, *told: tuple[str, Any]) -> None:
        self.properties: Any = {}
        self.trouble = Trouble("the user")
        self.list_topics = lambda _topic, timeout: SimpleNamespace(topics=dict(told), timeout=timeout)

    def poll(self, _timeout: float) -> None:
        """Nothing to serve."""


@pytest.mark.parametrize("told", [[], [("trades", SimpleNamespace(error=None, partitions={}))]])
def test_an_answer_without_the_topic_or_without_partitions_may_get_better(told: list[tuple[str, Any]]) -> None:
    with pytest.raises(UnavailableError, match="do not tell the partitions of the topic trades"):
        kafka.check_topic(Client(*told), "trades", "kafka_topic", kafka.AclOperation.WRITE)
    startup = Startup(Deadline(0), 0, stopped=lambda: False)
    with pytest.raises(RunError, match="do not tell the partitions"):
        kafka.await_topic(Client(*told), "trades", "kafka_topic", startup, right=kafka.AclOperation.WRITE)


class Looked(Client):
    """Answers about offsets, too."""

    def __init__(self, offset: int, *told: tuple[str, Any]) -> None:
        super().__init__(*told)
        self._offset = offset

    def list_offsets(self, asked: dict[Any, Any], **_timeout: float) -> dict[Any, Future[Any]]:
        assert asked, "librdkafka refuses to look up nothing"
        found: dict[Any, Future[Any]] = {place: Future() for place in asked}
        for future in found.values():
            future.set_result(SimpleNamespace(offset=self._offset))
        return found


@pytest.mark.parametrize(
    ("told", "offset", "words"),
    [
        ([], 5, "do not tell the partitions"),
        ([("trades", SimpleNamespace(error=None, partitions={}))], 5, "do not tell the partitions"),
        ([("trades", SimpleNamespace(error=None, partitions={0: None, 1: None}))], -1, "do not tell the offsets"),
    ],
)
def test_a_topic_whose_partitions_or_offsets_are_not_told_is_not_taken_for_an_empty_one(
    monkeypatch: pytest.MonkeyPatch, told: list[tuple[str, Any]], offset: int, words: str
) -> None:
    monkeypatch.setattr(reading, "Consumer", lambda _properties: Client(*told))
    monkeypatch.setattr(offsets, "AdminClient", lambda _properties: Looked(offset, *told))
    with pytest.raises(UnavailableError, match=words):
        offsets.Offsets({}, "trades", Trouble("")).bounds()
    if offset > 0:
        with pytest.raises(UnavailableError, match=words):
            reading.TopicReader({}, "trades", credentials="").assign(beginning=True)
