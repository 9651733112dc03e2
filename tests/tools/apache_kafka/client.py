"""A Kafka as its clients see it: an address, and topics."""

from collections.abc import Mapping
from functools import cached_property

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # no export is marked
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.tools.apache_kafka.node import QUIET
from tests.tools.waiting import wait_for

ANSWER_TIMEOUT = 60.0


class Kafka:
    """A Kafka reachable at a plaintext address, whoever runs it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.created: set[str] = set()

    @cached_property
    def admin(self) -> AdminClient:
        """An admin client by the plaintext listener."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, **QUIET})

    def create_topic(
        self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None, replication: int = 1
    ) -> str:
        """Create a topic, wait until each of its partitions has a leader, and return its name."""
        topic = NewTopic(name, partitions, replication, config=dict(config or {}))
        self.admin.create_topics([topic])[name].result(ANSWER_TIMEOUT)
        self.created.add(name)
        wait_for(lambda: self._leaders(name) == partitions, f"topic {name} to have its leaders")
        return name

    def alter_topic(self, topic: str, name: str, value: str) -> None:
        """Set a setting of a topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        for answer in self.admin.incremental_alter_configs([resource]).values():
            answer.result(ANSWER_TIMEOUT)

    def delete_topic(self, name: str) -> None:
        """Delete a topic and wait until it is gone; one that does not exist is gone already."""
        try:
            self.admin.delete_topics([name])[name].result(ANSWER_TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        self.created.discard(name)
        wait_for(lambda: self._leaders(name) == 0, f"topic {name} to be gone")

    def _leaders(self, topic: str) -> int:
        partitions = self.admin.list_topics(topic, timeout=ANSWER_TIMEOUT).topics[topic].partitions
        return sum(partition.leader >= 0 for partition in partitions.values())
