"""A real Apache Kafka for tests: fetched by Maven, run on loopback, stopped, killed and frozen by tests.

No Docker and no installation: Java 17 or newer and Maven (the latter until the jars are cached in ``.cache/kafka``).
``python -m tests.tools.apache_kafka`` runs it in the foreground for people; `fixtures` gives it to tests.
"""

from tests.tools.apache_kafka.client import Kafka
from tests.tools.apache_kafka.cluster import Cluster
from tests.tools.apache_kafka.node import Node

__all__ = ["Cluster", "Kafka", "Node"]
