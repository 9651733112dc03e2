"""Many symbols from one set of variables: a small fleet on Apache Kafka, and the commands that choose a symbol."""

from __future__ import annotations

import json
from contextlib import ExitStack

from loader_ws_trades.cli.main import cli
from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.fleet.play import Fleet
from tests.tools.fleet.report import Plan
from tests.tools.loader import Loader
from tests.tools.topics import read_topic, write_topic

SMALL = Plan(symbols=3, rate=100.0, seconds=1.0, partitions=3)


def test_fleet_loads_everything_once_and_its_judge_sees_a_planted_duplicate(kafka: Kafka) -> None:
    with ExitStack() as stack:
        fleet = Fleet(kafka, SMALL, stack)
        fleet.start()
        fleet.load(None)
        fleet.restart()
        fleet.stop()
        fleet.judge()
        report = fleet.report
        assert not report.broken
        shown = dict(report.lines())
        assert shown["trades issued"] == shown["records on topic"]
        assert report.start_weight == 3 * 20, "one symbol check each"
        assert report.connections == 6
        [topic] = fleet.topics
        first = read_topic(kafka.bootstrap_servers, topic)[0]
        write_topic(kafka.bootstrap_servers, topic, first.value(), partition=first.partition() or 0, key=first.key())
        fleet.judge()
    broken = "\n".join(report.broken)
    assert "1 duplicated" in broken
    assert "its events count other records" in broken


def test_every_command_that_takes_a_symbol_takes_symbols_and_an_index() -> None:
    many = {"symbols", "job_completion_index", "job_completions"}
    for command in cli.commands.values():
        taken = {parameter.name for parameter in command.params}
        if {"symbol", "kafka_topic"} <= taken:
            assert taken >= many, command.name


def test_backfill_chooses_its_symbol_by_index() -> None:
    markets = [Market.generated(symbol, past=100, first_id=1000) for symbol in ("AUSDT", "币安USDT")]
    with Exchange(markets) as exchange:
        variables = {"SYMBOLS": "ausdt, 币安usdt", "JOB_COMPLETION_INDEX": 1, "BINANCE_REST_URL": exchange.rest_url}
        with Loader("backfill", "--from-id", "1000", "--to-id", "1009", "--stdout", **variables) as loader:
            assert loader.wait() == 0, loader.errors
            records = [json.loads(line) for line in loader.output().splitlines()]
    assert [(record["symbol"], record["trade_id"]) for record in records] == [("币安USDT", 1000 + n) for n in range(10)]
