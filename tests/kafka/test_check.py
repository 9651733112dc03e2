"""`check` on Apache Kafka and a simulated exchange: all right, and each broken set-up named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from rich.console import Console

from loader_ws_trades.check.check import configuration
from loader_ws_trades.check.probes import Line, Outcome, Probe, attempt, exit_code, ok, skip, warn
from loader_ws_trades.check.report import Report
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.sandbox import Exchange, Market
from tests.tools import check_cases
from tests.tools.apache_kafka import Cluster
from tests.tools.check_cases import CASES, Case, Checked
from tests.tools.loader import Workflow, workflow_on
from tests.tools.rights import RIGHTS
from tests.tools.waiting import wait_for


@pytest.fixture(scope="module")
def attempts(
    request: pytest.FixtureRequest, kafka_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Checked]]]:
    """The outcomes, by the case's name, of all cases that are selected: they run several at once."""
    names = {item.callspec.params["case"].name for item in request.session.items if _is_case(item)}  # type: ignore[attr-defined]
    with (
        check_cases.setup(kafka_cluster, tmp_path_factory.mktemp("check")) as setup,
        ThreadPoolExecutor(check_cases.AT_ONCE) as pool,
    ):
        yield {case.name: pool.submit(setup.attempt, case) for case in CASES if case.name in names}


def _is_case(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == test_a_broken_setup_is_named.__name__


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_setup_is_named(case: Case, attempts: dict[str, Future[Checked]]) -> None:
    checked = attempts[case.name].result(120)
    assert checked.wrong is None, checked.wrong


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as made:
        yield made


@pytest.fixture
def workflow(kafka_cluster: Cluster, exchange: Exchange) -> Iterator[Workflow]:
    with workflow_on(kafka_cluster.bootstrap_servers, kafka_cluster.create_topic) as made:
        made.variables |= {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
        yield made


def secured(cluster: Cluster, workflow: Workflow) -> None:
    workflow.variables |= {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.sasl_bootstrap_servers,
        "KAFKA_USER_PRODUCER": "loader",
        "KAFKA_PASSWORD_PRODUCER": cluster.users["loader"],
        "CA_PATH": cluster.ca_path,
    }
    for right in RIGHTS:
        if right.kind == "TOPIC":
            cluster.grant("loader", str(workflow.variables[right.setting.upper()]), right.operation)


def test_all_is_right_beside_a_loader_that_is_not_fenced(kafka_cluster: Cluster, workflow: Workflow) -> None:
    secured(kafka_cluster, workflow)
    kafka_cluster.grant("loader", workflow.control_topic, "WRITE")
    workflow.variables["DELIVERY"] = "transactional"
    # The ids of all workflows, as README.md has it.
    prefix = f"loader-ws-trades.{workflow.queue_id}.POLUSDT"
    for kind in ("", ".check"):
        kafka_cluster.grant("loader", prefix + kind, "WRITE", kind="TRANSACTIONAL_ID")
    loader = workflow.run()
    wait_for(workflow.events, "the first event")
    wait_for(lambda: workflow.last_id() >= 0, "a trade")
    checking = workflow.start("check", COLUMNS="80", NO_COLOR="1")
    assert checking.wait() == 0, checking.output()
    shown = checking.output()
    before = workflow.last_id()
    wait_for(lambda: workflow.last_id() > before, "the loader to go on")
    workflow.stop()
    assert loader.wait() == 0
    assert "WARNING" not in loader.errors
    lines = shown.splitlines()
    assert lines[-1] == "All is right."
    assert {line[:4] for line in lines[:-2]} <= {"ok  ", "    "}, shown
    assert max(map(len, lines)) <= 80
    assert "goes on behind trade id" in shown
    assert checking.errors == ""


def test_nothing_is_written_to_the_topics_of_trades_and_events(workflow: Workflow) -> None:
    checking = workflow.start("check", "--json")
    assert checking.wait() == 0
    found = json.loads(checking.output())
    assert found["right"] is True
    assert {line["verdict"] for line in found["lines"]} == {"ok"}, found
    assert not workflow.records()
    assert not workflow.events()


def test_what_needs_a_failed_probe_is_skipped_and_all_else_is_tried() -> None:
    def fail() -> Outcome:
        raise UnavailableError("the exchange is away; wait")

    probes = [
        Probe("away", fail),
        Probe("needs it", lambda: ok(""), after=("away",)),
        Probe("needs that", lambda: ok(""), after=("needs it",)),
        Probe("needs a setting", lambda: ok(""), needs=("symbol",)),
        Probe("skipped", lambda: skip("by itself")),
        Probe("behind it", lambda: warn("as it may be"), after=("skipped",)),
    ]
    found = list(attempt(probes, {"symbol"}))
    assert [(line.verdict, line.text) for line in found] == [
        ("FAIL", "The exchange is away; wait"),
        ("skip", "not tried, because of: away"),
        ("skip", "not tried, because of: away"),
        ("skip", "not tried: needs SYMBOL (--symbol)"),
        ("skip", "by itself"),
        ("warn", "as it may be"),
    ]
    assert exit_code(found) == 1


def test_an_error_of_ours_is_a_line_too() -> None:
    def stumble() -> Outcome:
        raise ZeroDivisionError

    [line] = attempt([Probe("odd", stumble)], ())
    assert (line.verdict, line.exit_code) == ("FAIL", 1)


def test_what_is_wrong_is_left_out_and_the_rest_is_usable() -> None:
    made = configuration({"symbol": "btcusdt", "kafka_user_producer": "loader", "kafka_topic": "a b"})
    assert made.settings.symbol == "BTCUSDT"
    assert {"kafka_user_producer", "kafka_topic", "queue_id"} <= made.unusable
    assert "binance_ws_url" not in made.unusable
    assert any("KAFKA_TOPIC (--kafka-topic)" in fault for fault in made.faults)


def test_without_an_index_what_needs_the_symbol_is_unusable_and_all_else_is_not() -> None:
    given = {"symbols": "btcusdt,ethusdt", "kafka_topic": "trades-{symbol}", "telemetry_producer_id": "{symbol}"}
    given |= {"queue_id": "wf-1", "type": "ws_trade", "kafka_bootstrap_servers": "kafka:9092"}
    made = configuration(given)
    [fault] = made.faults
    assert fault.startswith("JOB_COMPLETION_INDEX (--job-completion-index) is not set")
    assert made.unusable >= {"symbol", "kafka_topic", "telemetry_producer_id"}
    assert made.unusable.isdisjoint({"queue_id", "kafka_bootstrap_servers", "queue_events_topic"})
    made = configuration(given | {"job_completion_index": "1"})
    assert (made.faults, made.unusable, made.settings.kafka_topic) == ((), frozenset(), "trades-ETHUSDT")


def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    text = "The brokers name addresses that cannot be reached: " + ", ".join(f"broker-{i}:9092" for i in range(20))
    report = Report(Console(width=80, highlight=False))
    lines = [Line("brokers", "FAIL", text, 1, 12.5), Line("symbol", "ok", text, 0, 0.01), Line("x", "skip", "no", 0, 0)]
    for line in lines:
        report.add(line)
    report.end(lines)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("broker-19:9092") == 2
    assert "12.5 s" in shown
    assert shown.splitlines()[-1] == "Mend this: brokers."
