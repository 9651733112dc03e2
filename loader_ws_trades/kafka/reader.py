"""Reads topics by assignment: one as it grows, and ranges of one as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.admin import LONG_TIMEOUT, TopicAdmin, partitions
from loader_ws_trades.kafka.client import Client, create
from loader_ws_trades.kafka.errors import HiddenError, error_text, unreadable
from loader_ws_trades.kafka.properties import consumer_credentials, consumer_properties
from loader_ws_trades.lifecycle import Deadline

log = logging.getLogger(__name__)

_BATCH = 10_000  # records that one call reads at most
# Milliseconds that the broker holds a fetch back until there is a record; librdkafka's default is 500. A partition that
# is assigned meanwhile waits for it, and the embedded broker does not cut it short.
_FETCH_WAIT = 1000
_STALL = 10.0  # seconds without a record or an end after which reading a range is given up


class Record(NamedTuple):
    """A record as it was read; `timestamp` in milliseconds, negated where it is not the writer's but the broker's."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None


class TopicReader(Client):
    """Follows all partitions of one topic; no group is joined and nothing is committed.

    Raises:
        ConfigurationError: if a property is rejected.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        properties = {"fetch.wait.max.ms": _FETCH_WAIT, **consumer_properties(settings)}
        super().__init__(Consumer, properties, consumer_credentials(settings))
        self._topic = topic
        self._assigned: set[int] = set()
        self._unread: dict[int, int] = {}  # by partition, the offset up to which it has not been read once
        self._ends: dict[int, int] = {}  # by partition, where it ended when its end was last reached

    def assign(self, *, beginning: bool) -> None:
        """Assign the partitions not yet assigned, each from its beginning or from its end.

        Raises:
            UnavailableError: if the brokers do not answer, or the topic is not there.
        """
        new = [number for number in partitions(self._client, self._topic) if number not in self._assigned]
        if not new:
            return
        # Looked up, because librdkafka reports the end of a partition only after a fetch has waited for more.
        bounds = {number: self._bounds(number) for number in new}
        starts = {number: low if beginning else end for number, (low, end) in bounds.items()}
        self._client.incremental_assign([TopicPartition(self._topic, *start) for start in starts.items()])
        self._assigned.update(new)
        self._unread.update((number, end) for number, (_, end) in bounds.items() if starts[number] < end)

    def _bounds(self, partition: int) -> tuple[int, int]:
        """The offset of the first record of a partition, and the one up to which records can be read."""
        try:
            low, end = self._client.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=LONG_TIMEOUT)
        except KafkaException as error:
            raise unreadable(self._topic, error) from error
        return low, end

    @property
    def at_end(self) -> bool:
        """Whether each assigned partition has been read to its end once."""
        return bool(self._assigned) and not self._unread

    def hidden(self) -> dict[int, int]:
        """By partition, the offset from which on an open transaction hides records."""
        found = {}
        for partition, end in self._ends.items():
            _, high = self._client.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if end < high:
                found[partition] = end
        return found

    def poll(self, timeout: float) -> Record | None:
        """The next record, after at most `timeout` seconds."""
        while (message := self._client.poll(timeout)) is not None:
            error, partition, offset = message.error(), message.partition() or 0, message.offset() or 0
            if error is None:
                if offset + 1 >= self._unread.get(partition, 0):
                    self._unread.pop(partition, None)
                return Record(partition, offset, message.timestamp()[1], message.value(), message.key())
            if error.code() == KafkaError._PARTITION_EOF:
                self._unread.pop(partition, None)
                self._ends[partition] = offset
            # Without a permission on the group, which is not used, there is one such event and reading continues.
            elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                log.debug("Reading %s: %s", self._topic, error_text(error))
            timeout = 0
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class TopicScanner(TopicAdmin):
    """Reads ranges of the partitions of the trades' topic, and looks offsets up.

    All methods raise `UnavailableError` if the brokers do not answer, or deny READ.
    """

    def __init__(self, settings: Settings) -> None:
        properties, credentials = consumer_properties(settings), consumer_credentials(settings)
        super().__init__(properties, settings.kafka_topic, seconds=LONG_TIMEOUT, credentials=credentials)
        self.append_time = False
        """Whether a record was read whose timestamp the broker replaced by the time of writing."""
        # By default a full fetch queue pauses fetching for a second, and a fast reader would wait for it.
        self._consumer = create(Consumer, {"fetch.queue.backoff.ms": 10, **properties}, self.diagnosis)
        self.list_topics = self._consumer.list_topics

    def turn_to(self, topic: str) -> None:
        """Read another topic from now on."""
        self._topic, self.append_time = topic, False

    def poll(self, timeout: float) -> object:
        """Serve callbacks of the consumer for at most `timeout` seconds."""
        return self._consumer.poll(timeout)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def read(self, partition: int, start: int, end: int) -> Iterator[Record]:
        """The committed records from the offset `start` up to `end`, which is at most the partition's own end.

        Raises:
            HiddenError: after the records before it, if a transaction is open and stays so.
        """
        self._consumer.assign([TopicPartition(self._topic, partition, start)])
        stalled = Deadline(_STALL)
        hidden_from = None
        while not stalled.passed:
            messages = self._consumer.consume(_BATCH, timeout=0.05)
            if messages:
                stalled = Deadline(_STALL)
            for message in messages:
                error, offset = message.error(), message.offset() or 0
                if error is None:
                    kind, moment = message.timestamp()
                    if kind == TIMESTAMP_LOG_APPEND_TIME:
                        self.append_time, moment = True, -moment
                    if offset < end:
                        yield Record(partition, offset, moment, message.value(), message.key())
                    if offset >= end - 1:
                        return
                elif error.code() == KafkaError._PARTITION_EOF:
                    hidden_from = offset
                    if hidden_from >= end:
                        return
                elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                    raise unreadable(self._topic, error)
        if hidden_from is None:
            raise UnavailableError(f"the topic {self._topic} could not be read")
        raise HiddenError(self._topic, partition, hidden_from)
