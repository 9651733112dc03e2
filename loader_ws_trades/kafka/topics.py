"""Looks up many topics at once: which of them cannot take the trades of their pair."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, LoaderError
from loader_ws_trades.kafka.admin import LONG_TIMEOUT, TopicAdmin
from loader_ws_trades.kafka.client import Client
from loader_ws_trades.kafka.errors import access_denied, error_text, no_broker
from loader_ws_trades.kafka.properties import KafkaProperties, batch_size
from loader_ws_trades.kafka.startup import SILENT, retry_until_ready
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.lifecycle import Startup


def check_topics(
    properties: KafkaProperties, topics: Sequence[str], startup: Startup, *, credentials: str
) -> dict[str, LoaderError]:
    """Why topics cannot be written to, by topic, once all can or the grace period is over.

    Waits for brokers that are away, and so is not for the main thread.

    Raises:
        RunError: if no broker answered until the deadline.
    """
    client = Client(AdminClient, properties, credentials)
    admin = TopicAdmin(properties, topics[0], seconds=LONG_TIMEOUT, patience=SILENT) if topics else None
    size = batch_size(properties)
    refused: dict[str, LoaderError] = {}

    def look() -> None:
        refused.clear()
        refused.update((topic, _does_not_exist(topic)) for topic in _missing(client, topics))
        present = [topic for topic in topics if topic not in refused]
        if admin and present:
            for topic, allowed in admin.permissions_of(present).items():
                if allowed and "WRITE" not in allowed:
                    refused[topic] = access_denied("WRITE", f"the topic {topic}", "kafka_topic", credentials)
            for found in admin.settings_of(present):
                if fault := _fault(found, size):
                    refused.setdefault(found.topic, fault)
        if refused:
            raise refused[min(refused)]

    with contextlib.suppress(ConfigurationError):  # of some of the pairs
        retry_until_ready(look, startup, threading.Event().wait)
    return refused


def _missing(client: Client, topics: Sequence[str]) -> set[str]:
    try:
        cluster: ClusterMetadata = client.list_topics(timeout=LONG_TIMEOUT)
    except KafkaException as error:
        raise no_broker(client.properties["bootstrap.servers"], error_text(error)) from error
    return {topic for topic in topics if topic not in cluster.topics or cluster.topics[topic].error}


def _does_not_exist(topic: str) -> ConfigurationError:
    return ConfigurationError(
        f"The topic {topic} does not exist, or the user may not see it; create it, or check {named('kafka_topic')}"
    )


def _fault(found: TopicSettings, size: int) -> ConfigurationError | None:
    try:
        found.check("kafka_topic")
    except ConfigurationError as error:
        return error
    if found.max_batch_size >= size:
        return None
    return ConfigurationError(
        f"The topic {found.topic} accepts at most {found.max_batch_size:.0f} bytes at once; raise its "
        f"max.message.bytes, or lower batch.size with {named('kafka_properties')}"
    )
