"""The end of a run when Kafka is gone: under a deadline, and with what was lost named."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market, RestDrip, RestSilence, Skip
from tests.tools.loader import Loader, Workflow, workflow_on
from tests.tools.waiting import wait_for


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def workflow(broker: EmbeddedBroker) -> Iterator[Workflow]:
    with workflow_on(broker.bootstrap_servers, broker.create_topics) as made:
        yield made


def loaded_then_cut_off(workflow: Workflow, broker: EmbeddedBroker, exchange: Exchange, **variables: object) -> Loader:
    """A loader under load whose broker has gone."""
    loader = workflow.run(BINANCE_WS_URL=exchange.ws_url, BINANCE_REST_URL=exchange.rest_url, **variables)
    wait_for(lambda: len(workflow.records()) > 300, "300 records")
    broker.stop()
    market = exchange.markets[0]
    seen = market.last_id or 0
    wait_for(lambda: (market.last_id or 0) > seen + 500, "trades that nobody acknowledges")
    return loader


def check_ids_are_named(loader: Loader) -> None:
    [line] = [line for line in loader.errors.splitlines() if " ERROR   Error: Stopped by" in line]
    first, last = map(int, re.findall(r"not delivered: trade ids (\d+)-(\d+)", line)[0])
    assert last - first > 300
    assert "Traceback" not in loader.errors


def test_a_tail_that_cannot_be_delivered_is_named_at_the_deadline(workflow: Workflow, broker: EmbeddedBroker) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = loaded_then_cut_off(workflow, broker, exchange, SHUTDOWN_TIMEOUT="5")
        loader.process.terminate()
        assert loader.wait(15) == 1
    check_ids_are_named(loader)


def test_a_second_signal_ends_the_drain(workflow: Workflow, broker: EmbeddedBroker) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = loaded_then_cut_off(workflow, broker, exchange, SHUTDOWN_TIMEOUT="600")
        loader.process.terminate()
        loader.wait_for_line("Stopping")
        loader.process.send_signal(signal.SIGINT)
        assert loader.wait(30) == 1, "2 s are promised; without the second signal it would take 600"
    check_ids_are_named(loader)


def test_a_full_queue_holds_the_stream_back_and_loses_nothing(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=float("inf"), count=30_000, start="subscriber")]) as exchange:
        loader = workflow.run(
            "--max-records",
            "30000",
            "--kafka-queue-records",
            "100",
            BINANCE_WS_URL=exchange.ws_url,
            BINANCE_REST_URL=exchange.rest_url,
        )
        assert loader.wait() == 0
    assert workflow.events()[-1]["records_written"] == 30_000


def test_an_outage_beyond_the_limit_ends_the_run(workflow: Workflow, broker: EmbeddedBroker) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = loaded_then_cut_off(workflow, broker, exchange, KAFKA_OUTAGE_LIMIT="2", SHUTDOWN_TIMEOUT="4")
        assert loader.wait(30) == 1
    assert "No delivery acknowledged for 2 s" in loader.errors


def test_a_run_that_none_resumes_names_what_it_could_not_repair(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        to = {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
        loader = workflow.run(**to, RESUME="off", SHUTDOWN_TIMEOUT="5")
        wait_for(lambda: len(workflow.records()) > 200, "records")
        exchange.inflict(RestSilence())
        exchange.inflict(Skip(count=5))
        loader.wait_for_line("Repairing")
        loader.process.terminate()
        assert loader.wait(20) == 143
    last = loader.errors.splitlines()[-1]
    [named] = re.findall(r"missing trade ids (\d+)-(\d+) ", last)
    ids = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    first, end = map(int, named)
    assert end - first == 4
    assert ids == [trade_id for trade_id in range(ids[0], ids[-1] + 1) if not first <= trade_id <= end]
    assert ids[-1] > end, "what the gap held back was delivered"
    assert f"received {len(ids)}, delivered {len(ids)}," in last


def test_two_signals_end_a_start_that_waits_for_rest(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=100)], faults=[RestDrip(at=0, pause=1.0)]) as exchange:
        loader = workflow.run(BINANCE_WS_URL=exchange.ws_url, BINANCE_REST_URL=exchange.rest_url)
        wait_for(lambda: exchange.counters.requests, "the request for the symbol")
        loader.process.terminate()
        loader.process.terminate()
        assert loader.wait(5) == 143, "2 s are promised"
    assert "Traceback" not in loader.errors
