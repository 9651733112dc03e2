"""`audit` as a process on Apache Kafka: each planted fault is found, and nothing else."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from confluent_kafka import Producer

from loader_ws_trades.audit.scan import audit
from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka import reader as reading
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord
from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.loader import Loader, loader_with
from tests.tools.processes import limited, start
from tests.unit.test_examination import DAY, SYMBOL, Topic, time_of, value_of


def producer(kafka: Kafka, **properties: object) -> Producer:
    # Without idempotence a batch that is tried again may come behind the next one.
    return Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True, **properties})


def put(client: Producer, topic: str, records: Iterable[AnyRecord]) -> None:
    for partition, _, timestamp, value, key in records:
        client.produce(topic, value, key, partition=partition, timestamp=timestamp)
    assert client.flush(60) == 0


def topic_of(kafka: Kafka, *planted: Topic) -> str:
    """A topic with these partitions."""
    name = kafka.create_topic(f"audited-{uuid.uuid4().hex[:8]}", partitions=len(planted))
    client = producer(kafka)
    for part in planted:
        put(client, name, part.records)
    return name


def variables(servers: str, topic: str) -> dict[str, object]:
    return {"SYMBOL": SYMBOL.lower(), "KAFKA_TOPIC": topic, "KAFKA_BOOTSTRAP_SERVERS": servers, "STARTUP_GRACE": "1"}


def run(*flags: str, **environment: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `audit`."""
    return end_of(Loader("audit", *flags, **environment))


def end_of(process: Loader) -> tuple[int, str, str]:
    try:
        output = process.output()
        return process.wait(), output, process.errors
    finally:
        process.close()


def found_on(kafka: Kafka, topic: str, *flags: str, loader: type[Loader] = Loader) -> tuple[int, dict[str, Any]]:
    code, output, errors = end_of(loader("audit", "--json", *flags, **variables(kafka.bootstrap_servers, topic)))
    assert "Traceback" not in errors
    [line] = output.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["right"] == (code == 0)
    return code, found


def trades(*ids: int) -> Topic:
    topic = Topic()
    topic.put(*ids)
    return topic


def test_a_topic_in_order_is_right(kafka: Kafka) -> None:
    topic = topic_of(kafka, Topic(), trades(*range(100, 30_100)), Topic(partition=2))
    code, found = found_on(kafka, topic)
    assert code == 0
    del found["seconds"]
    nothing = {"records": 0, "stretches": 0, "listed": []}
    assert found == {
        "symbol": SYMBOL,
        "topic": topic,
        "right": True,
        "faults": [],
        "judged": {},
        "scanned": 30_000,
        "records": 30_000,
        "partitions": {"0": 30_000},
        "sequences": {
            "count": 1,
            "listed": [
                {
                    "first": {"trade_id": 100, "timestamp": time_of(100)},
                    "last": {"trade_id": 30_099, "timestamp": time_of(30_099)},
                }
            ],
        },
        "missing": {"ids": 0, "ranges": 0, "listed": []},
        "duplicates": nothing,
        "disorder": nothing,
        "filled_later": nothing,
        "malformed": {"records": 0, "listed": []},
        "other_symbols": {},
        "in_open_transaction": [],
    }


def part(found: dict[str, Any], kind: str) -> list[tuple[int, int, int]]:
    return [(stretch["first"], stretch["last"], stretch["offset"]) for stretch in found[kind]["listed"]]


def test_a_hole_is_named_with_the_command_that_fills_it(kafka: Kafka) -> None:
    topic = topic_of(kafka, trades(*range(100), *range(110, 200), *range(201, 300)))
    code, found = found_on(kafka, topic)
    assert (code, found["faults"]) == (1, ["missing ids"])
    command = f"loader-ws-trades backfill --symbol {SYMBOL} --kafka-topic {topic} --from-id"
    assert found["missing"] == {
        "ids": 11,
        "ranges": 2,
        "listed": [
            {"first": 100, "last": 109, "backfill": f"{command} 100 --to-id 109"},
            {"first": 200, "last": 200, "backfill": f"{command} 200 --to-id 200"},
        ],
    }


