"""Plays a fleet: start, load, SIGTERM to all, start again, one stop command, judgement."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools import usage
from tests.tools.apache_kafka import Kafka
from tests.tools.bench.stamps import load, percentiles
from tests.tools.chaos.witness import compare
from tests.tools.fleet.report import Plan, Report
from tests.tools.loader import Loader, Workflow, workflow_on
from tests.tools.topics import Follower, read_topic
from tests.tools.waiting import wait_for

_ROOT = Path(__file__).parents[3]
_PRODUCER = "fleet-{symbol}"
_START = 120.0  # seconds for all to start on a machine that has other work


def play(kafka: Kafka, plan: Plan, *, broker: int | None = None) -> Report:
    """Play a fleet on `kafka`, whose process is `broker`, and judge it."""
    with ExitStack() as stack:
        fleet = Fleet(kafka, plan, stack)
        fleet.start()
        fleet.load(broker)
        fleet.restart()
        fleet.stop()
        fleet.judge()
        return fleet.report


class Fleet:
    """One fleet, its exchange and its topics; all of it ends with `stack`."""

    def __init__(self, kafka: Kafka, plan: Plan, stack: ExitStack) -> None:
        self.plan = plan
        self.report = Report(plan)
        # The ids of each are its own, so that a trade on another's behalf would be seen.
        self.markets = [
            Market.generated(
                symbol, rate=plan.rate, seed=number, first_id=(number + 1) * 1_000_000_000, start="subscriber"
            )
            for number, symbol in enumerate(_symbols(plan))
        ]
        self._exchange = stack.enter_context(Exchange(self.markets))

        def create(name: str) -> object:
            trades = name.startswith("trades") and not plan.topic_each
            return kafka.create_topic(name, partitions=plan.partitions if trades else 1)

        self._workflow: Workflow = stack.enter_context(workflow_on(kafka.bootstrap_servers, create))
        topic = self._workflow.topic
        self.topics = [topic]
        if plan.topic_each:
            self.topics = [kafka.create_topic(f"{topic}.{market.symbol}") for market in self.markets]
        # What a manifest would say; each process is given its index beside it.
        self._variables: dict[str, object] = {
            "SYMBOL": None,
            "SYMBOLS": ", ".join(market.symbol.lower() for market in self.markets),
            "KAFKA_TOPIC": f"{topic}.{{symbol}}" if plan.topic_each else topic,
            "TELEMETRY_PRODUCER_ID": _PRODUCER,
            "TELEMETRY_INTERVAL": 10,
            "BINANCE_WS_URL": self._exchange.ws_url,
            "BINANCE_REST_URL": self._exchange.rest_url,
            "PYTHONPATH": _ROOT,
        }
        self._stamps = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        follower = Follower(kafka.bootstrap_servers, self.topics)
        stack.callback(follower.close)
        self._arrivals = follower.arrivals
        self._loaders: list[Loader] = []

    def start(self) -> None:
        """Start all at once, with their times taken, and wait for the first trade of each."""
        began: list[float] = []
        for number in range(self.plan.symbols):
            began.append(time.time())
            self._loaders.append(self._run(number, timed=True))
        first = [market.first_id for market in self.markets]
        self._wait(lambda: self._arrivals.keys() >= set(first), "the first trade of each symbol")
        self.report.first_trade = [self._arrivals[trade] - start for trade, start in zip(first, began, strict=True)]
        self.report.start_weight = self._exchange.counters.weight

    def load(self, broker: int | None) -> None:
        """Let it load for the time that was planned, and measure what it takes."""
        pids = [loader.process.pid for loader in self._loaders]
        began, before, issued = time.monotonic(), [usage.cpu(pid) for pid in pids], self._issued()
        broker_before = usage.cpu(broker) if broker else 0.0
        end = began + self.plan.seconds
        self._wait(lambda: time.monotonic() >= end, "the clock", self.plan.seconds + 5)
        spent = [usage.cpu(pid) - start for pid, start in zip(pids, before, strict=True)]
        issued, took = self._issued() - issued, time.monotonic() - began
        if broker:
            self.report.broker_cpu = (usage.cpu(broker) - broker_before) / took
        self.report.cpu = [seconds / took for seconds in spent]
        self.report.per_trade = sum(spent) / issued
        self.report.memory = [usage.memory(pid) for pid in pids]
        self.report.proportional = [usage.memory(pid, "Pss") for pid in pids]

    def restart(self) -> None:
        """End all by a signal, as a node does that goes down, start all again, and wait until they have caught up."""
        began = time.monotonic()
        for loader in self._loaders:
            loader.process.send_signal(signal.SIGTERM)
        self._expect(128 + signal.SIGTERM)
        self.report.drained = time.monotonic() - began
        self._take_latency()
        weight, began = self._exchange.counters.weight, time.monotonic()
        self._loaders = [self._run(number) for number in range(self.plan.symbols)]
        goals = {market.last_id for market in self.markets}
        self._wait(lambda: self._arrivals.keys() >= goals, "all trades of the time between")
        self.report.caught_up = time.monotonic() - began
        self.report.restart_weight = self._exchange.counters.weight - weight

    def stop(self) -> None:
        """Stop all by one command, which is given the variables of the fleet and no index."""
        command = self._workflow.start("stop", **self._variables)
        assert command.wait() == 0, command.errors
        began = time.monotonic()
        self._expect(0)
        self.report.stopped = time.monotonic() - began
        counters = self._exchange.counters
        self.report.peak_weight, self.report.connections = counters.peak_weight, len(counters.attempts)

    def judge(self) -> None:
        """Compare the topics with what the exchange issued, and the events with what the loaders did."""
        servers = self._workflow.servers
        records = sorted((record for topic in self.topics for record in read_topic(servers, topic)), key=_key)
        self.report.counts = {market.symbol: compare(market, ()) for market in self.markets}
        for key, group in groupby(records, _key):
            self._judge_symbol(key.decode(), list(group))
        self._judge_events(self._workflow.events())
        self.report.judge()

    def _judge_symbol(self, symbol: str, records: list[Message]) -> None:
        market = next((market for market in self.markets if market.symbol == symbol), None)
        places = {(record.topic(), record.partition()) for record in records}
        if market is None or len(places) > 1:
            self.report.broken.append(f"{symbol}: records in {places}")
        if market is not None:
            self.report.counts[symbol] = compare(market, records)

    def _judge_events(self, events: list[dict[str, Any]]) -> None:
        for symbol, counts in self.report.counts.items():
            own = [event for event in events if event["producer"] == _PRODUCER.replace("{symbol}", symbol)]
            last = [event for event in own if event["finished"]]
            seen = [(event["symbol"], event["status"], event["message"].partition(";")[0]) for event in last]
            expected = ["Stopped by SIGTERM", "Stopped by command"]
            if [(name, status) for name, status, _ in seen] != [(symbol, "interrupted")] * 2 or not all(
                text.startswith(start) for (_, _, text), start in zip(seen, expected, strict=True)
            ):
                self.report.broken.append(f"{symbol}: its last events are {seen}")
            elif sum(event["records_written"] for event in last) != counts.on_topic:
                self.report.broken.append(f"{symbol}: its events count other records than the {counts.on_topic}")

    def _run(self, index: int, *, timed: bool = False) -> Loader:
        self._workflow.loader_class = _timed_into(self._stamps / str(index)) if timed else Loader
        return self._workflow.run(**self._variables, JOB_COMPLETION_INDEX=index)

    def _take_latency(self) -> None:
        # The first run began on an empty topic and missed nothing, so the places of reads and reports match.
        seconds: list[float] = []
        for index in range(self.plan.symbols):
            stamps = load(self._stamps / str(index))
            reads, reports = stamps.reads, stamps.reports
            seconds += [report - read for read, report in zip(reads, reports, strict=False)]
        found = percentiles(seconds)
        self.report.latency = {name: found[name] for name in ("p50", "p99")}

    def _expect(self, code: int) -> None:
        for market, loader in zip(self.markets, self._loaders, strict=True):
            if (ended := loader.wait()) != code:
                self.report.broken.append(f"{market.symbol}: exit code {ended}, not {code}: {loader.errors[-500:]}")

    def _issued(self) -> int:
        return sum(market.issued for market in self.markets)

    def _wait(self, condition: Callable[[], object], what: str, seconds: float = _START) -> None:
        """Wait for a condition, and for no loader that has ended."""

        def met() -> bool:
            ended = [loader for loader in self._loaders if loader.process.poll() is not None]
            assert not ended, ended[0].errors[-2000:]
            return bool(condition())

        wait_for(met, what, seconds)


def _symbols(plan: Plan) -> list[str]:
    found = [f"FLEET{number}USDT" for number in range(plan.symbols)]
    # Some pairs of the exchange are not ASCII, which a topic's name must be.
    return found if plan.topic_each else [*found[:-1], "币安USDT"]


def _key(record: Message) -> bytes:
    return record.key() or b""


def _timed_into(path: Path) -> type[Loader]:
    """A loader that notes when it read each trade and when its delivery was reported."""

    class Timed(Loader):
        launcher = ("-m", "tests.tools.bench.launcher", "stamps", str(path))

    return Timed
