"""What a topic is like, as far as the cluster tells: its settings, what it refuses because of them, our rights on it.

A cluster need not tell anything: without the right to, or where it is no Apache Kafka, any setting may be absent.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ClusterMetadata, ConfigResource

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.clients import properties_checked, with_callbacks
from loader_ws_trades.kafka.diagnosis import Trouble
from loader_ws_trades.kafka.listener import listed, unreachable
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.text import format_duration, format_time

log = logging.getLogger(__name__)

ASK_TIMEOUT: Final = 1.0  # seconds for one question in the main thread, which must see a signal in time
READ_TIMEOUT: Final = 5.0  # seconds for one question in a thread that nobody waits for

_ONE_RECORD = 512  # bytes that a batch of one record may take
_LIVE = 1.0  # seconds that a trade may be old when it is written, though all is well
_UNLIMITED = 2**63 - 1  # Java's greatest long, the default of some limits
_CONNECT = 1.0  # seconds for the brokers' addresses to be connected to, all of them together

_DIFFERENCE = "message.timestamp.difference.max.ms"  # what the next two were before Kafka 3.6
_BEFORE, _AFTER = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"
_SILENT = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._ALL_BROKERS_DOWN}


class TopicSettings:
    """The settings of one topic; `told` has those that the cluster tells, which may be None or no number."""

    def __init__(self, topic: str, told: Mapping[str, str | None] | None) -> None:
        self.topic = topic
        self._told = told or {}

    def text(self, name: str) -> str | None:
        """A setting's value; None if it is not told."""
        return self._told.get(name)

    def _limit(self, name: str) -> float | None:
        """A setting that is a limit, which may be infinite; None if it is not told or no number."""
        try:
            value = int(self._told.get(name) or "")
        except ValueError:
            return None
        return value if 0 <= value < _UNLIMITED else math.inf

    @property
    def compacted(self) -> bool:
        """Whether of the records with one key older ones are removed."""
        return "compact" in (self.text("cleanup.policy") or "")

    @property
    def stamps(self) -> bool:
        """Whether the brokers replace the time of a record by the time of writing."""
        return self.text("message.timestamp.type") == "LogAppendTime"

    @property
    def kept(self) -> float | None:
        """Seconds for which records are kept, counted from their time; infinite, or None if that is not told."""
        retention = self._limit("retention.ms")
        if "delete" not in (self.text("cleanup.policy") or "delete"):
            return math.inf
        return None if retention is None else retention / 1000

    @property
    def oldest(self) -> tuple[str, float] | None:
        """The setting by which records are refused for their age, and the seconds that they may be old."""
        return self._bound(_BEFORE)

    @property
    def newest(self) -> tuple[str, float] | None:
        """The same for records with a time ahead of the brokers' clock."""
        return self._bound(_AFTER)

    def _bound(self, name: str) -> tuple[str, float] | None:
        if self.stamps:
            return None
        for setting in (name, _DIFFERENCE):
            limit = self._limit(setting)
            if limit is not None and limit < math.inf:
                return setting, limit / 1000
        return None

    @property
    def largest_batch(self) -> float:
        """Bytes that records written together may take; infinite if that is not told."""
        limit = self._limit("max.message.bytes")
        return math.inf if limit is None else limit

    def check(self, setting: str, age: float = _LIVE) -> None:
        """See whether trades can be written that are `age` seconds old; the setting called `setting` names the topic.

        Raises:
            ConfigurationError: if the topic must refuse or lose them.
        """
        if self.compacted:
            raise ConfigurationError(
                f"The topic {self.topic} is compacted, and a compacted topic keeps only the last trades of a symbol; "
                f"set its cleanup.policy to delete alone, or check {named(setting)}"
            )
        self.check_size(setting)
        if self.oldest and self.oldest[1] < age:
            name, limit = self.oldest
            raise ConfigurationError(
                f"The topic {self.topic} refuses trades that are older than {format_duration(limit)}, and what is to "
                f"be written may be {format_duration(age)} old; raise its {name}, or check {named(setting)}"
            )

    def check_size(self, setting: str) -> None:
        """See whether any record of ours can be written.

        Raises:
            ConfigurationError: if none can.
        """
        if self.largest_batch < _ONE_RECORD:
            raise ConfigurationError(
                f"The topic {self.topic} takes no more than {self.largest_batch:.0f} bytes at once, and a record may "
                f"need {_ONE_RECORD}; raise its max.message.bytes, or check {named(setting)}"
            )


