"""The first contact with a cluster: retried while brokers are away, and for the grace period when they reject us."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import cache
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.admin import SHORT_TIMEOUT, TopicAdmin, topic_metadata
from loader_ws_trades.kafka.client import Client
from loader_ws_trades.kafka.errors import access_denied, error_text, no_broker
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.logs import Events

events = Events(logging.getLogger(__name__))

Operation = Literal["READ", "WRITE"]

_PAUSE = 0.25  # seconds between two attempts
SILENT = 3  # attempts without an answer after which the cluster need not show a topic's settings and permissions
_OUTAGE = 2  # attempts in a row without an answer after which an earlier rejection does not count any more


def await_topic(
    client: Client,
    topic: str,
    setting: str,
    startup: Startup,
    *,
    operation: Operation,
    check: Callable[[TopicSettings], None] | None = None,
) -> bool:
    """Wait until the cluster has `topic` and allows `operation` on it; False if the start is cancelled.

    The setting called `setting` names the topic, and `check` raises `ConfigurationError` for what the topic's own
    settings must not be.

    Raises:
        ConfigurationError: if the topic or the permission is missing, or the user rejected, beyond the grace period.
        RunError: if no broker answered until the deadline.
    """
    # Made when first used, and kept: an attempt may be too short to connect.
    admin = cache(lambda: TopicAdmin(client.properties, topic, patience=SILENT))

    def attempt() -> None:
        try:
            _check_topic(client, topic, setting, operation)
            allowed = admin().permissions()
            if allowed and operation not in allowed:
                raise access_denied(operation, f"the topic {topic}", setting, client.diagnosis.credentials)
            if check:
                check(admin().settings())
        finally:
            client.diagnosis.next_attempt()  # what is reported during the pause belongs to the next one

    answered = retry_until_ready(attempt, startup, client.poll)
    client.diagnosis.clear()
    return answered


def retry_until_ready(attempt: Callable[[], None], startup: Startup, poll: Callable[[float], object]) -> bool:
    """Repeat `attempt` until it succeeds, with a `poll` in between; False if the start is cancelled.

    Raises:
        ConfigurationError: if it is rejected for longer than the grace period.
        RunError: if it is unavailable until the deadline.
    """
    grace: Deadline | None = None
    unanswered, logged = 0, False
    while not startup.stopped():
        try:
            attempt()
        except ConfigurationError as error:
            unanswered = 0
            if not startup.grace or (grace and grace.passed):
                raise
            if grace is None:
                grace = Deadline(startup.grace)
                events.warn("kafka_refused", f"{error} (retrying for {startup.grace:g} s)")
        except UnavailableError as error:
            if startup.deadline.passed:
                raise RunError(str(error)) from error
            if not unanswered and not logged:
                logged = True
                events.info("kafka_unavailable", f"{error} (retrying for {startup.deadline.remaining:.0f} s)")
            unanswered += 1
            if unanswered == _OUTAGE:
                grace = None  # the broker that rejected us was shutting down, perhaps
        else:
            return True
        # A producer without any permission to write fails for good; the next attempt says which is missing.
        with contextlib.suppress(RunError):
            poll(_PAUSE)
    return False


def _check_topic(client: Client, topic: str, setting: str, operation: Operation) -> None:
    """Check that the cluster has `topic` and shows it to the user, who needs `operation` on it.

    Raises:
        ConfigurationError: if it rejects the client, has or shows no such topic, or the permission is missing.
        UnavailableError: if no broker answered in time, or the topic is unavailable for now.
    """
    try:
        cluster = client.list_topics(topic, timeout=SHORT_TIMEOUT)
    except KafkaException as error:
        client.poll(0)
        client.diagnosis.check(client.properties)
        raise no_broker(client.properties["bootstrap.servers"], client.diagnosis.reason) from error
    credentials, failure = client.diagnosis.credentials, topic_metadata(cluster, topic).error
    if failure is None:
        return
    if failure.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        raise access_denied(operation, f"the topic {topic}, or has no such topic", setting, credentials)
    if failure.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION):
        raise ConfigurationError(f"The topic {topic} does not exist; create it, or check {named(setting)}")
    raise UnavailableError(f"The topic {topic} is not available ({error_text(failure)}); check the brokers")