def test_duplicates_are_found(kafka: Kafka) -> None:
    code, found = found_on(kafka, topic_of(kafka, trades(*range(100), *range(40, 60), *range(100, 150))))
    assert (code, found["faults"]) == (1, ["duplicates"])
    assert part(found, "duplicates") == [(40, 59, 100)]


def test_disorder_is_found(kafka: Kafka) -> None:
    code, found = found_on(kafka, topic_of(kafka, trades(*range(100), 101, 100, *range(102, 150))))
    assert (code, found["faults"]) == (1, ["disorder"])
    assert part(found, "disorder") == [(100, 100, 101)]


def test_malformed_records_are_found(kafka: Kafka) -> None:
    planted = trades(*range(50))
    planted.put_raw(None, time_of(50))
    planted.put_raw(b"rubbish\x1b[2J", time_of(50))
    planted.put_raw(value_of(50, price=1e-7), time_of(50))
    planted.put_raw(value_of(51), time_of(51), b"BTCUSDT")
    planted.put_raw(value_of(52), time_of(52) + 5)
    planted.put(*range(53, 60))
    topic = topic_of(kafka, planted)
    code, found = found_on(kafka, topic)
    assert (code, found["faults"]) == (1, ["malformed records"])
    assert [bad["offset"] for bad in found["malformed"]["listed"]] == [50, 51, 52, 53, 54]
    code, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert code == 1
    assert "\x1b" not in output
    assert "partition 0, offset 52: the price 1e-07 is no plain decimal number" in output
    assert "Wrong: malformed records." in output


def test_where_the_broker_stamps_records_the_trades_own_times_count(kafka: Kafka) -> None:
    stamped = {"message.timestamp.type": "LogAppendTime"}
    topic = kafka.create_topic(f"audited-{uuid.uuid4().hex[:8]}", config=stamped)
    put(producer(kafka), topic, trades(*range(100, 5000)).records)
    code, found = found_on(kafka, topic)
    assert (code, found["records"]) == (0, 4900)
    code, found = found_on(kafka, topic, "--since", str(time_of(700)), "--until", str(time_of(1400)))
    assert (code, found["records"]) == (0, 700)


def test_other_symbols_are_counted(kafka: Kafka) -> None:
    planted = Topic()
    for number in range(100):
        planted.put(number)
        planted.put_raw(value_of(5, symbol="BTCUSDT"), DAY, b"BTCUSDT")
    topic = topic_of(kafka, planted)
    code, found = found_on(kafka, topic)
    assert (code, found["other_symbols"]) == (0, {"BTCUSDT": 100})
    environment = {**variables(kafka.bootstrap_servers, topic), "SYMBOL": "ethusdt"}
    code, output, _ = run(**environment)
    assert code == 0
    assert "holds no trade of ETHUSDT; other symbols: " in output


def test_what_was_filled_in_later_is_listed_and_right(kafka: Kafka) -> None:
    topic = topic_of(kafka, trades(*range(100), *range(150, 300), *range(100, 150), *range(300, 310)))
    code, found = found_on(kafka, topic)
    assert (code, found["faults"]) == (0, [])
    assert part(found, "filled_later") == [(100, 149, 250)]
    _, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert "100-149 at partition 0, offset 250" in output
    assert "All is right." in output


def test_a_reset_of_ids_begins_a_new_sequence(kafka: Kafka) -> None:
    planted = trades(*range(1_000_000, 1_000_100))
    for number in (3, 4, 5):
        planted.put(number, time=DAY + 86_400_000)
    code, found = found_on(kafka, topic_of(kafka, planted))
    assert (code, found["faults"]) == (0, [])
    ends = [(sequence["first"]["trade_id"], sequence["last"]["trade_id"]) for sequence in found["sequences"]["listed"]]
    assert ends == [(1_000_000, 1_000_099), (3, 5)]


