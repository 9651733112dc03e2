"""`/metrics` of a loader process: each metric follows what it counts."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

import loader_ws_trades
from loader_ws_trades.binance.disconnects import REASONS
from loader_ws_trades.monitoring.metrics import METRICS
from loader_ws_trades.sandbox import (
    Duplicate,
    Exchange,
    Fault,
    Hole,
    Malformed,
    Market,
    ServerShutdown,
    Skip,
)
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.loader import Loader, Workflow, check_events, urls
from tests.tools.scrape import Samples, ask, scrape
from tests.tools.waiting import wait_for


@pytest.fixture
def port(workflow: Workflow) -> int:
    workflow.variables["METRICS_PORT"] = found = free_port()
    return found


def wait_until(port: int, name: str, least: float, seconds: float = 60, **labels: str) -> Samples:
    """The first scrape in which a sample has come to a value."""

    def reached() -> Samples | None:
        try:
            found = scrape(port)
        except OSError:
            return None  # not up yet
        return found if (found.get(name, **labels) or 0) >= least else None

    found = wait_for(reached, f"{name} {labels} of {least:g}", seconds)
    assert found is not None
    return found


def ended(loader: Loader, workflow: Workflow) -> None:
    workflow.stop()
    assert loader.wait() == 0, loader.errors


def test_metrics_of_a_healthy_run(workflow: Workflow, port: int) -> None:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        url = exchange.ws_url.replace("ws://", "ws://someone:hush-hush-url@")
        given = urls(exchange) | {"BINANCE_WS_URL": url}
        loader = workflow.run("-X", "ssl.key.password=hush-hush-property", **given)
        now = wait_until(port, "delivered_total", 1000)
        text = ask(port, "/metrics").text
        openmetrics = ask(port, "/metrics?name=x", accept="application/openmetrics-text; version=1.0.0")
        unknown = ask(port, "/else")
        if socket.has_dualstack_ipv6():
            assert scrape(port, "[::1]").state == "loading"
        ended(loader, workflow)
    assert not [secret for secret in loader.secrets if secret in text + openmetrics.text]
    assert loader.secrets >= {"hush-hush-url", "hush-hush-property"}
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert "loader_ws_trades_received" in {family.name for family in openmetrics_families(openmetrics.text)}  # type: ignore[no-untyped-call]
    assert (unknown.status, unknown.text) == (404, "Try /metrics or /healthz\n")
    assert now("received_total") >= now("delivered_total")
    assert now("received_total") - now("in_flight") - now("delivered_total") < 100
    assert now.state == "loading"
    assert 0 <= now("last_trade_age_seconds") < 60
    assert 0 < now("connection_age_seconds") < 60
    assert now("feed_outage_seconds") == 0
    assert now("kafka_outage_seconds") < 5
    assert now("rest_weight_used") == 20  # the check of the symbol
    assert now("gaps_total") == now("missing_ids_total") == now("duplicates_total") == now("kafka_outages_total") == 0
    assert {reason: now("reconnects_total", reason=reason) for reason in REASONS} == dict.fromkeys(REASONS, 0)
    assert (
        now(
            "info",
            version=loader_ws_trades.__version__,
            queue_id=workflow.queue_id,
            symbol="POLUSDT",
            type="ws_trade",
            producer=str(workflow.variables["TELEMETRY_PRODUCER_ID"]),
        )
        == 1
    )
    assert now("process_resident_memory_bytes") > 1e6
    for metric in METRICS:
        assert f"# TYPE {metric.name} {metric.kind}\n" in text
        assert f"# HELP {metric.name} {metric.meaning}\n" in text
    with pytest.raises(OSError, match="refused"):
        ask(port, "/metrics")


def test_faults_of_the_stream_are_counted(workflow: Workflow, port: int) -> None:
    faults: list[Fault] = [Malformed(60, after=200), Duplicate(7, after=400), Skip(25, after=600), Hole(8, after=1400)]
    with Exchange([Market.generated("POLUSDT", rate=500, start="subscriber")], faults=faults) as exchange:
        loader = workflow.run(**urls(exchange), REPAIR_DEADLINE="1")
        now = wait_until(port, "missing_ids_total", 8)
        exchange.inflict(ServerShutdown(lead=5.0))
        wait_until(port, "reconnects_total", 1, reason="server_shutdown")
        ended(loader, workflow)
    samples = now.families["loader_ws_trades_refused_frames"].samples
    assert sum(sample.value for sample in samples if sample.name.endswith("_total")) == 60
    assert now("duplicates_total") == 7
    assert (now("gaps_total"), now("missing_ids_total")) == (2, 8)
    assert 25 <= now("repaired_ids_total") <= 50, "REST may be a little ahead of the stream"
    assert now("rest_weight_used") >= 20 + 2 * 25, "the check of the symbol and at least two requests for trades"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_port_in_use_ends_the_start_with_an_event(workflow: Workflow, port: int, host: str) -> None:
    with closing(socket.create_server((host, port))):
        loader = workflow.run(STARTUP_TIMEOUT="2")
        assert loader.wait() == 1, "who has it may let go of it: running again may help"
    assert_one_error(workflow, loader, "METRICS_PORT (--metrics-port)")
    assert "Address already in use" in loader.errors


def test_a_port_in_use_is_retried(workflow: Workflow, port: int) -> None:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        with closing(socket.create_server(("0.0.0.0", port))):
            loader = workflow.run(**urls(exchange))
            loader.wait_for_line("METRICS_PORT (--metrics-port) to a free one (retrying for")
            assert not exchange.counters.connections
        wait_until(port, "delivered_total", 100)
        ended(loader, workflow)
    check_events(workflow.events(), workflow, "interrupted")


def test_a_heartbeat_file_that_cannot_be_written_ends_the_start_with_an_event(
    workflow: Workflow, tmp_path: Path
) -> None:
    loader = workflow.run(HEARTBEAT_FILE=tmp_path, STARTUP_GRACE="0.1")
    assert loader.wait() == 2
    assert_one_error(workflow, loader, "HEARTBEAT_FILE (--heartbeat-file)")
    assert str(tmp_path) not in loader.errors, "a password may be there by mistake"


def assert_one_error(workflow: Workflow, loader: Loader, text: str) -> None:
    """An `error` without a `started`, that says what the log says."""
    [event] = workflow.events()
    assert event["status"] == "error"
    assert event["finished"] is True
    assert text in event["message"]
    [line] = [line for line in loader.errors.splitlines() if " ERROR " in line]
    assert event["message"] in line


def test_backfill_and_replay_have_metrics_too(workflow: Workflow, port: int) -> None:
    market = Market.generated("POLUSDT", rate=100, past=6000)
    with Exchange([market]) as exchange:
        first = market.first_id
        # Six pages of weight 25 after 45 for the look-ups: half of the limit is used at once, then it waits.
        loader = workflow.start(
            "backfill", "--from-id", str(first), "--to-id", str(first + 5500), "--beyond", "--no-scan",
            **urls(exchange), REST_WEIGHT_LIMIT="200",
        )  # fmt: skip
        now = wait_until(port, "repaired_ids_total", 1000)
        assert now.state == "loading"
        assert now("rest_weight_used") >= 25
        assert now("connection_age_seconds") == now("feed_outage_seconds") == 0
        assert ask(port, "/healthz").status == 200
        workflow.stop()
        assert loader.wait() == 0


def test_the_library_is_imported_only_where_metrics_are_served() -> None:
    script = (
        "import sys; from loader_ws_trades.cli import main; from loader_ws_trades.kafka import publisher; "
        "from loader_ws_trades.monitoring import progress; from loader_ws_trades.run import live, service, stdout; "
        "sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
