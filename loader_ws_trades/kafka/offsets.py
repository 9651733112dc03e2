"""Looks up where a topic's partitions begin and end, and which offset stands at a time."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.properties import KafkaProperties

SKEW = 600_000  # milliseconds by which a record's time may be before its trade's: a broker's clock gives it, perhaps
_ANSWER = 10.0  # seconds for the brokers to look an offset up
_UNSUPPORTED = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE}  # old brokers


class Offsets:
    """The offsets of one topic, by partition; needs the right to DESCRIBE it.

    All methods raise `UnavailableError` if the brokers do not answer, or refuse to tell.
    """

    def __init__(self, properties: KafkaProperties, topic: str, trouble: kafka.Trouble) -> None:
        self._topic = topic
        with kafka.properties_checked():
            self._admin = AdminClient(kafka.with_callbacks(properties, trouble))

    def bounds(self) -> dict[int, tuple[int, int]]:
        """The offset of the first record, and the one behind the last, those in open transactions included."""
        first, end = self._list(OffsetSpec.earliest()), self._list(OffsetSpec.latest())  # type: ignore[no-untyped-call]
        if any(result.offset < 0 for result in (*first.values(), *end.values())):
            raise UnavailableError(f"the brokers do not tell the offsets of the topic {self._topic}")
        # A partition that was added in between begins at 0.
        return {number: (first[number].offset if number in first else 0, end[number].offset) for number in end}

    def stable_ends(self) -> dict[int, int]:
        """The offset up to which readers of what is committed can read: where the oldest open transaction begins."""
        found = self._list(OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]
        return {number: result.offset for number, result in found.items()}

    def newest_time(self) -> int | None:
        """The greatest record timestamp (ms), transaction markers included; None if the brokers cannot tell."""
        found = self._by_time(OffsetSpec.max_timestamp())  # type: ignore[no-untyped-call]
        newest = max((result.timestamp for result in found.values()), default=-1)
        return newest if newest >= 0 else None

    def at(self, moment: int) -> dict[int, int]:
        """The first offset with a timestamp at or after `moment` (ms), of partitions where the brokers find one."""
        found = self._by_time(OffsetSpec.for_timestamp(moment))
        return {number: result.offset for number, result in found.items() if result.offset >= 0}

    def stretches(self, moment: int | None) -> dict[int, tuple[int, int]]:
        """Where to read, to see all trades at or after `moment` (ms), or all that there are.

        What was filled in later stands behind newer trades, so no time ends it.
        """
        found = {} if moment is None or moment <= SKEW else self.at(moment - SKEW)
        starts = {number: (max(low, found.get(number, low)), end) for number, (low, end) in self.bounds().items()}
        return {number: (start, end) for number, (start, end) in starts.items() if start < end}

    def _by_time(self, spec: OffsetSpec) -> dict[int, Any]:
        try:
            return self._list(spec)
        except UnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, KafkaException) and cause.args[0].code() in _UNSUPPORTED:
                return {}
            raise

    def _list(self, spec: OffsetSpec, **options: Any) -> dict[int, Any]:
        try:
            topic = kafka.described(self._admin.list_topics(self._topic, timeout=kafka.READ_TIMEOUT), self._topic)
            if topic.error is not None:
                raise KafkaException(topic.error)  # noqa: TRY301 - answered as one of the look-up itself
            places = [TopicPartition(self._topic, number) for number in sorted(topic.partitions)]
            asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=_ANSWER, **options)
            return {place.partition: answer.result(timeout=2 * _ANSWER) for place, answer in asked.items()}
        # On Python 3.10 the two time-outs are not the same.
        except (TimeoutError, FutureTimeoutError) as error:
            raise UnavailableError(f"the topic {self._topic} cannot be read (no answer in time)") from error
        except KafkaException as error:
            raise unavailable(self._topic, error) from error


def no_right(topic: str) -> UnavailableError:
    """There is no right to read `topic`."""
    return UnavailableError(f"Kafka gives no right to READ on the topic {topic}", lasting=True)


def unavailable(topic: str, error: KafkaException) -> UnavailableError:
    """What the refusal to read `topic` means."""
    cause = error.args[0]
    if cause.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return no_right(topic)
    return UnavailableError(f"the topic {topic} cannot be read ({cause.str()})")