def test_a_symbol_on_two_partitions_is_a_fault(kafka: Kafka) -> None:
    second = Topic(partition=1)
    second.put(*range(50, 100))
    code, found = found_on(kafka, topic_of(kafka, trades(*range(50)), second))
    assert (code, found["faults"]) == (1, ["several partitions"])
    assert found["partitions"] == {"0": 50, "1": 50}


def test_markers_and_aborted_records_are_no_holes(kafka: Kafka) -> None:
    topic = kafka.create_topic(f"audited-{uuid.uuid4().hex[:8]}")
    client = producer(kafka, **{"transactional.id": topic})
    client.init_transactions(20)
    for ids, end in ((range(50), "commit"), (range(50, 90), "abort"), (range(50, 100), "commit"), (range(9), "abort")):
        client.begin_transaction()
        put(client, topic, trades(*ids).records)
        (client.commit_transaction if end == "commit" else client.abort_transaction)(20)
    code, found = found_on(kafka, topic)
    assert (code, found["faults"], found["records"]) == (0, [], 100)
    code, found = found_on(kafka, topic, loader=loader_with("isolation.level=read_uncommitted"))
    assert (code, found["faults"]) == (1, ["duplicates"])


def test_what_an_open_transaction_hides_is_told(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = topic_of(kafka, trades(*range(100)))
    client = producer(kafka, **{"transactional.id": topic})
    client.init_transactions(20)
    client.begin_transaction()
    put(client, topic, trades(*range(100, 150)).records)
    put(producer(kafka), topic, trades(*range(150, 160)).records)
    monkeypatch.setattr(reading, "_STALL", 1.0)
    given = {"symbol": SYMBOL, "kafka_topic": topic, "kafka_bootstrap_servers": kafka.bootstrap_servers}
    audited = audit(load(given, needed=given), Bounds(), bar=False)
    assert audited.hidden == {0: 100}
    assert audited.findings.records == 100
    assert audited.exit_code == 0
    client.abort_transaction(20)


def test_an_empty_topic_is_right_unless_something_was_asked_for(kafka: Kafka) -> None:
    topic = topic_of(kafka, Topic())
    code, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert code == 0
    assert f"The topic {topic} holds no trade of {SYMBOL}." in output
    code, output, _ = run("--since", "2024-08-01", **variables(kafka.bootstrap_servers, topic))
    assert code == 1
    assert f"holds no trade of {SYMBOL} (since 2024-08-01T00:00:00.000Z)." in output
    assert found_on(kafka, topic, "--from-id", "5", "--to-id", "9")[1]["missing"]["ids"] == 5


def test_ranges_restrict_what_is_judged(kafka: Kafka) -> None:
    topic = topic_of(kafka, trades(*range(7000), *range(7100, 14_000), 13_999))
    assert found_on(kafka, topic)[1]["faults"] == ["missing ids", "duplicates"]
    assert found_on(kafka, topic, "--from-id", "0", "--to-id", "6999")[0] == 0
    assert found_on(kafka, topic, "--from-id", "0", "--to-id", "7000")[0] == 1
    code, found = found_on(kafka, topic, "--since", str(time_of(8400)), "--until", "2023-11-14T22:13:21.500Z")
    assert code == 0
    assert found["sequences"]["listed"][0]["first"]["trade_id"] == 8400
    assert found["sequences"]["listed"][0]["last"]["trade_id"] == 1500 * 7 - 1


def test_what_is_long_before_a_range_is_not_read(kafka: Kafka) -> None:
    late = 10_000_000  # more than 10 minutes after the first ones
    topic = topic_of(kafka, trades(*range(200), *range(late, late + 100)))
    code, found = found_on(kafka, topic, "--since", str(time_of(late)))
    assert (code, found["scanned"]) == (0, 100)


def test_the_brokers_are_not_there() -> None:
    code, _, errors = run(**variables("127.0.0.1:9", "t"), STARTUP_TIMEOUT="1")
    assert code == 1
    assert "Error: No Kafka broker answered" in errors
    assert "Traceback" not in errors


def test_the_topic_is_not_there(kafka: Kafka) -> None:
    code, output, errors = run(**variables(kafka.bootstrap_servers, "nobody-made-this"))
    assert (code, output) == (2, "")
    assert "The topic nobody-made-this does not exist; create it, or check KAFKA_TOPIC (--kafka-topic)" in errors


def test_no_right_to_read(kafka_cluster: Cluster) -> None:
    topic = kafka_cluster.create_topic(f"audited-{uuid.uuid4().hex[:8]}")
    kafka_cluster.grant("loader", topic, "WRITE", "DESCRIBE")
    put(producer(kafka_cluster), topic, trades(1).records)
    secured = {
        **variables(kafka_cluster.sasl_bootstrap_servers, topic),
        "KAFKA_USER_PRODUCER": "loader",
        "KAFKA_PASSWORD_PRODUCER": kafka_cluster.users["loader"],
        "CA_PATH": kafka_cluster.ca_path,
    }
    code, _, errors = run(**secured)
    assert code == 2
    assert f"Kafka gives no right to READ on the topic {topic}" in errors
    kafka_cluster.grant("loader", topic, "READ")
    assert run(**secured)[0] == 0


def test_faults_of_the_command_line_are_told_together() -> None:
    code, _, errors = run("--since", "yesterday", "--to-id", "-1", SYMBOL="btc/usdt", KAFKA_TOPIC="t")
    assert code == 2
    for named in ("SYMBOL (--symbol)", "KAFKA_BOOTSTRAP_SERVERS (", "--since is 'yesterday'", "--to-id is '-1'"):
        assert named in errors
    assert "QUEUE_ID" not in errors


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_has_left_changes_nothing(kafka: Kafka, form: list[str]) -> None:
    topic = topic_of(kafka, trades(1, 2, 5))
    process = Loader("audit", *form, **variables(kafka.bootstrap_servers, topic))
    try:
        assert process.process.stdout
        process.process.stdout.close()
        assert process.wait() == 1
        assert "BrokenPipe" not in process.errors
        assert "Traceback" not in process.errors
    finally:
        process.process.stdout = None
        process.close()


def test_ctrl_c_ends_it_without_a_trace(kafka: Kafka) -> None:
    process = Loader("audit", **variables(kafka.bootstrap_servers, "nobody-made-this") | {"STARTUP_GRACE": "10m"})
    try:
        process.wait_for_line("trying again")
        process.process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert "Traceback" not in process.errors
        assert process.errors.endswith("\nInterrupted.\n")
    finally:
        process.close()


@pytest.mark.parametrize(
    ("flags", "colours", "has_bar"), [([], True, True), ([], False, True), (["--no-progress"], True, False)]
)
def test_a_terminal_shows_how_far_it_is(kafka: Kafka, flags: list[str], colours: bool, has_bar: bool) -> None:
    topic = topic_of(kafka, trades(*range(100_000)))
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environment |= {name: str(value) for name, value in variables(kafka.bootstrap_servers, topic).items()}
    environment |= {"TERM": "xterm", "COLUMNS": "100"} | ({} if colours else {"NO_COLOR": "1"})
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "loader_ws_trades", "audit", *flags]
    with (
        start(command, env=environment, cwd=tempfile.gettempdir(), stdout=theirs, stderr=theirs) as process,
        limited(process),
    ):
        os.close(theirs)
        shown = b""
        try:
            while more := os.read(ours, 10_000):
                shown += more
        except OSError:
            pass  # how the end of a terminal is told
    os.close(ours)
    text = shown.decode()
    assert "All is right." in text
    assert ("records/s" in text) == has_bar
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", text)) == colours


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_topic_that_is_compacted_is_not_right(kafka: Kafka, policy: str) -> None:
    planted = Topic()
    planted.put(*range(100, 200))
    name = topic_of(kafka, planted)
    kafka.alter_topic(name, "cleanup.policy", policy)
    code, output, _ = run(**variables(kafka.bootstrap_servers, name))
    assert code == 1
    assert "Wrong: compacted topic." in output
    assert "cleanup.policy" in output
    code, output, _ = run("--json", **variables(kafka.bootstrap_servers, name))
    assert (code, json.loads(output)["faults"]) == (1, ["compacted topic"])
