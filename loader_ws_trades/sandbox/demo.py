"""The demonstration: a simulated exchange, the loader as a process, an embedded broker, and a reader of its topics."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.exchange import Exchange
from loader_ws_trades.sandbox.market import Market

TRADES, EVENTS, CONTROL = "trades", "queue-events", "queue-control"
_SYMBOL = "BTCUSDT"
_PATIENCE = 30.0  # seconds that the loader has to start, and to end


def demonstrate(duration: float, rate: float) -> int:
    """Run the loader for `duration` seconds at `rate` trades a second; 0 if all that it did is right, else 1."""
    console = Console()
    with EmbeddedBroker() as broker, Exchange([Market.generated(_SYMBOL, rate=rate)]) as exchange:
        servers, queue_id = broker.bootstrap_servers, f"demo-{uuid.uuid4().hex[:6]}"
        broker.create_topics(TRADES, EVENTS, CONTROL)
        console.print(f"{rate:g} trades of {_SYMBOL} a second from a simulated exchange, for {duration:g} s.\n")
        with tempfile.TemporaryFile() as log:
            loader = subprocess.Popen(
                [sys.executable, "-m", "loader_ws_trades", "run"],
                env=os.environ
                | loader_variables(exchange, servers, _SYMBOL, queue_id)
                | {"TELEMETRY_INTERVAL": "2", "LOG_FORMAT": "json"},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
            try:
                seen = _watch(console, loader, servers, duration, stop=lambda: send_stop(servers, queue_id))
            except KeyboardInterrupt:
                return _interrupt(console, loader)
            finally:
                if loader.poll() is None:
                    loader.kill()
                    loader.wait()
            log.seek(0)
            return _sum_up(console, seen, loader.returncode, log.read().decode())


def loader_variables(exchange: Exchange, bootstrap_servers: str, symbol: str, queue_id: str) -> dict[str, str]:
    """The variables with which a loader finds the simulated exchange, and a broker that has our three topics."""
    return {
        "QUEUE_ID": queue_id,
        "SYMBOL": symbol,
        "TYPE": "ws_trade",
        "TELEMETRY_PRODUCER_ID": f"loader-ws-trades__{queue_id}",
        "KAFKA_TOPIC": TRADES,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "QUEUE_EVENTS_TOPIC": EVENTS,
        "QUEUE_CONTROL_TOPIC": CONTROL,
        "BINANCE_WS_URL": exchange.ws_url,
        "BINANCE_REST_URL": exchange.rest_url,
    }


def send_stop(bootstrap_servers: str, queue_id: str) -> None:
    """Write the stop command for `queue_id`."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(CONTROL, json.dumps({"command": "stop", "queue_id": queue_id}))
    producer.flush(10)


def _interrupt(console: Console, loader: subprocess.Popen[bytes]) -> int:
    # On a terminal Ctrl-C has reached the loader too, and a second signal would cut its tail off.
    if not sys.stdin.isatty():
        loader.send_signal(signal.SIGINT)
    code = loader.wait(_PATIENCE)
    console.print("Stopped by Ctrl-C.")
    return code


@dataclass
class _Seen:
    """What a reader has seen on the topics."""

    records: int = 0
    last_id: int | None = None
    out_of_order: int = 0
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, topic: str | None, value: str) -> None:
        if topic == EVENTS:
            self.events.append(json.loads(value))
            return
        trade_id = json.loads(value)["trade_id"]
        self.out_of_order += self.last_id is not None and trade_id != self.last_id + 1
        self.last_id = trade_id
        self.records += 1
        self.latest.append(value)

    @property
    def complete(self) -> bool:
        """Whether the last event has come, and as many records as it says."""
        return bool(self.events) and self.events[-1]["finished"] and self.records >= self.events[-1]["records_written"]


