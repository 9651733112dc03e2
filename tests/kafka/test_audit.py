"""`audit` as a process on Apache Kafka."""

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
from pathlib import Path
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
from tests.unit.test_audit import DAY, START, SYMBOL, Topic, time_of, topic_of, value_of


def producer(kafka: Kafka, **properties: object) -> Producer:
    # Without idempotence a retried batch may be appended after the next one.
    return Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True, **properties})


def put(client: Producer, topic: str, records: Iterable[AnyRecord]) -> None:
    for partition, _, timestamp, value, key in records:
        client.produce(topic, value, key, partition=partition, timestamp=timestamp)
    assert client.flush(60) == 0


def created(kafka: Kafka, *partitions: Topic, **properties: str) -> str:
    """The name of a topic with these partitions."""
    name = f"audited-{uuid.uuid4().hex[:8]}"
    kafka.create_topic(name, partitions=len(partitions), config=properties)
    client = producer(kafka)
    for part in partitions:
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
    assert found["ok"] == (code == 0)
    return code, found


def test_trades_in_order_on_one_of_three_partitions(kafka: Kafka) -> None:
    topic = created(kafka, Topic(), topic_of(*range(100, 30_100)), Topic(partition=2))
    code, found = found_on(kafka, topic)
    assert code == 0
    del found["seconds"]
    nothing = {"records": 0, "ranges": 0, "listed": []}
    first = {"trade_id": 100, "timestamp": time_of(100)}
    last = {"trade_id": 30_099, "timestamp": time_of(30_099)}
    assert found == {
        "symbol": SYMBOL,
        "topic": topic,
        "ok": True,
        "faults": [],
        "range": {},
        "scanned": 30_000,
        "records": 30_000,
        "partitions": {"0": 30_000},
        "sequences": {"count": 1, "listed": [{"first": first, "last": last}]},
        "missing": {"ids": 0, "ranges": 0, "listed": []},
        "duplicates": nothing,
        "out_of_order": nothing,
        "filled_later": nothing,
        "malformed": {"records": 0, "listed": []},
        "other_symbols": {},
        "in_open_transaction": [],
    }


def test_every_kind_of_finding(kafka: Kafka) -> None:
    part = topic_of(*range(100), *range(110, 200), 201, 200, *range(150, 160))
    part.put_raw(value_of(202, price=1e-7), time_of(202))
    part.put_raw(b"rubbish\x1b[2J", time_of(203))
    part.put_raw(None, time_of(203))
    part.put_raw(value_of(5, symbol="BTCUSDT"), START, b"BTCUSDT")
    part.put(*range(203, 260), *range(300, 320), *range(260, 300))
    for number in (3, 4, 5, 7):
        part.put(number, time=START + DAY)
    topic = created(kafka, part)
    code, found = found_on(kafka, topic)
    assert (code, found["faults"]) == (1, ["missing ids", "duplicates", "out of order", "malformed records"])
    backfill = f"loader-ws-trades backfill --symbol {SYMBOL} --kafka-topic {topic} --from-id 6 --to-id 6"
    assert found["missing"]["listed"] == [{"first": 100, "last": 109}, {"first": 6, "last": 6, "backfill": backfill}]
    assert found["duplicates"]["listed"] == [{"first": 150, "last": 159, "partition": 0, "offset": 192}]
    assert found["out_of_order"]["listed"] == [{"first": 200, "last": 200, "partition": 0, "offset": 191}]
    assert found["filled_later"]["listed"] == [{"first": 260, "last": 299, "partition": 0, "offset": 283}]
    assert [bad["offset"] for bad in found["malformed"]["listed"]] == [202, 203, 204]
    assert [sequence["first"]["trade_id"] for sequence in found["sequences"]["listed"]] == [0, 3]
    assert found["other_symbols"] == {"BTCUSDT": 1}
    code, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert code == 1
    assert "\x1b" not in output
    for line in (
        "\n  100-109  10 ids\n  6  1 id\n",
        "\n  150-159  10 records  partition 0, offset 192\n",
        "\n  partition 0, offset 202  the price 1e-07 is ",
        f"\n  {backfill}\n",
        "\nFaults found: missing ids, duplicates, out of order, malformed records.\n",
    ):
        assert line in output


def test_where_the_broker_stamps_records_the_times_of_the_trades_count(kafka: Kafka) -> None:
    topic = created(kafka, topic_of(*range(100, 5000)), **{"message.timestamp.type": "LogAppendTime"})
    assert found_on(kafka, topic)[1]["records"] == 4900
    code, found = found_on(kafka, topic, "--since", str(time_of(700)), "--until", str(time_of(1400)))
    assert (code, found["records"]) == (0, 700)


