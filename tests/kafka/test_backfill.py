"""`backfill` from REST: exactly the trades missing on the topic, however often it runs."""

from __future__ import annotations

import json

import pytest

from loader_ws_trades.sandbox import Exchange, Limits, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Loader, Workflow, check_events, urls
from tests.tools.waiting import wait_for


@pytest.fixture
def market() -> Market:
    return Market.generated("POLUSDT", rate=100, past=20_000)


def backfill(workflow: Workflow, exchange: Exchange, *flags: str, **settings: object) -> Loader:
    return workflow.start("backfill", *flags, BINANCE_REST_URL=exchange.rest_url, **settings)


def test_a_range_of_ids_gives_the_records_and_events_of_a_run(workflow: Workflow, market: Market) -> None:
    first = market.first_id + 100
    with Exchange([market]) as exchange:
        loader = backfill(workflow, exchange, "--from-id", str(first), "--to-id", str(first + 4321))
        assert loader.wait() == 0, loader.errors
    records = workflow.records()
    assert workflow.ids() == list(range(first, first + 4322))
    events = workflow.events()
    check_events(events, workflow, "finished")
    assert events[-1]["records_written"] == 4322
    [trade] = market.trades(100, 101)
    value = json.loads(records[0].value() or b"", parse_float=str)
    assert value == {
        "trade_id": first,
        "price": trade.price,
        "quantity": trade.quantity,
        "timestamp": trade.time // 1000,
        "is_buyer_maker": trade.is_buyer_maker,
        "symbol": "POLUSDT",
    }
    assert records[0].key() == b"POLUSDT"
    assert records[0].timestamp()[1] == value["timestamp"]


def test_only_what_is_missing_on_the_topic_is_loaded(workflow: Workflow, market: Market) -> None:
    first = market.first_id
    with Exchange([market]) as exchange:
        flags: tuple[str, ...]
        for begin, end in ((0, 999), (3000, 3999), (3500, 3500)):
            flags = ("--from-id", str(first + begin), "--to-id", str(first + end), "--beyond")
            assert backfill(workflow, exchange, *flags).wait() == 0
        assert workflow.ids() == [*range(first, first + 1000), *range(first + 3000, first + 4000)]
        flags = ("--from-id", str(first), "--to-id", str(first + 5000))
        assert backfill(workflow, exchange, *flags).wait() == 0
        # Up to the newest trade on the topic; what was missing comes after what was there.
        assert workflow.ids()[2000:] == [*range(first + 1000, first + 3000)]
        asked = exchange.counters.requests["/api/v3/historicalTrades"]
        loader = backfill(workflow, exchange, *flags)
        assert loader.wait() == 0
        assert len(workflow.records()) == 4000
        assert exchange.counters.requests["/api/v3/historicalTrades"] == asked + 1, "only the look at the first trade"
        assert backfill(workflow, exchange, *flags, "--beyond").wait() == 0
    assert workflow.ids()[4000:] == [*range(first + 4000, first + 5001)]


def test_a_dry_run_prints_the_cost_and_loads_nothing(workflow: Workflow, market: Market) -> None:
    with Exchange([market]) as exchange:
        flags = ("--from-id", str(market.first_id), "--to-id", str(market.first_id + 9999), "--dry-run")
        loader = backfill(workflow, exchange, *flags)
        assert loader.output() == "10,000 trades in 1 range: 10 requests, about 0.1 minutes\n"
    assert not workflow.records()
    assert not workflow.events()


def test_a_topic_that_rejects_old_records_is_rejected_before_the_load(workflow: Workflow, kafka: Kafka) -> None:
    topic = kafka.create_topic(f"{workflow.topic}-young", config={"message.timestamp.before.max.ms": "3600000"})
    market = Market.generated("POLUSDT", rate=1, past=10_000)
    with Exchange([market]) as exchange:
        for last in (market.first_id + 9_999, market.first_id + 9):
            flags = ("--from-id", str(last - 9), "--to-id", str(last), "--beyond")
            loader = backfill(workflow, exchange, *flags, KAFKA_TOPIC=topic)
            assert loader.wait() == (2 if last == market.first_id + 9 else 0), loader.errors
    assert "rejects trades older than 1 h 0 min" in loader.errors
    assert "message.timestamp.before.max.ms" in loader.errors


def test_it_is_safe_beside_a_live_loader(workflow: Workflow, kafka: Kafka) -> None:
    market = Market.generated("POLUSDT", rate=1000, past=30_000)
    with Exchange([market]) as exchange:
        live = workflow.run(**urls(exchange))
        wait_for(lambda: workflow.last_id() > 0, "the live loader's records")
        first = workflow.ids()[0]
        flags = ("--from-id", str(market.first_id), "--queue-id", f"{workflow.queue_id}-backfill")
        assert backfill(workflow, exchange, *flags).wait() == 0
        goal = market.last_id or 0
        wait_for(lambda: goal in workflow.ids(), "the live loader to go on")
        workflow.stop()
        assert live.wait() == 0
    found = workflow.ids()
    assert sorted(found) == list(range(market.first_id, max(found) + 1))
    late = [trade for trade in found if trade < first]
    assert late == sorted(late)


def test_a_killed_backfill_resumes_where_it_stopped(workflow: Workflow) -> None:
    market = Market.generated("POLUSDT", rate=100, past=100_000)
    first = market.first_id
    flags = ("--from-id", str(first), "--to-id", str(first + 99_999), "--rest-weight-limit", "6000")
    with Exchange([market], limits=Limits(weight=1_000_000)) as exchange:
        for share in (20_000, 50_000, 80_000):
            loader = backfill(workflow, exchange, *flags, "--beyond")
            wait_for(lambda: workflow.last_id() > first + share, "part of it")  # noqa: B023
            loader.process.kill()
            loader.wait()
        assert backfill(workflow, exchange, *flags, "--beyond").wait() == 0
    audit = workflow.start("audit", "--from-id", str(first), "--to-id", str(first + 99_999), "--json")
    found = json.loads(audit.output())
    assert audit.wait() == 0, found
    assert workflow.ids() == list(range(first, first + 100_000))
