"""Clients of Kafka: made, asked, read and closed here, and their errors put into words.

librdkafka tries most faults again for ever and tells of them only in callbacks and log lines; a `Trouble` collects
these, so that whoever waits can say why. Callbacks run inside `poll`, in the thread that calls it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as _Producer
from confluent_kafka.admin import AclOperation, ClusterMetadata, TopicMetadata

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError, UnavailableError
from loader_ws_trades.kafka.clients import properties_checked, with_callbacks
from loader_ws_trades.kafka.diagnosis import Trouble
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.kafka.topics import ASK_TIMEOUT, READ_TIMEOUT, Inspector, refusal
from loader_ws_trades.lifecycle import Deadline, Startup

log = logging.getLogger(__name__)

__all__ = [
    "ASK_TIMEOUT",
    "READ_TIMEOUT",
    "AbortableError",
    "AclOperation",
    "Asks",
    "FencedError",
    "KafkaError",
    "KafkaException",
    "Message",
    "Producer",
    "Trouble",
    "ask",
    "await_topic",
    "check_right",
    "check_topic",
    "described",
    "failure",
    "persist",
    "properties_checked",
    "undelivered",
    "with_callbacks",
]

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
_PAUSE = 0.25  # seconds between two questions
_AWAY = 2  # questions without an answer, one behind the other, after which an earlier refusal counts no more


def failure(error: KafkaException | KafkaError, doing: str) -> RunError:
    """The error that ends a run which cannot go on, because `doing` failed."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    kind = FencedError if cause.code() in _FENCED else RunError
    return kind(f"{doing} failed: {cause.str()} ({cause.name()})")


def undelivered(error: KafkaError, topic: str, setting: str, timestamp: int | None = None) -> LoaderError:
    """The error that ends a run whose record was refused; the setting called `setting` gives the topic's name."""
    return refusal(error, topic, setting, timestamp) or failure(error, f"Writing a record to the topic {topic}")


class FencedError(RunError):
    """The brokers take nothing more from this producer: a newer one has its transactional id, or it was too slow."""


