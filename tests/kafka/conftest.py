"""Workflows on Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.loader import Workflow, workflow_on


@pytest.fixture
def workflow(kafka: Kafka) -> Iterator[Workflow]:
    """A workflow that may do everything."""
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as made:
        yield made


@pytest.fixture
def secured(kafka_cluster: Cluster) -> Iterator[Workflow]:
    """A workflow whose user may do only what a test grants."""
    with workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as made:
        made.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_cluster.sasl_bootstrap_servers,
            "KAFKA_USER_PRODUCER": "loader",
            "KAFKA_PASSWORD_PRODUCER": kafka_cluster.users["loader"],
            "CA_PATH": kafka_cluster.ca_path,
        }
        yield made
