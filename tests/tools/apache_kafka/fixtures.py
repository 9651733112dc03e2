"""A pytest plugin: the session's Apache Kafka, started when the first test asks for it.

- `TEST_KAFKA_BOOTSTRAP_SERVERS` brings a broker from outside; tests that need the cluster itself are skipped.
- Without Java or Kafka's jars, tests are skipped with what is missing, or fail if `REQUIRE_KAFKA` is 1.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

import pytest

from tests.tools.apache_kafka.client import Kafka
from tests.tools.apache_kafka.cluster import Cluster
from tests.tools.apache_kafka.distribution import UnavailableError, obtain

BROUGHT = "TEST_KAFKA_BOOTSTRAP_SERVERS"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fetch the jars before several processes, each with a cluster of its own, would do so at once."""
    if getattr(session.config.option, "numprocesses", None) and not os.environ.get(BROUGHT):
        with contextlib.suppress(UnavailableError):
            obtain()


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need Apache Kafka."""
    for item in items:
        if {"kafka", "kafka_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """A Kafka to make topics on and to connect to without credentials: ours, or one brought from outside."""
    servers = os.environ.get(BROUGHT)
    if not servers:
        cluster: Cluster = request.getfixturevalue("kafka_cluster")
        yield cluster
        return
    brought = Kafka(servers)
    yield brought
    for topic in tuple(brought.created):
        brought.delete_topic(topic)


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node, shared by the session's tests: leave it running."""
    if os.environ.get(BROUGHT):
        pytest.skip(f"needs a cluster of its own, and {BROUGHT} is set")
    missing = None
    try:
        obtain()
    except UnavailableError as error:
        missing = str(error)
    if missing is not None:
        refuse(missing, os.environ)
    with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def topic_name() -> Callable[[], str]:
    """Return a function that returns a new topic name each time."""
    return lambda: f"test-{uuid.uuid4().hex[:12]}"


def refuse(reason: str, environ: Mapping[str, str]) -> NoReturn:
    """Skip the test with the first line of `reason`, or fail it with all of them where Apache Kafka is required."""
    if environ.get("REQUIRE_KAFKA") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason.splitlines()[0])
