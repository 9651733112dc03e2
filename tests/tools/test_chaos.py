"""The judge of the fault matrix: what it must see, and what the table then says."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from loader_ws_trades.sandbox import EmbeddedBroker, Market, Skip, Trade
from tests.tools.chaos.outcome import Outcome
from tests.tools.chaos.table import print_table
from tests.tools.chaos.trial import Trial
from tests.tools.chaos.witness import compare, named_ids
from tests.tools.topics import read_topic


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def record(trade: Trade, **other: object) -> bytes:
    """A record as the contract has it, with the digits of the trade, or with other texts."""
    fields = {
        "trade_id": trade.id,
        "price": trade.price,
        "quantity": trade.quantity,
        "timestamp": trade.time // 1000,
        "is_buyer_maker": json.dumps(trade.is_buyer_maker),
        "symbol": '"POLUSDT"',
    }
    return ("{" + ",".join(f'"{name}":{value}' for name, value in (fields | other).items()) + "}").encode()


def altered(**other: object) -> Callable[[list[Trade]], list[bytes]]:
    return lambda trades: [record(trades[0], **other), *map(record, trades[1:])]


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (lambda trades: [*map(record, trades)], {}),
        (lambda trades: [*map(record, trades[:4]), *map(record, trades[6:])], {"lost": 2}),
        (lambda trades: [*map(record, trades[2:])], {"lost": 2}),
        (lambda trades: [*map(record, trades), record(trades[3]), record(trades[3])], {"duplicated": 2}),
        (lambda trades: [*map(record, trades[1:]), record(trades[0])], {"out_of_order": 1}),
        (altered(price="100.0"), {"altered": 1}),
        (altered(quantity="7"), {"altered": 1}),
        (altered(timestamp="1700000000000"), {"altered": 1}),
        (altered(is_buyer_maker='"yes"'), {"altered": 1}),
        (altered(symbol='"BTCUSDT"'), {"altered": 1}),
        (altered(more="1"), {"altered": 1}),
        (altered(trade_id=5), {"altered": 1, "lost": 1}),
        (lambda trades: [*map(record, trades), b"rubbish"], {"altered": 1}),
        (lambda trades: [*map(record, trades[:5])], {"lost": 5}),
    ],
)
def test_the_judge_sees_what_is_wrong_with_a_topic(
    broker: EmbeddedBroker, written: Callable[[list[Trade]], list[bytes]], wrong: dict[str, int]
) -> None:
    market = Market.generated("POLUSDT", past=10, count=10)
    trades = market.trades(0, 10)
    times = {trade.id: trade.time // 1000 for trade in trades}
    topic = f"t-{uuid.uuid4()}"
    broker.create_topics(topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for value in written(trades):
        time = next((moment for trade_id, moment in times.items() if b'"trade_id":%d,' % trade_id in value), 1)
        producer.produce(topic, value, "POLUSDT", timestamp=time)
    assert producer.flush(10) == 0
    counts = compare(market, read_topic(broker.bootstrap_servers, topic), goal=trades[-1].id)
    columns = ("lost", "duplicated", "out_of_order", "altered")
    assert {name: getattr(counts, name) for name in columns} == dict.fromkeys(columns, 0) | wrong
    assert counts.issued == 10


def test_a_loader_that_loses_trades_does_not_pass(broker: EmbeddedBroker) -> None:
    market = Market.generated("POLUSDT", rate=1000, start="subscriber")
    skip = Skip(20, after=500)
    with Trial("8 no repair", broker.bootstrap_servers, broker.create_topics, market, faults=[skip]) as trial:
        trial.start(GAP_REPAIR="off")
        trial.let_load(1500)
        trial.stop()
    outcome = trial.outcome
    assert outcome.counts is not None
    assert (outcome.counts.lost, outcome.counts.issued - outcome.counts.on_topic) == (20, 20)
    assert "lost" in outcome.broken[0]
    assert not outcome.passed


def test_what_a_row_writes_to_the_topic_itself_is_not_judged(broker: EmbeddedBroker) -> None:
    market = Market.generated("POLUSDT", rate=1000, start="subscriber")
    with Trial("20 littered", broker.bootstrap_servers, broker.create_topics, market) as trial:
        trial.start()
        trial.let_load(200)
        trial.write(b"hello", None, b'{"trade_id":1000000000000}')
        trial.let_load(200)
        trial.stop()
    trial.outcome.check()
    assert trial.outcome.counts is not None
    assert trial.outcome.counts.on_topic == trial.outcome.counts.issued


def test_ids_are_read_out_of_messages() -> None:
    messages = ["Loaded 7; missing trade ids 100-102, 110", "Loaded 8", "Loaded 9; missing trade ids 7"]
    assert named_ids(messages) == {100, 101, 102, 110, 7}


def test_a_range_of_ids_that_no_exchange_issued_is_not_taken_for_named() -> None:
    with pytest.raises(AssertionError, match="1000-1000000000000 are named as missing"):
        named_ids(["Loaded 7; missing trade ids 7, 1000-1000000000000"])


def test_the_table_counts_a_row_as_passed_if_all_its_lines_are() -> None:
    outcomes = [
        Outcome(1, "good", exit_codes=[137, 137, 0]),
        Outcome(2, "good"),
        Outcome(2, "bad", broken=["7 lost"]),
        Outcome(3, "impossible", not_run="no Java"),
    ]
    file = io.StringIO()
    print_table(outcomes, 9, file)
    text = file.getvalue()
    assert "137x2 0" in text
    assert "2 bad: 7 lost" in text
    assert "3 impossible: not run: no Java" in text
    assert text.endswith("Seed 9. 1 of 3 rows passed, 2 of 4 lines.\n")
