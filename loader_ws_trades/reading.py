"""Reading topics by assignment: a topic as it grows, and a stretch of one that is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from loader_ws_trades import kafka
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.properties import KafkaProperties

log = logging.getLogger(__name__)

_BATCH = 10_000  # records that one call reads at most
_UNSUPPORTED = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE}  # old brokers
_ANSWER = 10.0  # seconds for the brokers to look an offset up
_STALL = 10.0  # seconds without a record or an end, after which reading a stretch is given up


class Record(NamedTuple):
    """A record as it was read; `timestamp` in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None


class TopicReader:
    """Reads all partitions of one topic by assignment: no group is joined and nothing is committed.

    Raises:
        ConfigurationError: if librdkafka refuses a property.
    """

    def __init__(self, properties: KafkaProperties, topic: str, *, credentials: str) -> None:
        self.properties = properties
        self.trouble = kafka.Trouble(credentials)
        self._topic = topic
        self._assigned: set[int] = set()
        self._unread: set[int] = set()
        with kafka.properties_checked():
            self._client = Consumer(kafka.with_callbacks(properties, self.trouble))
        self.list_topics = self._client.list_topics

    def assign(self, *, beginning: bool) -> None:
        """Take up the partitions not yet assigned, each from its beginning or from its end.

        Raises:
            UnavailableError: if the brokers do not answer, or the topic is not there.
        """
        try:
            found = self._client.list_topics(self._topic, timeout=kafka.ASK_TIMEOUT).topics[self._topic]
        except KafkaException as error:
            raise UnavailableError(f"the brokers did not answer ({error.args[0].str()})") from error
        if found.error is not None:
            raise UnavailableError(f"the topic {self._topic} is not available ({found.error.str()})")
        new = set(found.partitions) - self._assigned
        if not new:
            return
        offset = OFFSET_BEGINNING if beginning else OFFSET_END
        self._client.incremental_assign([TopicPartition(self._topic, partition, offset) for partition in sorted(new)])
        self._assigned |= new
        self._unread |= new

    @property
    def at_end(self) -> bool:
        """Whether each assigned partition has been read to its end once."""
        return bool(self._assigned) and not self._unread

    def poll(self, timeout: float) -> Record | None:
        """The next record, after at most `timeout` seconds."""
        message = self._client.poll(timeout)
        if message is None:
            return None
        error = message.error()
        if error is None:
            return Record(
                message.partition() or 0, message.offset() or 0, message.timestamp()[1], message.value(), message.key()
            )
        if error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(message.partition() or 0)
        # Without a right on the group, which is not used, there is one such event and reading goes on.
        elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            log.debug("Reading %s: %s", self._topic, error.str())
        return None

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()


class HiddenError(UnavailableError):
    """A transaction that is open hides what is behind its first record."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        super().__init__(f"an open transaction hides {topic}, partition {partition}, offset {offset} on")
        self.offset = offset


class TopicScanner:
    """Reads stretches of one topic's partitions, and looks offsets up.

    All methods raise `UnavailableError` if the brokers do not answer, or give no right to read.
    """

    def __init__(self, properties: KafkaProperties, topic: str, *, credentials: str = "") -> None:
        self.properties = properties
        self.trouble = kafka.Trouble(credentials)
        self._topic = topic
        with kafka.properties_checked():
            # By default fetching rests for a second whenever enough waits to be taken, and a fast reader waits for it.
            unresting: KafkaProperties = {"fetch.queue.backoff.ms": 10, **properties}
            self._client = Consumer(kafka.with_callbacks(unresting, self.trouble))
            self._admin = AdminClient(kafka.with_callbacks(properties, self.trouble))
        self.list_topics = self._client.list_topics
        self.poll = self._client.poll

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Of each partition the offset of its first record, and the one behind its last, in open transactions too."""
        try:
            found = self._client.list_topics(self._topic, timeout=kafka.ASK_TIMEOUT).topics[self._topic]
        except KafkaException as error:
            raise _unavailable(self._topic, error) from error
        if found.error is not None:
            raise _unavailable(self._topic, KafkaException(found.error))
        places = [TopicPartition(self._topic, number) for number in found.partitions]
        first = self._offsets(places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        end = self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {place.partition: (first[place], end[place]) for place in places}

    def newest_offset(self, partition: int) -> int | None:
        """Offset of the greatest timestamp; None where the broker cannot tell. It may be a transaction marker's."""
        where = TopicPartition(self._topic, partition)
        try:
            offset = self._offsets([where], OffsetSpec.max_timestamp())[where]  # type: ignore[no-untyped-call]
        except UnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, KafkaException) and cause.args[0].code() in _UNSUPPORTED:
                return None
            raise
        return offset if offset >= 0 else None

    def _offsets(self, places: list[TopicPartition], spec: OffsetSpec) -> dict[TopicPartition, int]:
        try:
            # Without an isolation level, up to what is written, whether committed or not.
            asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=_ANSWER)
            return {place: answer.result(timeout=2 * _ANSWER).offset for place, answer in asked.items()}
        # On Python 3.10 the two time-outs are not the same.
        except (TimeoutError, FutureTimeoutError) as error:
            raise UnavailableError(f"the topic {self._topic} cannot be read (no answer in time)") from error
        except KafkaException as error:
            raise _unavailable(self._topic, error) from error

    def offset_after(self, partition: int, timestamp: int) -> int | None:
        """First offset with a timestamp above `timestamp` (ms); None if there is none, or the broker cannot tell."""
        where = TopicPartition(self._topic, partition, timestamp + 1)
        try:
            [found] = self._client.offsets_for_times([where], timeout=kafka.ASK_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() not in _UNSUPPORTED:
                raise _unavailable(self._topic, error) from error
            return None
        return found.offset if found.error is None and found.offset >= 0 else None

    def read(self, partition: int, start: int, end: int) -> Iterator[Record]:
        """The committed records from the offset `start` up to `end`, which is not behind the partition's own end.

        Raises:
            HiddenError: behind the records before it, if a transaction is open and stays so.
        """
        self._client.assign([TopicPartition(self._topic, partition, start)])
        stalled = Deadline(_STALL)
        hidden_from = None
        while not stalled.passed:
            messages = self._client.consume(_BATCH, timeout=0.05)
            if messages:
                stalled = Deadline(_STALL)
            for message in messages:
                error = message.error()
                if error is None:
                    record = _record(message)
                    if record.offset < end:
                        yield record
                    if record.offset >= end - 1:
                        return
                elif error.code() == KafkaError._PARTITION_EOF:
                    hidden_from = message.offset() or 0
                    if hidden_from >= end:
                        return
                elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise _unavailable(self._topic, KafkaException(error))
        if hidden_from is None:
            raise UnavailableError(f"the topic {self._topic} could not be read")
        raise HiddenError(self._topic, partition, hidden_from)


def _record(message: Message) -> Record:
    return Record(
        message.partition() or 0, message.offset() or 0, message.timestamp()[1], message.value(), message.key()
    )


def _unavailable(topic: str, error: KafkaException) -> UnavailableError:
    cause = error.args[0]
    if cause.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return UnavailableError(f"Kafka gives no right to READ on the topic {topic}", lasting=True)
    return UnavailableError(f"the topic {topic} cannot be read ({cause.str()})")
