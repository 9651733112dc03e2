"""Looks up one topic: its settings, our permissions on it, where its partitions begin and end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    OffsetSpec,
    TopicMetadata,
)

from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.client import Client
from loader_ws_trades.kafka.diagnosis import listed, unreachable
from loader_ws_trades.kafka.errors import error_text, unreadable
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.kafka.topic_settings import TopicSettings

log = logging.getLogger(__name__)

SHORT_TIMEOUT: Final = 1.0  # seconds for one request of the main thread, which must see a signal in time
LONG_TIMEOUT: Final = 5.0  # seconds for one request of a thread that nobody joins
CLOCK_SKEW: Final = 600_000  # milliseconds by which a record's time, a broker's perhaps, may be before its trade's

_CONNECT = 1.0  # seconds to connect to the brokers
_OFFSETS = 10.0  # seconds for the brokers to look offsets up
_UNSUPPORTED = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE}  # old brokers
_SILENT = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._ALL_BROKERS_DOWN}
_Key = TypeVar("_Key")
_TIMEOUTS = (TimeoutError, FutureTimeoutError)  # two types on Python 3.10


class TopicAdmin(Client):
    """Looks up `topic`; one request takes at most `seconds`.

    The first `patience` requests without an answer raise `UnavailableError`: ask again. After that the cluster counts
    as one that does not show what it is asked for.
    """

    def __init__(
        self,
        properties: KafkaProperties,
        topic: str,
        *,
        seconds: float = SHORT_TIMEOUT,
        credentials: str = "",
        patience: int = 0,
    ) -> None:
        super().__init__(AdminClient, properties, credentials)
        self._topic = topic
        self._seconds = seconds
        self._patience = patience

    # -- what a cluster may not show; UnavailableError also if it advertises addresses that cannot be reached

    def settings(self) -> TopicSettings:
        """The topic's settings, as far as the cluster shows them."""
        return next(iter(self.settings_of([self._topic])), TopicSettings(self._topic, None))

    def settings_of(self, topics: Sequence[str]) -> list[TopicSettings]:
        """Those of many topics, by one request, as far as the cluster shows them."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        asked = self._ask(lambda: self._client.describe_configs(resources, request_timeout=self._seconds))
        return [
            TopicSettings(resource.name, {name: entry.value for name, entry in configs.items()})
            for resource, configs in asked
        ]

    def permissions(self) -> set[str]:
        """The operations on the topic that the user is allowed; empty if the cluster does not show them."""
        return self.permissions_of([self._topic]).get(self._topic, set())

    def permissions_of(self, topics: Sequence[str]) -> dict[str, set[str]]:
        """The same of many topics, by one request; only those that the cluster shows."""
        asked = self._ask(
            lambda: self._client.describe_topics(
                TopicCollection(list(topics)), request_timeout=self._seconds, include_authorized_operations=True
            )
        )
        return {topic: {each.name for each in found.authorized_operations or ()} for topic, found in asked}

    def _ask(self, request: Callable[[], Mapping[_Key, Future[Any]]]) -> Iterator[tuple[_Key, Any]]:
        """What the cluster answers about each thing asked for, up to the first that gets no answer."""
        cluster = self._cluster()
        if cluster and cluster.controller_id not in cluster.brokers:
            return  # librdkafka would wait for a controller, which the embedded broker does not have
        silence = None if cluster else "no answer in time"
        for key, asked in request().items() if cluster else ():
            try:
                yield key, asked.result(timeout=self._seconds)
            except KafkaException as error:
                log.debug("%s cannot be looked up: %s", key, error_text(error))
                silence = error_text(error) if error.args[0].code() in _SILENT else None
            except _TIMEOUTS:
                silence = "no answer in time"
            if silence:
                break
        if silence and cluster:
            check_addresses(cluster)
        if silence and self._patience:
            self._patience -= 1
            raise UnavailableError(f"The topic {self._topic} cannot be looked up ({silence}); check the brokers")

    def _cluster(self) -> ClusterMetadata | None:
        try:
            found: ClusterMetadata = self.list_topics(self._topic, timeout=self._seconds)
        except KafkaException as error:
            log.debug("The topic %s cannot be looked up: %s", self._topic, error_text(error))
            return None
        return found

    def read_timeout(self) -> RunError:
        """Why the topic, which was there, could not be read to its end in time."""
        try:
            if cluster := self._cluster():
                check_addresses(cluster)
        except UnavailableError as error:
            return RunError(str(error))
        return RunError(f"The topic {self._topic} could not be read to its end; check the brokers, then try again")

    # -- offsets by partition; UnavailableError if the brokers do not answer, or deny DESCRIBE

    def bounds(self) -> dict[int, tuple[int, int]]:
        """The offset of the first record, and the one after the last, open transactions included."""
        first, end = self._offsets(OffsetSpec.earliest()), self._offsets(OffsetSpec.latest())  # type: ignore[no-untyped-call]
        if any(result.offset < 0 for result in (*first.values(), *end.values())):
            raise UnavailableError(f"the brokers do not return the offsets of the topic {self._topic}")
        # A partition that was added in between begins at 0.
        return {number: (first[number].offset if number in first else 0, end[number].offset) for number in end}

    def stable_ends(self) -> dict[int, int]:
        """Up to which offset committed records can be read: to where the oldest open transaction begins."""
        found = self._offsets(OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED)  # type: ignore[no-untyped-call]
        return {number: result.offset for number, result in found.items()}

    def newest_time(self) -> int | None:
        """The greatest record timestamp (ms), transaction markers included; None if the brokers do not support it."""
        found = self._offsets_by_time(OffsetSpec.max_timestamp())  # type: ignore[no-untyped-call]
        newest = max((result.timestamp for result in found.values()), default=-1)
        return newest if newest >= 0 else None

    def offsets_at(self, moment: int) -> dict[int, int]:
        """The first offset with a timestamp at or after `moment` (ms), in partitions that have one."""
        found = self._offsets_by_time(OffsetSpec.for_timestamp(moment))
        return {number: result.offset for number, result in found.items() if result.offset >= 0}

    def ranges(self, moment: int | None) -> dict[int, tuple[int, int]]:
        """The offsets to read to see all trades at or after `moment` (ms), or all there are.

        They extend to the end, as backfilled trades come after newer ones.
        """
        found = {} if moment is None or moment <= CLOCK_SKEW else self.offsets_at(moment - CLOCK_SKEW)
        starts = {number: (max(low, found.get(number, low)), end) for number, (low, end) in self.bounds().items()}
        return {number: (start, end) for number, (start, end) in starts.items() if start < end}

    def _offsets_by_time(self, spec: OffsetSpec) -> dict[int, Any]:
        try:
            return self._offsets(spec)
        except UnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, KafkaException) and cause.args[0].code() in _UNSUPPORTED:
                return {}
            raise

    def _offsets(self, spec: OffsetSpec, **options: Any) -> dict[int, Any]:
        try:
            places = [TopicPartition(self._topic, number) for number in partitions(self._client, self._topic)]
            asked = self._client.list_offsets(dict.fromkeys(places, spec), request_timeout=_OFFSETS, **options)
            return {place.partition: answer.result(timeout=2 * _OFFSETS) for place, answer in asked.items()}
        except _TIMEOUTS as error:
            raise UnavailableError(f"the topic {self._topic} cannot be read (no answer in time)") from error
        except KafkaException as error:
            raise unreadable(self._topic, error) from error


def partitions(client: Any, topic: str) -> list[int]:
    """The partitions of `topic`, requested by confluent-kafka's `client`.

    Raises:
        UnavailableError: if the brokers do not answer, or the topic is not there.
    """
    try:
        found = topic_metadata(client.list_topics(topic, timeout=LONG_TIMEOUT), topic)
    except KafkaException as error:
        raise unreadable(topic, error) from error
    if found.error is not None:
        raise unreadable(topic, found.error)
    return sorted(found.partitions)


def topic_metadata(cluster: ClusterMetadata, topic: str) -> TopicMetadata:
    """What an answer says of the topic that was asked for.

    Raises:
        UnavailableError: if it does not mention it, or without any partition.
    """
    found: TopicMetadata | None = cluster.topics.get(topic)
    if found is None or not (found.error or found.partitions):
        raise UnavailableError(f"The brokers do not return the partitions of the topic {topic}; check the brokers")
    return found


def check_addresses(cluster: ClusterMetadata) -> None:
    """Check that the addresses which the brokers advertise can be connected to.

    Raises:
        UnavailableError: if one cannot.
    """
    away = unreachable([f"{broker.host}:{broker.port}" for broker in cluster.brokers.values()], _CONNECT)
    if away:
        raise UnavailableError(
            f"The brokers answer, but advertise addresses that cannot be reached: {listed(away)}; check their "
            "advertised.listeners and the network"
        )
