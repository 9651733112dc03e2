"""Where a run resumes: after the newest trade of the symbol on the topic, as real brokers answer."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from contextlib import suppress

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.checkpoint import newest_trade
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Workflow, urls
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

DAY = 1_700_000_000_000


def record(symbol: str, trade_id: int, timestamp: int) -> tuple[str, bytes, int]:
    fields = {"trade_id": trade_id, "price": 1.0, "quantity": 1.0, "timestamp": timestamp, "is_buyer_maker": True}
    return symbol, json.dumps(fields | {"symbol": symbol}).encode(), timestamp


def write(kafka: Kafka, topic: str, records: Iterable[tuple[str, bytes, int]], *, end: str = "") -> None:
    properties: dict[str, object] = {"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"}
    if end:
        properties["transactional.id"] = f"other-{uuid.uuid4()}"
    producer = Producer(properties | {"queue.buffering.max.messages": 2_000_000})
    if end:
        producer.init_transactions(20)
        producer.begin_transaction()
    for symbol, value, timestamp in records:
        producer.produce(topic, value, symbol, timestamp=timestamp)
    assert producer.flush(60) == 0
    if end:
        getattr(producer, f"{end}_transaction")(20)


def newest(kafka: Kafka, topic: str, symbol: str = "POLUSDT", **values: str) -> Position | None:
    settings = {"symbol": symbol, "kafka_topic": topic, "kafka_bootstrap_servers": kafka.bootstrap_servers}
    found: list[Position | None] = []

    def search() -> bool:
        with suppress(UnavailableError):  # the partitions of a new topic have no leader yet
            found.append(newest_trade(load(settings | values, needed=settings)).last)
        return bool(found)

    wait_for(search, "the brokers to answer")
    return found[0]


def live(symbol: str, count: int, first: int = 1000) -> list[tuple[str, bytes, int]]:
    """Trades in order, seven to the millisecond."""
    return [record(symbol, first + number, DAY + number // 7) for number in range(count)]


Records = list[tuple[str, bytes, int]]

SAME_TIME = [record("POLUSDT", 2000 + number, DAY + 1000 // 7) for number in range(1000)]
APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}

# Configuration of the topic, what is written to it and how its transaction ends, and the newest trade.
TOPICS: dict[str, tuple[dict[str, str], list[tuple[Records, str]], Position]] = {
    "a backfill and append time": (
        APPEND_TIME,
        [(live("POLUSDT", 1000), ""), (live("POLUSDT", 2000, 3000), ""), (SAME_TIME, "")],
        Position(4999, DAY + 1999 // 7),
    ),
    # The markers have the current time, which is greater than any trade's.
    "transaction markers": (
        {},
        [(live("POLUSDT", 2000), ""), *(([record("BTCUSDT", 1, DAY)], "commit") for _ in range(5))],
        Position(2999, DAY + 1999 // 7),
    ),
    "aborted": (
        {},
        [(live("POLUSDT", 100), ""), ([record("POLUSDT", 5000, DAY + 5000)], "abort")],
        Position(1099, DAY + 99 // 7),
    ),
}


@pytest.mark.parametrize("name", TOPICS)
def test_the_newest_trade_of_a_topic(kafka: Kafka, name: str) -> None:
    config, written, position = TOPICS[name]
    topic = kafka.create_topic(f"t-{uuid.uuid4()}", partitions=3, config=config)
    for records, end in written:
        write(kafka, topic, records, end=end)
    assert newest(kafka, topic) == position


def test_each_symbol_has_its_own_newest_trade(kafka: Kafka) -> None:
    topic = kafka.create_topic(f"t-{uuid.uuid4()}")
    write(kafka, topic, live("POLUSDT", 3000))
    write(kafka, topic, [record("BTCUSDT", 7 + number, DAY + 5000 + number) for number in range(20_000)])
    assert newest(kafka, topic) == (3999, DAY + 2999 // 7)
    assert newest(kafka, topic, "BTCUSDT") == (20_006, DAY + 24_999)
    assert newest(kafka, topic, "BNBBTC") is None
    assert newest(kafka, topic, resume_scan_limit="10000") is None, "too far back to be scanned"


def test_a_symbol_is_on_the_partition_of_javas_default_partitioner(kafka: Kafka) -> None:
    # As in the test of Kafka's own `Utils.murmur2`: no sign, then the remainder.
    hashes = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "abc": 479470107}
    for partitions in (1, 3, 12):
        topic = kafka.create_topic(f"t-{uuid.uuid4()}", partitions=partitions)
        write(kafka, topic, [record(key, 1, DAY) for key in hashes])
        placed = {message.key(): message.partition() for message in read_topic(kafka.bootstrap_servers, topic)}
        assert placed == {key.encode(): (number & 0x7FFFFFFF) % partitions for key, number in hashes.items()}


def test_trades_written_before_partitions_were_added_are_found(kafka: Kafka) -> None:
    topic = kafka.create_topic(f"t-{uuid.uuid4()}", partitions=1)
    write(kafka, topic, live("POLUSDT", 3000))
    kafka.admin.create_partitions([NewPartitions(topic, 2)])[topic].result(30)  # the key's partition is now 1
    assert newest(kafka, topic) == (3999, DAY + 2999 // 7)


def test_a_broker_without_look_up_by_time() -> None:
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        older = [record("POLUSDT", 1 + number, DAY - 5000 + number) for number in range(3000)]
        for key, value, timestamp in [*live("POLUSDT", 100, first=10_000), *older]:
            producer.produce("trades", value, key, partition=0, timestamp=timestamp)
        assert producer.flush(10) == 0
        given = {"symbol": "POLUSDT", "kafka_topic": "trades", "kafka_bootstrap_servers": broker.bootstrap_servers}
        found = newest_trade(load(given, needed=given)).last
    assert found is not None
    assert found.trade_id == 10_099


def test_trades_missed_while_no_loader_ran_are_fetched_below_the_weight_limit(workflow: Workflow, kafka: Kafka) -> None:
    market = Market.generated("POLUSDT", rate=500, past=20_000)
    with Exchange([market]) as exchange:
        [trade] = market.trades(0, 1)
        write(kafka, workflow.topic, [record("POLUSDT", trade.id, trade.time // 1000)])
        loader = workflow.run(**urls(exchange), REST_WEIGHT_LIMIT="900")
        loader.wait_for_line("Gap closed")
        goal = market.last_id or 0
        wait_for(lambda: workflow.last_id() >= goal, "the live stream to go on")
        workflow.stop()
        assert loader.wait() == 0
        assert "Missing" not in loader.errors
        found = workflow.ids()
        assert exchange.counters.peak_weight <= 900
    assert found == list(range(trade.id, trade.id + len(found)))
    assert len(found) > 20_000
