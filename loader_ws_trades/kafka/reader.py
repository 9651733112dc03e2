"""Reading topics by assignment: a topic as it grows, and a stretch of one that is there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.offsets import Offsets, no_right, unavailable
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.kafka.topics import Inspector
from loader_ws_trades.lifecycle import Deadline

log = logging.getLogger(__name__)

_BATCH = 10_000  # records that one call reads at most
_STALL = 10.0  # seconds without a record or an end, after which reading a stretch is given up


class Record(NamedTuple):
    """A record as it was read; `timestamp` in milliseconds, -1 where it is not the writer's."""

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
        self._ends: dict[int, int] = {}  # where each partition ended when its end was come to the last time
        with kafka.properties_checked():
            self._client = Consumer(kafka.with_callbacks(properties, self.trouble))
        self.list_topics = self._client.list_topics

    def assign(self, *, beginning: bool) -> None:
        """Take up the partitions not yet assigned, each from its beginning or from its end.

        Raises:
            UnavailableError: if the brokers do not answer, or the topic is not there.
        """
        try:
            found = kafka.described(self._client.list_topics(self._topic, timeout=kafka.READ_TIMEOUT), self._topic)
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

    def hidden(self) -> dict[int, int]:
        """Of each partition that ends, for us, before what is written: where. A transaction there is not committed."""
        found = {}
        for partition, end in self._ends.items():
            bounds = self._client.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if end < bounds[1]:
                found[partition] = end
        return found

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
            self._ends[message.partition() or 0] = message.offset() or 0
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
        super().__init__(
            f"a transaction that somebody has left open hides {topic}, partition {partition}, from offset {offset} on; "
            "end it by kafka-transactions.sh, or wait until its time is over"
        )
        self.offset = offset


class TopicScanner(Offsets):
    """Reads stretches of one topic's partitions, and looks offsets up.

    All methods raise `UnavailableError` if the brokers do not answer, or give no right to read.
    """

    def __init__(self, properties: KafkaProperties, topic: str, *, credentials: str = "") -> None:
        self.properties = properties
        self.trouble = kafka.Trouble(credentials)
        self.append_time = False
        """Whether a record was read whose time the broker replaced by that of its arrival."""
        super().__init__(properties, topic, self.trouble)
        with kafka.properties_checked():
            # By default fetching rests for a second whenever enough waits to be taken, and a fast reader waits for it.
            unresting: KafkaProperties = {"fetch.queue.backoff.ms": 10, **properties}
            self._client = Consumer(kafka.with_callbacks(unresting, self.trouble))
        self.list_topics = self._client.list_topics
        self.poll = self._client.poll

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def check_right(self) -> None:
        """See whether there is a right to read, as far as the cluster tells."""
        rights = Inspector(self.properties, kafka.READ_TIMEOUT).rights(self._topic)
        if rights and kafka.AclOperation.READ not in rights:
            raise no_right(self._topic)

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
                    kind, moment = message.timestamp()
                    if kind == TIMESTAMP_LOG_APPEND_TIME:
                        self.append_time, moment = True, -1
                    record = Record(partition, message.offset() or 0, moment, message.value(), message.key())
                    if record.offset < end:
                        yield record
                    if record.offset >= end - 1:
                        return
                elif error.code() == KafkaError._PARTITION_EOF:
                    hidden_from = message.offset() or 0
                    if hidden_from >= end:
                        return
                elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise unavailable(self._topic, KafkaException(error))
        if hidden_from is None:
            raise UnavailableError(f"the topic {self._topic} could not be read")
        raise HiddenError(self._topic, partition, hidden_from)