def _watch(
    console: Console, loader: subprocess.Popen[bytes], servers: str, duration: float, stop: Callable[[], None]
) -> _Seen:
    """Read the topics and show what is there; stop the loader when its time is over, and read on to the end."""
    seen = _Seen()
    reader = Consumer({"bootstrap.servers": servers, "group.id": "demo", "enable.auto.commit": False})
    show = _Screen(seen) if console.is_terminal else _Lines(console, seen)

    def ended() -> bool:
        return loader.poll() is not None

    def read_until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            for message in reader.consume(5000, timeout=0.1):
                if message.error() is None:
                    seen.take(message.topic(), (message.value() or b"").decode())
            show.update()

    try:
        reader.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in (TRADES, EVENTS)
                for partition in reader.list_topics(topic, timeout=10).topics[topic].partitions
            ]
        )
        with Live(show, console=console, transient=True) if isinstance(show, _Screen) else nullcontext():
            read_until(lambda: ended() or bool(seen.events), _PATIENCE)
            read_until(ended, duration)
            stop()
            read_until(ended, _PATIENCE)
            read_until(lambda: seen.complete, _PATIENCE if loader.poll() == 0 else 1.0)
    finally:
        reader.close()
    return seen


class _Rate:
    """Records a second, over about the last second."""

    def __init__(self) -> None:
        self._from = (time.monotonic(), 0)
        self.value = 0.0

    def update(self, records: int) -> bool:
        """Whether a second has passed and the rate is a new one."""
        now, (then, before) = time.monotonic(), self._from
        if now - then < 1:
            return False
        self.value = (records - before) / (now - then)
        self._from = (now, records)
        return True


class _Screen:
    """The topics on a terminal, drawn anew as they change; nothing wraps."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen
        self._rate = _Rate()

    def update(self) -> None:
        self._rate.update(self._seen.records)

    def __rich__(self) -> Group:
        seen = self._seen
        counts = f"[bold green]{self._rate.value:,.0f}[/] trades/s   [bold]{seen.records:,}[/] records on the topic"
        lines = [Text.from_markup(f"\n{counts}\n")]
        lines += [Text(TRADES, "bold"), *(Text(value, "cyan") for value in seen.latest)]
        lines += [Text(f"\n{EVENTS}", "bold"), *(_event_line(event) for event in seen.events[-8:])]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)


class _Lines:
    """The same as plain lines: each event as it comes, and once a second the rate and a record."""

    def __init__(self, console: Console, seen: _Seen) -> None:
        self._console = console
        self._seen = seen
        self._rate = _Rate()
        self._shown = 0

    def update(self) -> None:
        for event in self._seen.events[self._shown :]:
            self._print(f"{EVENTS}  {json.dumps(event)}")
        self._shown = len(self._seen.events)
        if self._rate.update(self._seen.records) and self._seen.latest:
            self._print(f"{self._rate.value:,.0f} trades/s, {self._seen.records:,} records on the topic")
            self._print(f"{TRADES}  {self._seen.latest[-1]}")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _event_line(event: dict[str, Any]) -> Text:
    return Text.assemble(
        (f"{event['status']:<12}", "bold yellow" if event["finished"] else "yellow"), f"{event['message']}"
    )


def _sum_up(console: Console, seen: _Seen, code: int, log: str) -> int:
    """Show what was received, delivered and read, and whether it all fits together; the exit code."""
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    received = next((entry["received"] for entry in reversed(entries) if "received" in entry), 0)
    delivered = seen.events[-1]["records_written"] if seen.events else 0
    statuses = [event["status"] for event in seen.events]
    in_order = statuses[:1] == ["started"] and set(statuses[1:-1]) <= {"loading"} and statuses[-1:] == ["interrupted"]
    rows: list[tuple[str, object, bool]] = [
        ("trades received from the exchange", received, received > 0),
        ("delivered, as telemetry says", delivered, delivered == received),
        ("records read back from the topic", seen.records, seen.records == received),
        ("out of order, missing or twice", seen.out_of_order, seen.out_of_order == 0),
        (
            "events",
            f"started, {len(statuses) - 2} x loading, interrupted" if in_order else ", ".join(statuses),
            in_order,
        ),
        ("exit code after the stop command", code, code == 0),
    ]
    table = Table(title="\nWhat happened", title_justify="left", title_style="bold", show_header=False)
    for what, value, right in rows:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(what, shown, "[green]ok[/]" if right else "[red]wrong[/]")
    console.print(table)
    if all(right for _, _, right in rows):
        return 0
    console.print(log, markup=False, highlight=False, soft_wrap=True)
    return 1
