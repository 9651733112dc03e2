"""`run` with SYMBOLS on Apache Kafka: each of many pairs complete and in order, with events of its own."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

import pytest

from loader_ws_trades.sandbox import Exchange, Market, crowd
from tests.kafka.test_checkpoint import record, write
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Workflow, check_events, urls
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

PAIRS = 20


@pytest.fixture
def markets() -> list[Market]:
    return crowd(PAIRS, 2000.0, start="subscriber")


def many(workflow: Workflow, exchange: Exchange, symbols: str = "*", **settings: object) -> Any:
    return workflow.run(**urls(exchange), SYMBOL=None, SYMBOLS=symbols, **settings)


def ids_by_pair(workflow: Workflow, *topics: str) -> dict[str, list[int]]:
    """The trade ids of each pair, which are consecutive."""
    found = defaultdict(list)
    for topic in topics or (workflow.topic,):
        for message in read_topic(workflow.servers, topic):
            trade = json.loads(message.value() or b"")
            assert message.key() == trade["symbol"].encode()
            found[trade["symbol"]].append(trade["trade_id"])
    for symbol, ids in found.items():
        assert ids == list(range(ids[0], ids[0] + len(ids))), symbol
    return found


def events_of(workflow: Workflow, symbol: str) -> list[dict[str, Any]]:
    return [event for event in workflow.events() if event["symbol"] == symbol]


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
def test_a_stop_ends_all_pairs_and_the_next_run_goes_on_with_each(
    workflow: Workflow, markets: list[Market], delivery: str
) -> None:
    with Exchange(markets) as exchange:
        for number in (1, 2):
            before = sum(market.issued for market in markets)
            loader = many(workflow, exchange, DELIVERY=delivery, CONTROL_FROM="now")
            wait_for(lambda: sum(market.issued for market in markets) > before + 6000, "6000 trades")  # noqa: B023
            loader.wait_for_line("Connected")
            if number == 1:
                loader.process.kill()
                loader.wait()
                exchange_events = len(workflow.events())
        wait_for(lambda: len(workflow.events()) > exchange_events + 2 * PAIRS, "events of each pair")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    found = ids_by_pair(workflow)
    assert set(found) == {market.symbol for market in markets if market.issued}
    assert sum(map(len, found.values())) > 10_000
    for market in markets:
        own = events_of(workflow, market.symbol)
        again = [event["status"] for event in own].index("started", 1)
        check_events(own[again:], workflow, "interrupted", market.symbol)
        assert own[-1]["message"].startswith("Stopped by command; ")


def test_each_of_1600_pairs_has_its_last_event_within_the_time_for_it(workflow: Workflow) -> None:
    with Exchange(crowd(1600, 1000.0, start="subscriber")) as exchange:
        loader = many(workflow, exchange, TELEMETRY_INTERVAL="60")
        wait_for(lambda: len(read_topic(workflow.servers, workflow.topic, last=1000)) >= 1000, "1000 trades")
        loader.process.terminate()
        assert loader.wait() == 143, loader.errors
    last = {event["symbol"]: event for event in workflow.events() if event["finished"]}
    assert len(last) == 1600
    assert {event["status"] for event in last.values()} == {"interrupted"}
    assert sum(event["records_written"] for event in last.values()) == sum(map(len, ids_by_pair(workflow).values()))


def test_each_pair_has_a_topic_and_one_without_ends_alone(
    kafka: Kafka, workflow: Workflow, markets: list[Market]
) -> None:
    first, *others = (market.symbol for market in markets if market.symbol.isascii())
    [unnameable] = (market.symbol for market in markets if not market.symbol.isascii())
    for symbol in others:
        kafka.create_topic(f"{workflow.topic}-{symbol}")
    workflow.variables["TELEMETRY_PRODUCER_ID"] = "loader-{symbol}"
    with Exchange(markets) as exchange:
        loader = many(workflow, exchange, KAFKA_TOPIC=f"{workflow.topic}-{{symbol}}", STARTUP_GRACE="1")
        wait_for(lambda: events_of(workflow, first), "the end of the pair without a topic")
        wait_for(lambda: sum(market.issued for market in markets) > 5000, "5000 trades")
        loader.process.terminate()
        assert loader.wait() == 143, loader.errors
    found = ids_by_pair(workflow, *(f"{workflow.topic}-{symbol}" for symbol in others))
    assert first not in found
    assert len(found) > PAIRS / 2
    [ended] = events_of(workflow, first)
    assert (ended["status"], ended["finished"], ended["records_written"]) == ("error", True, 0)
    assert f"The topic {workflow.topic}-{first} does not exist" in ended["message"]
    assert "characters not allowed in topic names" in events_of(workflow, unnameable)[0]["message"]
    for symbol in others:
        workflow.variables["TELEMETRY_PRODUCER_ID"] = f"loader-{symbol}"
        own = events_of(workflow, symbol)
        check_events(own, workflow, "interrupted", symbol)
        assert own[-1]["records_written"] == len(found.get(symbol, []))


def test_a_run_without_any_topic_ends_with_2(workflow: Workflow, markets: list[Market]) -> None:
    with Exchange(markets) as exchange:
        topics = f"{workflow.topic}-{{symbol}}"
        loader = many(workflow, exchange, "BTCUSDT,ETHUSDT", KAFKA_TOPIC=topics, STARTUP_GRACE="0.1")
        assert loader.wait() == 2, loader.errors
    assert "does not exist" in loader.errors.splitlines()[-1]
    assert [(event["symbol"], event["status"], event["finished"]) for event in workflow.events()] == [
        ("BTCUSDT", "error", True),
        ("ETHUSDT", "error", True),
    ]


def test_pairs_beyond_the_scan_limit_join_at_the_first_trade_of_the_scanned_time(
    kafka: Kafka, workflow: Workflow
) -> None:
    now = int(time.time() * 1000)
    markets = {
        name: Market.generated(name, rate=rate, past=past, first_id=first)
        for name, rate, past, first in (("AUSDT", 20, 6000, 100), ("BUSDT", 20, 6000, 90_000), ("CUSDT", 0.5, 0, 500))
    }
    others = [record("DUSDT", 1 + number, now - 600_000 + 500 * number) for number in range(1200)]
    old = [record(name, 7, now - 3_600_000) for name in ("AUSDT", "CUSDT")]
    known = (markets["BUSDT"].last_id or 0) - 100
    write(kafka, workflow.topic, [*old, *others, record("BUSDT", known, now - 5000)])
    with Exchange(list(markets.values())) as exchange:
        loader = many(workflow, exchange, ",".join(markets), RESUME_SCAN_LIMIT="500")
        loader.wait_for_line("Resuming 1 of 3 pairs after their newest trades on the topic, and 2 once REST")
        found: dict[str, list[int]] = {}

        def has_all() -> bool:
            found.clear()
            for message in read_topic(workflow.servers, workflow.topic):
                trade = json.loads(message.value() or b"")
                found.setdefault(trade["symbol"], []).append(trade["trade_id"])
            last = {name: market.last_id or 0 for name, market in markets.items()}
            return all(len(found.get(name, [])) > 1 and found[name][-1] >= last[name] - 40 for name in markets)

        wait_for(has_all, "all pairs to catch up")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
    has_all()
    assert found["BUSDT"] == list(range(known, known + len(found["BUSDT"])))
    for name in ("AUSDT", "CUSDT"):
        _, first, *_ = ids = found[name]
        assert ids[1:] == list(range(first, first + len(ids) - 1))
    assert found["CUSDT"][1] == 500, "its first trade"
    # A scan four times as long as the first four minutes would exceed the limit.
    times = {trade.id: trade.time // 1000 for trade in markets["AUSDT"].trades(0, 6000)}
    first = found["AUSDT"][1]
    assert times[first - 1] < now - 500 - 240_000 <= times[first]
