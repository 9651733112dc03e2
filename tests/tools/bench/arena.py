"""Where a run takes place: the broker, the certificates, a new topic for each run, and an exchange of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from confluent_kafka import Consumer, TopicPartition

from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka.certificates import write_certificates
from tests.tools.bench.contenders import Contender, Run
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.process import Measured, RunError

_START = 60.0  # seconds for an exchange or a contender to be ready
_WARM_UP = 0.2  # share of the trades that the rate does not count


class Outcome(NamedTuple):
    """What one run gave."""

    rate: float
    """Trades a second after the warm-up, by the broker's own clock: the append times of the records."""
    cpu: float
    """Microseconds of CPU for each trade, of all threads and children, from the subscription to the process's end."""
    peak: float
    """MiB of memory at the most."""
    begun: float
    """Monotonic time at which the market began."""
    repairs: int
    """Requests for missing trades that the exchange had."""
    connections: int
    """Connections that it accepted."""


class Tail(NamedTuple):
    """The two records that a rate is made from."""

    records: int
    first: int
    """Trade id of the first record."""
    last: int
    seconds: float
    """From the first record after the warm-up to the last one."""


class Watch(Protocol):
    """Looks at a run."""

    def during(self, process: Measured) -> None:
        """Called when the market has begun."""

    def after(self, topic: str) -> None:
        """Called when the contender has ended."""


class Arena:
    """A cluster of one broker in `folder`; a topic's records get the broker's time, the same clock for everybody."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder = folder
        self.cluster = cluster
        self.logs = folder / "kafka" / "node-1" / "data"
        """Where the broker keeps its topics."""
        self._ca, self._server_pem = folder / "bench-ca.pem", folder / "bench-server.pem"
        write_certificates(self._ca, self._server_pem)

    def path(self, name: str) -> Path:
        """A new file of that name in the arena's folder."""
        return self._folder / f"{uuid.uuid4().hex[:8]}-{name}"

    @contextlib.contextmanager
    def topics(self) -> Iterator[tuple[str, str, str]]:
        """Topics for one run: trades, control, events."""
        names = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("trades", "control", "events")]
        config = {"message.timestamp.type": "LogAppendTime", "file.delete.delay.ms": "1000"}
        for name in names:
            self.cluster.create_topic(name, config=config)
        try:
            yield names[0], names[1], names[2]
        finally:
            for name in names:
                self.cluster.delete_topic(name)

    @contextlib.contextmanager
    def exchange(self, market: MarketSpec, *, tls: bool = False) -> Iterator[tuple[Measured, dict[str, Any]]]:
        """An exchange as a process, and where it can be reached."""
        if tls:
            market = msgspec.structs.replace(market, server_pem=str(self._server_pem))
        command = [sys.executable, "-m", "tests.tools.bench.exchange", msgspec.json.encode(market).decode()]
        process = Measured(command, {}, self.path("exchange.log"))
        try:
            yield process, json.loads(process.await_text('"ws"', _START))
        finally:
            process.close()

    @contextlib.contextmanager
    def run(
        self, contender: Contender, market: MarketSpec, *, tls: bool = False, **further: Any
    ) -> Iterator[tuple[Measured, Run, Measured]]:
        """A contender at work, its run, and its exchange; all ended at the end."""
        with self.topics() as (topic, control, events), self.exchange(market, tls=tls) as (exchange, where):
            run = Run(
                trades=market.count,
                stream=where["stream"],
                ws_url=where["ws"],
                rest_url=where["rest"],
                servers=self.cluster.bootstrap_servers,
                topic=topic,
                control_topic=control,
                events_topic=events,
                ca=self._ca if tls else None,
                **further,
            )
            process = Measured(contender.command(run), contender.environment(run), self.path(f"{contender.name}.log"))
            try:
                yield process, run, exchange
            finally:
                process.close()

    def race(
        self,
        contender: Contender,
        market: MarketSpec,
        *,
        seconds: float,
        tls: bool = False,
        watch: Watch | None = None,
        **further: Any,
    ) -> Outcome:
        """One run of a contender from its start to its end, which must come within `seconds` from the first trade.

        `watch` looks at it meanwhile, and at what it has written.

        Raises:
            RunError: if it fails, or does not bring each trade to the topic once.
        """
        with self.run(contender, market, tls=tls, **further) as (process, run, exchange):
            begun = json.loads(exchange.await_text('"begun"', _START))["begun"]
            before = process.cpu()
            if watch:
                watch.during(process)
            spent = process.await_end(seconds) - before
            tail = self._tail(run.topic, int(run.trades * _WARM_UP))
            if watch:
                watch.after(run.topic)
            exchange.tell(signal.SIGTERM)
            seen = json.loads(exchange.await_text('"repairs"', _START))
        if tail.records != run.trades or tail.last - tail.first + 1 != run.trades:
            raise RunError(f"{contender.name}: {tail} on the topic, of {run.trades} trades")
        rate = run.trades * (1 - _WARM_UP) / max(tail.seconds, 0.001)
        return Outcome(rate, spent * 1_000_000 / run.trades, process.peak, begun, seen["repairs"], seen["connections"])

    def _tail(self, topic: str, warm_up: int) -> Tail:
        consumer = Consumer({"bootstrap.servers": self.cluster.bootstrap_servers, "group.id": "bench"})
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
            if high - low <= warm_up:
                return Tail(high - low, 0, 0, 0.0)
            found = [_record(consumer, topic, offset) for offset in (low, low + warm_up, high - 1)]
        finally:
            consumer.close()
        ids = [trade_id for _, trade_id in found]
        return Tail(high - low, ids[0], ids[2], (found[2][0] - found[1][0]) / 1000)


def _record(consumer: Consumer, topic: str, offset: int) -> tuple[int, int]:
    """Append time in milliseconds and trade id of one record."""
    consumer.assign([TopicPartition(topic, 0, offset)])
    message = consumer.poll(10)
    if message is None or message.error():
        raise RunError(f"the record {offset} of {topic} could not be read")
    return message.timestamp()[1], json.loads(message.value() or b"")["trade_id"]
