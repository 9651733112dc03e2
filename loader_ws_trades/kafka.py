"""Clients of Kafka: made, asked, read and closed here, and their errors put into words.

librdkafka tries most faults again for ever and tells of them only in callbacks; `Trouble` collects these, so that
whoever waits can say why. Callbacks run inside `poll`, in the thread that calls it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import Producer as _Producer
from confluent_kafka.admin import AdminClient, ConfigResource

from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.properties import KafkaProperties

log = logging.getLogger(__name__)

__all__ = [
    "KafkaException",
    "Message",
    "Producer",
    "Record",
    "Startup",
    "TopicReader",
    "await_topic",
    "cleanup_policy",
    "failure",
]

_ASK = 2.0  # seconds for one question to the cluster, after which callbacks are served and it is asked again
_PAUSE = 0.25  # seconds between two questions


class _Lines(logging.LoggerAdapter[logging.Logger]):
    """librdkafka's own log lines, all at debug level: what matters of them comes as an error as well."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ARG002
        self.logger.log(logging.DEBUG, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


class Trouble:
    """What a client's callbacks told since the last `clear`."""

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials
        self.refusal: str | None = None
        self.text = "no answer"

    def clear(self) -> None:
        """Forget all of it."""
        self.refusal = None

    def note(self, error: KafkaError) -> None:
        """Librdkafka's `error_cb`."""
        log.debug("Kafka client: %s", error.str())
        if error.code() == KafkaError._AUTHENTICATION:
            self.refusal = f"Kafka refused the user or the password; check {self.credentials}"
        elif error.code() == KafkaError._SSL:
            self.refusal = (
                f"The TLS connection to Kafka failed ({_plain(error)}); check CA_PATH (--ca-path) and the host names "
                "in KAFKA_BOOTSTRAP_SERVERS (--kafka-bootstrap-servers)"
            )
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.text = _plain(error)


def _plain(error: KafkaError) -> str:
    return str(error.str()).split(" (after ")[0]


def _with_callbacks(properties: KafkaProperties, trouble: Trouble) -> dict[str, Any]:
    lines = _Lines(logging.getLogger(f"{__name__}.librdkafka"), None)
    return {**properties, "error_cb": trouble.note, "logger": lines}


@contextlib.contextmanager
def _properties_checked() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise ConfigurationError(
            f"librdkafka does not accept its configuration ({error.args[0].str()}); check KAFKA_PROPERTIES (-X) and "
            "the other Kafka settings"
        ) from error


def failure(error: KafkaException | KafkaError, doing: str) -> RunError:
    """The error that ends a run which cannot go on, because `doing` failed."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    return RunError(f"{doing} failed: {cause.str()} ({cause.name()})")


class Producer:
    """A producer whose delivery reports go to `on_delivery`; `produce` is librdkafka's, and safe in any thread.

    Raises:
        ConfigurationError: if librdkafka refuses a property.
    """

    def __init__(
        self,
        properties: KafkaProperties,
        on_delivery: Callable[[KafkaError | None, Message], None],
        *,
        credentials: str,
    ) -> None:
        self.trouble = Trouble(credentials)
        with _properties_checked():
            self._client = _Producer({**_with_callbacks(properties, self.trouble), "on_delivery": on_delivery})
        self.produce = self._client.produce
        self.list_topics = self._client.list_topics

    def __len__(self) -> int:
        return len(self._client)

    def poll(self, timeout: float) -> None:
        """Serve callbacks for at most `timeout` seconds, or until some were served.

        Raises:
            RunError: if the producer has failed for good.
        """
        try:
            self._client.poll(timeout)
        except KafkaException as error:
            raise failure(error, "Writing to Kafka") from error

    def purge(self, deadline: Deadline) -> None:
        """Give up all that is not delivered: each record gets a delivery report that says so, within `deadline`."""
        self._client.purge()
        while len(self._client) and not deadline.passed:
            with contextlib.suppress(RunError):
                self.poll(min(0.1, deadline.remaining))


class Startup(NamedTuple):
    """How long the start waits for the cluster."""

    deadline: Deadline  # until when brokers must have answered
    grace: float  # seconds for which what the cluster refuses is tried again
    stopped: Callable[[], bool]  # asked between two tries, whether to wait no more


def await_topic(client: Producer | TopicReader, topic: str, named: str, startup: Startup) -> None:
    """Wait until the cluster answers `client` and knows `topic`, which the setting `named` gives.

    Raises:
        ConfigurationError: if the topic, the credentials or a right is missing for longer than the grace.
        RunError: if no broker answered until the deadline.
    """
    grace_left: Deadline | None = None
    while not startup.stopped():
        try:
            _ask_for(client, topic, named)
        except ConfigurationError as error:
            if grace_left is None:
                grace_left = Deadline(startup.grace)
                log.warning("%s (trying again for %g s)", error, startup.grace)
            elif grace_left.passed:
                raise
        except UnavailableError as error:
            if startup.deadline.passed:
                raise RunError(str(error)) from error
        else:
            return
        client.poll(_PAUSE)


def _ask_for(client: Producer | TopicReader, topic: str, named: str) -> None:
    client.trouble.clear()
    try:
        found = client.list_topics(topic, timeout=_ASK).topics[topic]
    except KafkaException as error:
        client.poll(0)
        if client.trouble.refusal:
            raise ConfigurationError(client.trouble.refusal) from error
        raise UnavailableError(
            f"No Kafka broker answered ({client.trouble.text}); check KAFKA_BOOTSTRAP_SERVERS "
            "(--kafka-bootstrap-servers) and that the brokers are up and reachable"
        ) from error
    if found.error is None:
        return
    if found.error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        raise ConfigurationError(
            f"Kafka gives no right on the topic {topic}; grant it to the user, or check {named} and "
            f"{client.trouble.credentials}"
        )
    if found.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
        raise ConfigurationError(f"The topic {topic} does not exist; create it, or check {named}")
    raise UnavailableError(f"The topic {topic} is not available ({found.error.str()}); check the brokers")


def cleanup_policy(properties: KafkaProperties, topic: str) -> str | None:
    """The topic's `cleanup.policy`; None if it cannot be read, for want of a right for instance."""
    admin = AdminClient(_with_callbacks(properties, Trouble("")))
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        cluster = admin.list_topics(topic, timeout=_ASK)
        if cluster.controller_id not in cluster.brokers:
            return None  # the embedded broker has no controller, and librdkafka would wait for one
        configs = admin.describe_configs([resource], request_timeout=_ASK)[resource].result(timeout=2 * _ASK)
    except (KafkaException, TimeoutError) as error:
        log.debug("The configuration of the topic %s cannot be read: %s", topic, error)
        return None
    return str(configs["cleanup.policy"].value)


class Record(NamedTuple):
    """A record as it was read; `timestamp` in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    value: bytes | None


class TopicReader:
    """Reads all partitions of one topic by assignment: no group is joined and nothing is committed.

    Raises:
        ConfigurationError: if librdkafka refuses a property.
    """

    def __init__(self, properties: KafkaProperties, topic: str, *, credentials: str) -> None:
        self.trouble = Trouble(credentials)
        self._topic = topic
        self._assigned: set[int] = set()
        self._unread: set[int] = set()
        with _properties_checked():
            self._client = Consumer(_with_callbacks(properties, self.trouble))
        self.list_topics = self._client.list_topics

    def assign(self, *, beginning: bool) -> None:
        """Take up the partitions not yet assigned, each from its beginning or from its end.

        Raises:
            UnavailableError: if the brokers do not answer, or the topic is not there.
        """
        try:
            found = self._client.list_topics(self._topic, timeout=_ASK).topics[self._topic]
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
            return Record(message.partition() or 0, message.offset() or 0, message.timestamp()[1], message.value())
        if error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(message.partition() or 0)
        # Without a right on the group, which is not used, there is one such event and reading goes on.
        elif error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            log.debug("Reading %s: %s", self._topic, error.str())
        return None

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()
