"""The tests' own Apache Kafka: what other tests rely on."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from loader_ws_trades.cli.options import collect
from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka.distribution import REPOSITORY
from tests.tools.apache_kafka.fixtures import refuse
from tests.tools.processes import limited, start
from tests.tools.waiting import wait_for

TIMEOUT = 30.0


def write(config: dict[str, Any], topic: str, *values: bytes) -> None:
    """Write values and wait until each is acknowledged."""
    answers: list[KafkaError | None] = []
    producer = Producer({**config, "log_level": 0})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: answers.append(error))
    producer.flush(TIMEOUT)
    assert answers == [None] * len(values)


def read(config: dict[str, Any], topic: str, count: int) -> list[bytes | None]:
    """Read the first values of a topic's only partition."""
    consumer = Consumer({**config, "group.id": "none", "auto.offset.reset": "error", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(count, TIMEOUT)
    consumer.close()
    assert [message.error() for message in messages] == [None] * count
    return [message.value() for message in messages]


def test_broker_that_is_frozen_or_killed_comes_back_with_what_it_acknowledged(
    kafka_cluster: Cluster, tmp_path: Path, topic_name: Callable[[], str]
) -> None:
    # A cluster of its own: a fault here must not affect the next tests.
    assert kafka_cluster.nodes, "Apache Kafka is available"
    with Cluster(tmp_path) as cluster:
        plaintext = {"bootstrap.servers": cluster.bootstrap_servers}
        topic = cluster.create_topic(topic_name())
        (node,) = cluster.nodes
        write(plaintext, topic, b"before")
        node.freeze()
        wait_for(lambda: not answers(cluster), "the broker to be frozen")
        assert node.running
        node.thaw()
        node.wait_ready()
        first_life = node.pid
        node.kill()
        wait_for(lambda: not node.running, "the broker to be gone")
        node.start()
        assert node.pid != first_life
        write(plaintext, topic, b"after")
        assert read(plaintext, topic, 2) == [b"before", b"after"]


def answers(cluster: Cluster) -> bool:
    """Whether the cluster answers within half a second."""
    try:
        cluster.admin.list_topics(timeout=0.5)
    except KafkaException:
        return False
    return True


def test_foreground_run_prints_a_file_of_variables_and_ends_by_sigterm(kafka_cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.tools.apache_kafka", "my-trades"]
    with (
        start(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as foreground,
        limited(foreground, 2 * TIMEOUT),
    ):
        assert foreground.stdout is not None
        file = tmp_path / "kafka.env"
        with file.open("w") as written:
            for line in foreground.stdout:
                written.write(line)
                if line.startswith("export CA_PATH="):
                    break
        shown, faults, notes = collect({}, str(file))
        assert not faults
        assert not notes
        assert Path(shown["ca_path"]).exists()
        secured = {
            **kafka_cluster.secured("loader"),
            "bootstrap.servers": shown["kafka_bootstrap_servers"],
            "sasl.password": shown["kafka_password_producer"],
            "ssl.ca.location": shown["ca_path"],
        }
        write(secured, shown["kafka_topic"], b"trade")
        foreground.send_signal(signal.SIGTERM)
        assert foreground.wait(TIMEOUT) == 0
    assert not Path(shown["ca_path"]).exists()


@pytest.mark.parametrize("installed", [True, False])
def test_make_adds_nothing_to_what_is_printed(installed: bool, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "python"
    stub.write_text('#!/bin/sh\ncase "$*" in "-m tests.tools.apache_kafka") echo "export KAFKA_TOPIC=t";; esac\n')
    stub.chmod(0o755)
    if installed:
        (tmp_path / ".ready").touch()
    command = ["make", "kafka", f"VENV={tmp_path}", f"PYTHON={stub}"]
    # Within `make test` a nested make prints which folder it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    printed = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert printed.stdout == "export KAFKA_TOPIC=t\n"


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    # The pipe ends once all its writers have died.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    output = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code = (
        "import pathlib, sys; from tests.tools.processes import GuardedProcess;"
        "child = GuardedProcess(['sh', '-c', 'echo up; exec sleep 600'], pathlib.Path(sys.argv[1]));"
        "print('guarded', flush=True); child.wait()"
    )
    command = [sys.executable, "-c", code, str(pipe)]
    with start(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as parent, limited(parent):
        assert next_output(output) == b"up\n"
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"guarded\n"
        parent.kill()
    assert next_output(output) == b""
    os.close(output)


def test_unavailable_broker_skips_unless_it_is_required() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"^no java$"):
        refuse("no java\nand more", {})
    with pytest.raises(pytest.fail.Exception, match="and more"):
        refuse("no java\nand more", {"REQUIRE_KAFKA": "1"})


def next_output(descriptor: int) -> bytes:
    """The next output; empty at the end."""
    ready, _, _ = select.select([descriptor], [], [], TIMEOUT)
    assert ready
    return os.read(descriptor, 100)