def refusal(error: KafkaError, topic: str, setting: str, timestamp: int | None = None) -> ConfigurationError | None:
    """What to change if the brokers refused a record because of the topic's settings; None if that is not why.

    The setting called `setting` gives the topic's name; `timestamp` is the record's, in milliseconds.
    """
    code, why = error.code(), f"({error.str()})"
    mend = f"or check {named(setting)}"
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return ConfigurationError(
            f"The topic {topic} refuses records for their size {why}; raise its max.message.bytes, have less written "
            f"at once with batch.size in {named('kafka_properties')}, {mend}"
        )
    if code == KafkaError.RECORD_LIST_TOO_LARGE:
        return ConfigurationError(f"The topic {topic} refuses records for their size {why}; raise its segment.bytes")
    if code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD) and timestamp is not None:
        # Brokers since 2.5 call a wrong time an invalid record, and have other reasons for that.
        bound = _AFTER if timestamp > time.time() * 1000 else _BEFORE
        return ConfigurationError(
            f"The topic {topic} refuses a record with the time {format_time(timestamp)} {why}; raise its {bound} "
            f"({_DIFFERENCE} before Kafka 3.6), lift what else it demands of records, {mend}"
        )
    if code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION):
        return ConfigurationError(
            f"The topic {topic} refuses our records {why}; lift what its settings or the cluster's policies demand of "
            f"records, {mend}"
        )
    return None


class Inspector:
    """Looks up what a topic is like; each answer may take `seconds`.

    Raises:
        UnavailableError: by each of its methods, if brokers answer but name addresses that cannot be reached.
    """

    def __init__(self, properties: KafkaProperties, seconds: float = ASK_TIMEOUT) -> None:
        self._seconds = seconds
        with properties_checked():
            self._admin = AdminClient(with_callbacks(properties, Trouble("")))

    def settings(self, topic: str) -> TopicSettings:
        """The topic's settings, as far as they are told."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        configs = self._ask(
            topic, lambda: self._admin.describe_configs([resource], request_timeout=self._seconds)[resource]
        )
        return TopicSettings(topic, {name: entry.value for name, entry in configs.items()} if configs else None)

    def rights(self, topic: str) -> set[AclOperation] | None:
        """The operations on the topic that this client is allowed; None if that is not told."""
        found = self._ask(
            topic,
            lambda: self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=self._seconds, include_authorized_operations=True
            )[topic],
        )
        return set(found.authorized_operations or ()) if found else None

    def check_addresses(self, topic: str) -> None:
        """See whether the addresses that brokers name can be reached; nothing if no broker answers."""
        try:
            check_addresses(self._admin.list_topics(topic, timeout=self._seconds), _CONNECT)
        except KafkaException as error:
            log.debug("No broker says where the topic %s is: %s", topic, error)

    def _ask(self, topic: str, ask: Callable[[], Future[Any]]) -> Any:
        try:
            cluster = self._admin.list_topics(topic, timeout=self._seconds)
        except KafkaException as error:
            log.debug("The topic %s cannot be looked at: %s", topic, error)
            return None
        if cluster.controller_id not in cluster.brokers:
            return None  # the embedded broker has no controller, and librdkafka would wait for one
        try:
            return ask().result(timeout=self._seconds)
        except KafkaException as error:
            cause: BaseException = error
            silent = error.args[0].code() in _SILENT
        # On Python 3.10 the two time-outs are not the same.
        except (TimeoutError, FutureTimeoutError) as error:
            cause, silent = error, True
        log.debug("The topic %s cannot be looked at: %s", topic, cause)
        if silent:
            check_addresses(cluster, _CONNECT)
        return None


def check_addresses(cluster: ClusterMetadata, seconds: float) -> None:
    """See whether the addresses that brokers tell of themselves can be connected to, within `seconds`.

    Raises:
        UnavailableError: if one cannot.
    """
    away = unreachable([f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()], seconds)
    if away:
        raise UnavailableError(
            f"The brokers answer, and name addresses that cannot be reached: {listed(away)}; check their "
            "advertised.listeners and the network"
        )


def unread(properties: KafkaProperties, topic: str) -> RunError:
    """Why `topic`, which was there, could not be read to its end in time."""
    try:
        Inspector(properties).check_addresses(topic)
    except UnavailableError as error:
        return RunError(str(error))
    return RunError(f"The topic {topic} could not be read to its end; check the brokers, then try again")