class AbortableError(Exception):
    """A transaction cannot be committed; it can be aborted and made again."""


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
        self.properties = properties
        self.trouble = Trouble(credentials)
        with properties_checked():
            self._client = _Producer({**with_callbacks(properties, self.trouble), "on_delivery": on_delivery})
        self.produce = self._client.produce
        self.list_topics = self._client.list_topics
        self.begin_transaction = self._client.begin_transaction

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

    def init_transactions(self) -> None:
        """End what an earlier producer of the same transactional id left open, and fence that one off.

        Raises:
            ConfigurationError: if there is no right to the transactional id; this producer is of no use then.
            UnavailableError: if there was no answer in time; call it again.
            RunError: if the producer has failed for good.
        """
        try:
            self._client.init_transactions(ASK_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                raise ConfigurationError(
                    f"Kafka gives no right to WRITE on the transactional id {self.properties['transactional.id']}; "
                    f"grant it to the user, or check {named('delivery')} and {self.trouble.credentials}"
                ) from error
            if cause.retriable():
                raise UnavailableError(
                    f"Kafka did not let a transaction begin in time ({cause.str()}); check that the brokers are up"
                ) from error
            raise failure(error, "Beginning transactions") from error

    def commit_transaction(self, timeout: float) -> bool:
        """Commit what was produced; False if that takes more than `timeout` seconds: call it again.

        Raises:
            AbortableError: if the transaction can only be aborted.
            RunError: if the producer has failed for good.
        """
        return self._end_transaction(self._client.commit_transaction, timeout)

    def abort_transaction(self, timeout: float) -> bool:
        """Undo what was produced since the last commit; as `commit_transaction`."""
        return self._end_transaction(self._client.abort_transaction, timeout)

    @staticmethod
    def _end_transaction(end: Callable[[float], object], timeout: float) -> bool:
        try:
            end(timeout)
        except KafkaException as error:
            cause = error.args[0]
            if cause.retriable():
                return False
            if cause.txn_requires_abort():
                raise AbortableError(cause.str()) from error
            raise failure(error, "Ending a transaction") from error
        return True

    def purge(self, deadline: Deadline) -> None:
        """Give up all that is not delivered: each record gets a delivery report that says so, within `deadline`."""
        self._client.purge()
        while len(self._client):
            with contextlib.suppress(RunError):
                self.poll(min(0.1, deadline.remaining))
            if deadline.passed:
                return


class Asks(Protocol):
    """A client that can be asked about a topic."""

    properties: KafkaProperties
    trouble: Trouble
    list_topics: Callable[..., Any]

    def poll(self, timeout: float) -> object:
        """Serve callbacks for at most `timeout` seconds."""


def await_topic(client: Asks, topic: str, setting: str, startup: Startup, *, right: AclOperation) -> bool:
    """Wait until the cluster answers `client`, knows `topic` and gives `right` on it; False if the start is called off.

    The setting called `setting` gives the topic's name.

    Raises:
        ConfigurationError: if the topic, the credentials or a right is missing for longer than the grace.
        RunError: if no broker answered until the deadline.
    """

    def attempt() -> None:
        try:
            check_topic(client, topic, setting, right)
            check_right(client, topic, setting, right)
        finally:
            client.trouble.next_try()  # what happens in the pause is the next one's

    def poll(seconds: float) -> None:
        # A producer that may write nowhere at all fails for good; the next try says what is missing.
        with contextlib.suppress(RunError):
            client.poll(seconds)

    answered = persist(attempt, startup, poll)
    client.trouble.clear()
    return answered


def persist(ask: Callable[[], None], startup: Startup, poll: Callable[[float], object]) -> bool:
    """Ask until it succeeds; False if the start is called off.

    Raises:
        ConfigurationError: if it is refused for longer than the grace.
        RunError: if it was not available until the deadline.
    """
    grace_left: Deadline | None = None
    unanswered, told = 0, False
    while not startup.stopped():
        try:
            ask()
        except ConfigurationError as error:
            unanswered = 0
            if not startup.grace:
                raise
            if grace_left is None:
                grace_left = Deadline(startup.grace)
                log.warning("%s (trying again for %g s)", error, startup.grace, extra={"event": "kafka_refused"})
            elif grace_left.passed:
                raise
        except UnavailableError as error:
            if startup.deadline.passed:
                raise RunError(str(error)) from error
            if not unanswered and not told:
                told = True
                log.info(
                    "%s (trying again for %.0f s)",
                    error,
                    startup.deadline.remaining,
                    extra={"event": "kafka_unavailable"},
                )
            unanswered += 1
            if unanswered == _AWAY:
                # Who refused was on the way down, perhaps: whoever comes up again is given the whole grace.
                grace_left = None
        else:
            return True
        poll(_PAUSE)
    return False


def check_right(client: Asks, topic: str, setting: str, right: AclOperation, *, seconds: float = ASK_TIMEOUT) -> bool:
    """Look one's rights up without writing; False if the cluster does not tell them within `seconds`.

    Raises:
        ConfigurationError: if it says that `right` is missing.
    """
    rights = Inspector(client.properties, seconds).rights(topic)
    if rights and right not in rights:
        raise _no_right(client, f"the topic {topic}", setting, right)
    return bool(rights)


def _no_right(client: Asks, topic: str, setting: str, right: AclOperation) -> ConfigurationError:
    return ConfigurationError(
        f"Kafka gives no right to {right.name} on {topic}; grant it to the user, or check {named(setting)} and "
        f"{client.trouble.credentials}"
    )


def ask(client: Asks, topic: str) -> ClusterMetadata:
    """What the cluster tells about its brokers and about `topic`, which it need not have.

    Raises:
        ConfigurationError: if it refuses the client.
        UnavailableError: if no broker answered in time.
    """
    try:
        found: ClusterMetadata = client.list_topics(topic, timeout=ASK_TIMEOUT)
    except KafkaException as error:
        client.poll(0)
        client.trouble.check(client.properties)
        raise UnavailableError(
            f"No Kafka broker answered at {client.properties['bootstrap.servers']} ({client.trouble.reason}); check "
            f"{named('kafka_bootstrap_servers')} and that the brokers are up and reachable"
        ) from error
    return found


def described(cluster: ClusterMetadata, topic: str) -> TopicMetadata:
    """What an answer says of the topic that was asked for.

    Raises:
        UnavailableError: if it says nothing of it, or that it has no partition.
    """
    found: TopicMetadata | None = cluster.topics.get(topic)
    if found is None or not (found.error or found.partitions):
        raise UnavailableError(f"The brokers do not tell the partitions of the topic {topic}; check the brokers")
    return found


def check_topic(client: Asks, topic: str, setting: str, right: AclOperation) -> TopicMetadata:
    """What the cluster tells about `topic`, which the setting called `setting` names and where `right` is needed.

    Raises:
        ConfigurationError: if it refuses the client, has no such topic or shows none.
        UnavailableError: if no broker answered in time, or the topic cannot be had for now.
    """
    found = described(ask(client, topic), topic)
    if found.error is None:
        return found
    if found.error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        raise _no_right(client, f"the topic {topic}, or has no such topic", setting, right)
    if found.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
        raise ConfigurationError(f"The topic {topic} does not exist; create it, or check {named(setting)}")
    raise UnavailableError(f"The topic {topic} is not available ({found.error.str()}); check the brokers")
