"""`audit --archive` on Apache Kafka: 40,000 trades, loaded through a kill, compared with the exchange's archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from tests.tools import recorded
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Workflow, workflow_on
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

PLACE = 20_000  # the record that is changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def loaded(kafka: Kafka, folder: Path) -> Iterator[Workflow]:
    """A topic with all trades, the loader having been killed once."""
    frames = str(recorded.frames_file(folder))
    with workflow_on(kafka.bootstrap_servers, kafka.create_topic) as workflow:
        killed = workflow.start("replay", frames, "--speed", "200")
        wait_for(lambda: len(workflow.records()) > PLACE / 4, "records before the kill")
        killed.process.kill()
        assert killed.wait() == -9
        assert len(workflow.records()) < recorded.COUNT
        assert workflow.start("replay", frames, "--speed", "max", "--beyond").wait() == 0
        yield workflow


def audit(workflow: Workflow, *flags: str, **changed: object) -> tuple[int, str]:
    """Exit code and standard output."""
    loader = workflow.start("audit", *flags, **changed)
    code = loader.wait()
    assert "Traceback" not in loader.errors
    return code, loader.output()


def test_a_topic_with_every_trade_once_agrees(loaded: Workflow, folder: Path) -> None:
    archive = recorded.archive_file(folder)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    code, output = audit(loaded, "--archive", str(archive), "--json")
    found = json.loads(output)
    frames = recorded.frames(recorded.frames_file(folder))
    assert (code, found["faults"], found["ok"]) == (0, [], True)
    assert found["archive"] == {
        "files": [{"name": archive.name, "sha256": digest, "matches_checksum": True}],
        "first": {"trade_id": frames[0]["t"], "timestamp": frames[0]["T"]},
        "last": {"trade_id": frames[-1]["t"], "timestamp": max(frame["T"] for frame in frames)},
        "trades": recorded.COUNT,
        "agree": recorded.COUNT,
        "differ": {"ids": 0, "listed": []},
        "not_in_archive": {"ids": 0, "listed": []},
    }
    code, output = audit(loaded, "--archive", str(archive))
    assert code == 0
    assert f"{archive.name}, SHA-256 {digest} (matches {archive.name}.CHECKSUM)" in output
    assert f"No faults found. Each of the 40,000 trades of the archive, ids {frames[0]['t']}-" in output


Edit = Callable[[list[Message]], list[bytes]]


def one_digit_changed(messages: list[Message]) -> list[bytes]:
    values = [message.value() or b"" for message in messages]
    head, price, tail = values[PLACE].partition(b'"price":')
    digit = tail[2:3]
    values[PLACE] = head + price + tail[:2] + (b"3" if digit != b"3" else b"4") + tail[3:]
    return values


def one_missing(messages: list[Message]) -> list[bytes]:
    values = [message.value() or b"" for message in messages]
    return values[:PLACE] + values[PLACE + 1 :]


def one_double(messages: list[Message]) -> list[bytes]:
    values = [message.value() or b"" for message in messages]
    return [*values[: PLACE + 1], *values[PLACE:]]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (one_digit_changed, "trades that differ from the archive"),
        (one_missing, "missing ids"),
        (one_double, "duplicates"),
    ],
)
def test_each_fault_is_found_and_named(loaded: Workflow, kafka: Kafka, folder: Path, edit: Edit, fault: str) -> None:
    messages = loaded.records()
    topic = f"edited-{edit.__name__}"
    kafka.create_topic(topic)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True})
    for value in edit(messages):
        producer.produce(topic, value, b"POLUSDT", timestamp=json.loads(value)["timestamp"])
    assert producer.flush(60) == 0
    assert len(read_topic(kafka.bootstrap_servers, topic, last=2)) == 2
    trade_id = json.loads(messages[PLACE].value() or b"")["trade_id"]
    archive = str(recorded.archive_file(folder))
    code, output = audit(loaded, "--archive", archive, "--json", KAFKA_TOPIC=topic)
    found = json.loads(output)
    assert (code, found["faults"]) == (1, [fault])
    named: dict[str, Any] = {
        "trades that differ from the archive": found["archive"]["differ"]["listed"],
        "missing ids": found["missing"]["listed"],
        "duplicates": found["duplicates"]["listed"],
    }
    assert {name: len(listed) for name, listed in named.items() if listed} == {fault: 1}
    [listed] = named[fault]
    assert listed.get("trade_id", listed.get("first")) == trade_id
    assert found["archive"]["agree"] == recorded.COUNT - (fault != "duplicates")
    code, output = audit(loaded, "--archive", archive, KAFKA_TOPIC=topic)
    assert (code, f"Faults found: {fault}." in output) == (1, True)
    assert f"  {trade_id}" in output


def test_a_range_beside_an_archive_is_an_error(loaded: Workflow, folder: Path) -> None:
    loader = loaded.start("audit", "--archive", str(recorded.archive_file(folder)), "--from-id", "5")
    assert loader.wait() == 2
    assert "A range cannot be combined with --archive" in loader.errors
