"""The end of a run when Kafka is gone: under a deadline, and with what was lost named."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
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


def test_an_outage_beyond_the_limit_ends_the_run(workflow: Workflow, broker: EmbeddedBroker) -> None:
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = loaded_then_cut_off(workflow, broker, exchange, KAFKA_OUTAGE_LIMIT="2", SHUTDOWN_TIMEOUT="4")
        assert loader.wait(30) == 1
    assert "No delivery acknowledged for 2 s" in loader.errors
