"""What a topic's settings mean for our records: whether trades are rejected or lost, and why one was rejected.

A cluster may show any of them or none: it may deny it, or not be Apache Kafka.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from confluent_kafka import KafkaError

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, LoaderError
from loader_ws_trades.kafka.errors import error_text, run_error
from loader_ws_trades.text import format_duration, format_time

_ONE_RECORD = 512  # bytes that a batch of one record may take
_LIVE = 1.0  # seconds that a live trade may be old when it is written
_UNLIMITED = 2**63 - 1  # Java's greatest long, the default of some limits
_DIFFERENCE = "message.timestamp.difference.max.ms"  # what the next two were before Kafka 3.6
_BEFORE, _AFTER = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"


class TopicSettings:
    """The settings of one topic; a value may be None or not a number."""

    def __init__(self, topic: str, values: Mapping[str, str | None] | None) -> None:
        self.topic = topic
        self._values = values or {}

    def _text(self, name: str) -> str:
        return self._values.get(name) or ""

    def _limit(self, name: str) -> float | None:
        """A setting that is a limit, which may be infinite; None if it is unknown or not a number."""
        try:
            value = int(self._text(name))
        except ValueError:
            return None
        return value if 0 <= value < _UNLIMITED else math.inf

    @property
    def compacted(self) -> bool:
        """Whether older records with the same key are removed."""
        return "compact" in self._text("cleanup.policy")

    @property
    def uses_append_time(self) -> bool:
        """Whether the brokers replace a record's timestamp by the time of writing."""
        return self._text("message.timestamp.type") == "LogAppendTime"

    @property
    def retention(self) -> float | None:
        """Seconds for which records are kept, counted from their timestamp; infinite, or None if unknown."""
        if "delete" not in (self._text("cleanup.policy") or "delete"):
            return math.inf
        limit = self._limit("retention.ms")
        return None if limit is None else limit / 1000

    @property
    def max_age(self) -> tuple[str, float] | None:
        """The setting that rejects records for their age, and the seconds that they may be old."""
        return self._time_limit(_BEFORE)

    @property
    def max_ahead(self) -> tuple[str, float] | None:
        """The same for records with a timestamp ahead of the brokers' clock."""
        return self._time_limit(_AFTER)

    def _time_limit(self, name: str) -> tuple[str, float] | None:
        limits = [(setting, self._limit(setting)) for setting in (name, _DIFFERENCE)]
        found = [(setting, limit / 1000) for setting, limit in limits if limit is not None and limit < math.inf]
        return found[0] if found and not self.uses_append_time else None

    @property
    def max_batch_size(self) -> float:
        """Bytes that records written together may take; infinite if unknown."""
        limit = self._limit("max.message.bytes")
        return math.inf if limit is None else limit

    def check(self, setting: str, age: float = _LIVE) -> None:
        """Check that trades can be written that are `age` seconds old; the setting called `setting` names the topic.

        Raises:
            ConfigurationError: if the topic would reject or lose them.
        """
        if self.compacted:
            raise ConfigurationError(
                f"The topic {self.topic} is compacted, and a compacted topic keeps only the last trades of a symbol; "
                f"set its cleanup.policy to delete alone, or check {named(setting)}"
            )
        self.check_size(setting)
        if self.max_age and self.max_age[1] < age:
            name, limit = self.max_age
            raise ConfigurationError(
                f"The topic {self.topic} rejects trades older than {format_duration(limit)}, and those to be written "
                f"may be {format_duration(age)} old; raise its {name}, or check {named(setting)}"
            )

    def check_size(self, setting: str) -> None:
        """Check that all our records can be written.

        Raises:
            ConfigurationError: if none can.
        """
        if self.max_batch_size < _ONE_RECORD:
            raise ConfigurationError(
                f"The topic {self.topic} accepts at most {self.max_batch_size:.0f} bytes at once, and a record may "
                f"need {_ONE_RECORD}; raise its max.message.bytes, or check {named(setting)}"
            )


def delivery_error(error: KafkaError, topic: str, setting: str, timestamp: int | None = None) -> LoaderError:
    """The error that ends a run whose record was rejected: the configuration's, if the topic's settings are why.

    The setting called `setting` names the topic; `timestamp` is the record's, in milliseconds.
    """
    code, why = error.code(), f"({error_text(error)})"
    check = f"or check {named(setting)}"
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return ConfigurationError(
            f"The topic {topic} rejects records for their size {why}; raise its max.message.bytes, lower batch.size "
            f"with {named('kafka_properties')}, {check}"
        )
    if code == KafkaError.RECORD_LIST_TOO_LARGE:
        return ConfigurationError(f"The topic {topic} rejects records for their size {why}; raise its segment.bytes")
    if code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD) and timestamp is not None:
        # Brokers since 2.5 call a wrong timestamp an invalid record, and have other reasons for that.
        limit = _AFTER if timestamp > time.time() * 1000 else _BEFORE
        return ConfigurationError(
            f"The topic {topic} rejects a record with the timestamp {format_time(timestamp)} {why}; raise its {limit} "
            f"({_DIFFERENCE} before Kafka 3.6), relax what else it requires of records, {check}"
        )
    if code in (KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION):
        return ConfigurationError(
            f"The topic {topic} rejects our records {why}; relax what its settings or the cluster's policies require "
            f"of records, {check}"
        )
    return run_error(error, f"Writing a record to the topic {topic}")
