"""A small fleet on Apache Kafka, and what its judge must see."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from loader_ws_trades.cli.main import cli
from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.fleet.play import Fleet, play
from tests.tools.fleet.report import Plan
from tests.tools.loader import Loader
from tests.tools.topics import read_topic, write_topic

SMALL = Plan(symbols=4, rate=100.0, seconds=2.0, partitions=3)


@pytest.mark.parametrize("topic_each", [False, True], ids=["one topic", "a topic each"])
def test_a_fleet_from_one_set_of_variables_loads_all_and_ends_by_one_command(kafka: Kafka, topic_each: bool) -> None:
    report = play(kafka, SMALL._replace(topic_each=topic_each))
    assert not report.broken
    shown = dict(report.lines())
    assert shown["trades issued"] == shown["records on topic"]
    assert int(shown["trades issued"].replace(",", "")) > 800
    assert report.start_weight == 4 * 20, "one look at the symbol each"
    assert report.connections == 8


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_what_takes_a_symbol_takes_many(command: str) -> None:
    taken = {parameter.name for parameter in cli.commands[command].params}
    many = {"symbols", "job_completion_index"}
    wanted = many if {"symbol", "kafka_topic"} <= taken else set()
    assert taken & many == wanted


def test_other_commands_choose_their_symbol_as_run_does() -> None:
    markets = [Market.generated(symbol, past=100, first_id=1000) for symbol in ("AUSDT", "币安USDT")]
    with Exchange(markets) as exchange:
        variables = {"SYMBOLS": "ausdt, 币安usdt", "JOB_COMPLETION_INDEX": 1, "BINANCE_REST_URL": exchange.rest_url}
        loader = Loader("backfill", "--from-id", "1000", "--to-id", "1009", "--stdout", **variables)
        try:
            assert loader.wait() == 0, loader.errors
            records = [json.loads(line) for line in loader.output().splitlines()]
        finally:
            loader.close()
    assert [(record["symbol"], record["trade_id"]) for record in records] == [("币安USDT", 1000 + n) for n in range(10)]


def test_the_judge_of_a_fleet_sees_what_is_wrong(kafka: Kafka) -> None:
    with ExitStack() as stack:
        fleet = Fleet(kafka, Plan(symbols=2, rate=100.0, seconds=0.1, partitions=1), stack)
        fleet.start()
        fleet.restart()
        fleet.stop()
        fleet.judge()
        assert not fleet.report.broken
        [topic] = fleet.topics
        first = read_topic(kafka.bootstrap_servers, topic)[0]
        write_topic(kafka.bootstrap_servers, topic, first.value(), key=first.key())
        fleet.judge()
    told = "\n".join(fleet.report.broken)
    assert "1 duplicated" in told
    assert "its events count other records" in told