def test_the_report_shows_the_lag_where_the_broker_stamps_records(kafka: Kafka, tmp_path: Path) -> None:
    appended = created(kafka, topic_of(*range(100, 5000), 5100), **{"message.timestamp.type": "LogAppendTime"})
    stamped = created(kafka, topic_of(*range(100, 5000)))
    path = tmp_path / "report.html"
    for topic, code, lag in ((appended, 1, "99 % of trades are faster"), (stamped, 0, "Not known")):
        assert run("--html", str(path), **variables(kafka.bootstrap_servers, topic))[0] == code
        text = path.read_text("utf-8")
        assert f"<span>on {topic}</span>" in text
        assert lag in text
    code, _, errors = run("--html", str(tmp_path), **variables(kafka.bootstrap_servers, stamped))
    assert (code, "which cannot be written; give a file" in errors) == (2, True)


def test_transaction_markers_and_aborted_records_are_not_gaps(kafka: Kafka) -> None:
    topic = created(kafka, Topic())
    client = producer(kafka, **{"transactional.id": topic})
    client.init_transactions(20)
    for ids, end in ((range(50), "commit"), (range(50, 90), "abort"), (range(50, 100), "commit"), (range(9), "abort")):
        client.begin_transaction()
        put(client, topic, topic_of(*ids).records)
        (client.commit_transaction if end == "commit" else client.abort_transaction)(20)
    code, found = found_on(kafka, topic)
    assert (code, found["faults"], found["records"]) == (0, [], 100)
    code, found = found_on(kafka, topic, loader=loader_with("isolation.level=read_uncommitted"))
    assert (code, found["faults"]) == (1, ["duplicates"])


def test_the_records_before_an_open_transaction_are_audited(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = created(kafka, topic_of(*range(100)))
    client = producer(kafka, **{"transactional.id": topic})
    client.init_transactions(20)
    client.begin_transaction()
    put(client, topic, topic_of(*range(100, 150)).records)
    put(producer(kafka), topic, topic_of(*range(150, 160)).records)
    monkeypatch.setattr(reading, "_STALL", 1.0)
    given = {"symbol": SYMBOL, "kafka_topic": topic, "kafka_bootstrap_servers": kafka.bootstrap_servers}
    found = audit(load(given, needed=given), Bounds(), bar=False)
    assert found.hidden == {0: 100}
    assert found.records == 100
    assert found.exit_code == 0
    client.abort_transaction(20)


def test_no_trades_are_a_fault_only_in_a_range(kafka: Kafka) -> None:
    part = Topic()
    part.put_raw(value_of(5, symbol="BTCUSDT"), START, b"BTCUSDT")
    topic = created(kafka, part)
    code, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert code == 0
    assert f"The topic {topic} has no trades of {SYMBOL}; other symbols: BTCUSDT 1." in output
    code, output, _ = run("--since", "2023-08-01", **variables(kafka.bootstrap_servers, topic))
    assert code == 1
    assert f"has no trades of {SYMBOL} (since 2023-08-01T00:00:00.000Z)" in output
    assert found_on(kafka, topic, "--from-id", "5", "--to-id", "9")[1]["missing"]["ids"] == 5


def test_a_range_of_ids_or_times(kafka: Kafka) -> None:
    late = 10_000_000  # more than 10 minutes after the first ones
    topic = created(kafka, topic_of(*range(7000), *range(7100, 14_000), 13_999, *range(late, late + 100)))
    assert found_on(kafka, topic, "--from-id", "0", "--to-id", "6999")[0] == 0
    assert found_on(kafka, topic, "--from-id", "0", "--to-id", "7000")[0] == 1
    code, found = found_on(kafka, topic, "--since", str(time_of(8400)), "--until", "2023-11-14T22:13:21.500Z")
    assert code == 0
    assert found["range"] == {"since": time_of(8400), "until": START + 1500}
    assert found["sequences"]["listed"][0]["first"]["trade_id"] == 8400
    assert found["sequences"]["listed"][0]["last"]["trade_id"] == 1500 * 7 - 1
    found = found_on(kafka, topic, "--since", str(time_of(late)))[1]
    assert found["scanned"] == 100, "what is long before the range is not read"


def test_errors(kafka: Kafka) -> None:
    code, _, errors = run(**variables("127.0.0.1:9", "t"), STARTUP_TIMEOUT="1")
    assert code == 1
    assert "Error: No Kafka broker answered" in errors
    assert "Traceback" not in errors
    code, output, errors = run(**variables(kafka.bootstrap_servers, "missing-topic"))
    assert (code, output) == (2, "")
    assert "The topic missing-topic does not exist; create it, or check KAFKA_TOPIC (--kafka-topic)" in errors


def test_the_user_may_not_read_the_topic(kafka_cluster: Cluster) -> None:
    topic = kafka_cluster.create_topic(f"audited-{uuid.uuid4().hex[:8]}")
    kafka_cluster.grant("loader", topic, "WRITE", "DESCRIBE")
    put(producer(kafka_cluster), topic, topic_of(1).records)
    secured = {
        **variables(kafka_cluster.sasl_bootstrap_servers, topic),
        "KAFKA_USER_PRODUCER": "loader",
        "KAFKA_PASSWORD_PRODUCER": kafka_cluster.users["loader"],
        "CA_PATH": kafka_cluster.ca_path,
    }
    code, _, errors = run(**secured)
    assert code == 2
    assert f"READ on the topic {topic}" in errors
    kafka_cluster.grant("loader", topic, "READ")
    assert run(**secured)[0] == 0


def test_all_faults_of_the_command_line_are_reported_at_once() -> None:
    code, _, errors = run("--since", "yesterday", "--to-id", "-1", SYMBOL="btc/usdt", KAFKA_TOPIC="t")
    assert code == 2
    for named in ("SYMBOL (--symbol)", "KAFKA_BOOTSTRAP_SERVERS (", "--since ", "--to-id "):
        assert named in errors
    assert "QUEUE_ID" not in errors


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_reader_of_standard_output_may_leave(kafka: Kafka, form: list[str]) -> None:
    process = Loader("audit", *form, **variables(kafka.bootstrap_servers, created(kafka, topic_of(1, 2, 5))))
    try:
        assert process.process.stdout
        process.process.stdout.close()
        assert process.wait() == 1
        assert "BrokenPipe" not in process.errors
        assert "Traceback" not in process.errors
    finally:
        process.process.stdout = None
        process.close()


def test_ctrl_c(kafka: Kafka) -> None:
    process = Loader("audit", **variables(kafka.bootstrap_servers, "missing-topic") | {"STARTUP_GRACE": "10m"})
    try:
        process.wait_for_line("missing-topic")
        process.process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert "Traceback" not in process.errors
        assert process.errors.endswith("\nInterrupted.\n")
    finally:
        process.close()


@pytest.mark.parametrize(
    ("flags", "colours", "has_bar"), [([], True, True), ([], False, True), (["--no-progress"], True, False)]
)
def test_the_progress_bar_and_colours_on_a_terminal(
    kafka: Kafka, flags: list[str], colours: bool, has_bar: bool
) -> None:
    topic = created(kafka, topic_of(*range(20_000)))
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
            pass  # the end of a terminal
    os.close(ours)
    text = shown.decode()
    assert "No faults found." in text
    assert ("auditing  " in text) == has_bar
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", text)) == colours


def test_a_compacted_topic_is_a_fault(kafka: Kafka) -> None:
    topic = created(kafka, topic_of(*range(100, 200)))
    kafka.alter_topic(topic, "cleanup.policy", "compact,delete")
    code, output, _ = run(**variables(kafka.bootstrap_servers, topic))
    assert code == 1
    assert "Faults found: compacted topic." in output
    assert "set its cleanup.policy to delete" in output
    assert found_on(kafka, topic)[1]["faults"] == ["compacted topic"]


def test_several_pairs_on_a_topic_or_a_topic_each(kafka: Kafka) -> None:
    part = topic_of(*range(100, 200))
    for number in (*range(10), 20):
        part.put_raw(value_of(number, symbol="POLBTC"), time_of(number), b"POLBTC")
    topic = created(kafka, part)
    given: dict[str, object] = {"KAFKA_TOPIC": topic, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    code, output, errors = run("--json", SYMBOLS="POL*", **given)
    found = [json.loads(line) for line in output.splitlines()]
    assert [(one["symbol"], one["ok"], one["missing"]["ids"]) for one in found] == [
        ("POLBTC", False, 10),
        (SYMBOL, True, 0),
    ]
    assert (code, errors.count("Auditing")) == (1, 1)
    assert run(SYMBOLS=f"{SYMBOL},NONESUCH", **given)[0] == 0
    prefix = f"each-{uuid.uuid4().hex[:8]}"
    for symbol, last in ((SYMBOL, 200), ("POLBTC", 300)):
        kafka.create_topic(f"{prefix}-{symbol}")
        part = Topic()
        for number in range(100, last):
            part.put_raw(value_of(number, symbol=symbol), time_of(number), symbol.encode())
        put(producer(kafka), f"{prefix}-{symbol}", part.records)
    given["KAFKA_TOPIC"] = f"{prefix}-{{symbol}}"
    code, output, _ = run("--json", SYMBOLS=f"{SYMBOL},POLBTC", **given)
    assert (code, [json.loads(line)["records"] for line in output.splitlines()]) == (0, [100, 200])
    code, _, errors = run(SYMBOLS="*", **given)
    assert (code, "must name the pairs to audit; list them in place of patterns" in errors) == (2, True)
    code, _, errors = run("--html", "report.html", SYMBOLS="*", **given)
    assert (code, "this command takes one pair" in errors) == (2, True)
