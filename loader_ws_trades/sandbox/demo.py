"""The demo: a simulated exchange with two faults, the loader as a process, an embedded broker and a consumer."""

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
from typing import IO, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.faults.connection_faults import Cut
from loader_ws_trades.sandbox.faults.fault import Fault
from loader_ws_trades.sandbox.faults.trade_faults import Skip
from loader_ws_trades.sandbox.market.market import Market
from loader_ws_trades.sandbox.server import Exchange

TRADES, EVENTS, CONTROL = "trades", "queue-events", "queue-control"
_SYMBOL = "BTCUSDT"
_FAULTS: tuple[tuple[str, Fault], ...] = (
    ("cuts the connection", Cut()),
    ("skips the next 5 trades on the stream", Skip(5)),
)
_FAULT_INTERVAL = 5.0  # seconds, or a third of a shorter demo
_TIMEOUT = 30.0  # seconds that the loader has to start, and to end
_SHOWN_LOG_EVENTS = {"connected", "gap", "repaired"}  # and all warnings and errors


def run_demo(duration: float, rate: float, console: Console | None = None) -> int:
    """Run the loader for `duration` seconds at `rate` trades a second; 0 if it lost and duplicated nothing, else 1."""
    console = console or Console()
    with EmbeddedBroker() as broker, Exchange([Market.generated(_SYMBOL, rate=rate)]) as exchange:
        servers, queue_id = broker.bootstrap_servers, f"demo-{uuid.uuid4().hex[:6]}"
        broker.create_topics(TRADES, EVENTS, CONTROL)
        console.print(
            f"A simulated exchange sends {rate:g} trades of {_SYMBOL} a second for {duration:g} s.\n"
            f"It cuts the connection once and skips a few trades once.\n"
        )
        with tempfile.TemporaryFile() as log_file:
            loader = subprocess.Popen(
                [sys.executable, "-m", "loader_ws_trades", "run"],
                env=os.environ
                | loader_variables(exchange, servers, _SYMBOL, queue_id)
                | {"TELEMETRY_INTERVAL": "3", "LOG_FORMAT": "json", "LOG_LEVEL": "info"},
                stdin=subprocess.DEVNULL,
                stderr=log_file,
            )
            topics, log = _Topics(servers), _Log(log_file)
            try:
                display = _Display(console, topics, log)
                _follow(display, loader, exchange, lambda: _send_stop(servers, queue_id), duration)
            except KeyboardInterrupt:
                return _interrupt(console, loader)
            finally:
                topics.close()
                if loader.poll() is None:
                    loader.kill()
                    loader.wait()
            log.read()
            return _summarize(console, topics, log, loader.returncode)


def loader_variables(exchange: Exchange, bootstrap_servers: str, symbol: str | None, queue_id: str) -> dict[str, str]:
    """Return the variables for a loader of the simulated exchange, and a broker that has our three topics.

    Without a symbol it loads all of them.
    """
    return {
        "QUEUE_ID": queue_id,
        **({"SYMBOL": symbol} if symbol else {"SYMBOLS": "*"}),
        "TYPE": "ws_trade",
        "TELEMETRY_PRODUCER_ID": f"loader-ws-trades__{queue_id}",
        "KAFKA_TOPIC": TRADES,
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "QUEUE_EVENTS_TOPIC": EVENTS,
        "QUEUE_CONTROL_TOPIC": CONTROL,
        "BINANCE_WS_URL": exchange.ws_url,
        "BINANCE_REST_URL": exchange.rest_url,
    }


def _send_stop(bootstrap_servers: str, queue_id: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    producer.produce(CONTROL, json.dumps({"command": "stop", "queue_id": queue_id}))
    producer.flush(10)


def _interrupt(console: Console, loader: subprocess.Popen[bytes]) -> int:
    # On a terminal Ctrl-C has reached the loader too, and a second signal would cut its shutdown short.
    if not sys.stdin.isatty():
        loader.send_signal(signal.SIGINT)
    code = loader.wait(_TIMEOUT)
    console.print("Stopped by Ctrl-C.")
    return code


class _Log:
    """The loader's JSON log, read from the file that it writes to."""

    def __init__(self, file: IO[bytes]) -> None:
        self.lines: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self._descriptor = file.fileno()
        self._offset = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the entries that were written since the last call."""
        # The loader shares the file's position: it must not move.
        data = os.pread(self._descriptor, os.fstat(self._descriptor).st_size - self._offset, self._offset)
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = complete.decode(errors="replace").splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        self.lines += lines
        self.entries += entries
        return entries

    def result(self, name: str) -> int:
        """Return a number of the last line, in which the loader sums up its run; 0 if there is none."""
        return next((int(entry[name]) for entry in reversed(self.entries) if name in entry), 0)


class _Topics:
    """What is on the topics of trades and events, read from their beginning."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.records = 0
        self.last_id: int | None = None
        self.missing = 0
        self.disordered = 0
        self.latest: deque[str] = deque(maxlen=3)
        self.events: list[dict[str, Any]] = []
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "demo"})
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in (TRADES, EVENTS)
                for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ]
        )

    def read(self) -> None:
        """Take what has come, after at most 0.1 s."""
        for message in self._consumer.consume(5000, timeout=0.1):
            if message.error() is None:
                self._add(message.topic(), (message.value() or b"").decode())

    def close(self) -> None:
        self._consumer.close()

    def _add(self, topic: str | None, value: str) -> None:
        if topic == EVENTS:
            self.events.append(json.loads(value))
            return
        trade_id = json.loads(value)["trade_id"]
        if self.last_id is not None:
            self.missing += max(trade_id - self.last_id - 1, 0)
            self.disordered += trade_id <= self.last_id
        self.last_id = max(self.last_id or 0, trade_id)
        self.records += 1
        self.latest.append(value)

    @property
    def complete(self) -> bool:
        """Whether the last event has come, and as many records as it says."""
        return bool(self.events) and self.events[-1]["finished"] and self.records >= self.events[-1]["records_written"]


class _Display:
    """A line for each thing that happens; below them, on a terminal, the rate and the latest trades."""

    def __init__(self, console: Console, topics: _Topics, log: _Log) -> None:
        self._console = console
        self.topics = topics
        self.log = log
        self._began = time.monotonic()
        self._events_shown = 0
        self._first_shown = False
        self._rate = 0.0
        self._rate_since = (self._began, 0)
        self.live = Live(get_renderable=self._panel, console=console, auto_refresh=False, transient=True)

    def say(self, source: str, text: str, style: str = "") -> None:
        line = Text(f"{time.monotonic() - self._began:5.1f} s  {source:<13} {text}", style)
        # A recorded screen is as wide as it is.
        self._console.print(line, soft_wrap=not self._console.record, no_wrap=True, overflow="ellipsis")

    def update(self) -> None:
        for entry in self.log.read():
            if entry["level"] != "INFO":
                self.say("loader", entry["message"], "yellow")
            elif entry.get("event") in _SHOWN_LOG_EVENTS:
                self.say("loader", entry["message"], "green")
        topics = self.topics
        if topics.latest and not self._first_shown:
            self._first_shown = True
            self.say(TRADES, topics.latest[0], "cyan")
        for event in topics.events[self._events_shown :]:
            self.say(EVENTS, f"{event['status']}: {event['message']}", "dim")
        self._events_shown = len(topics.events)
        now, (then, before) = time.monotonic(), self._rate_since
        if now - then >= 1:
            self._rate = (topics.records - before) / (now - then)
            self._rate_since = (now, topics.records)
        if self._console.is_terminal:
            self.live.refresh()

    def _panel(self) -> Group:
        topics = self.topics
        counts = f"\n[bold green]{self._rate:,.0f}[/] trades/s   [bold]{topics.records:,}[/] records on the topic"
        counts += f"   [bold {'red' if topics.missing else 'green'}]{topics.missing}[/] missing"
        lines = [Text.from_markup(counts), *(Text(value, "cyan") for value in topics.latest)]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)


def _follow(
    display: _Display, loader: subprocess.Popen[bytes], exchange: Exchange, stop: Callable[[], None], duration: float
) -> None:
    """Show what happens, make the exchange misbehave, then stop the loader and read to the end."""
    topics = display.topics

    def ended() -> bool:
        return loader.poll() is not None

    def read_until(condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            topics.read()
            display.update()

    with display.live:
        read_until(lambda: ended() or bool(topics.events), _TIMEOUT)
        interval = min(duration / (len(_FAULTS) + 1), _FAULT_INTERVAL)
        for what, fault in _FAULTS:
            read_until(ended, interval)
            if not ended():
                display.say("exchange", what, "bold red")
                exchange.inflict(fault)
        read_until(ended, duration - len(_FAULTS) * interval)
        stop()
        read_until(ended, _TIMEOUT)
        read_until(lambda: topics.complete, _TIMEOUT if loader.poll() == 0 else 1.0)
        display.update()


def _summarize(console: Console, topics: _Topics, log: _Log, code: int) -> int:
    """Show what was received, delivered and read back, and whether it agrees; return the exit code."""
    received, repaired = log.result("received"), log.result("repaired")
    delivered = topics.events[-1]["records_written"] if topics.events else 0
    statuses = [event["status"] for event in topics.events]
    in_order = statuses[:1] == ["started"] and set(statuses[1:-1]) <= {"loading"} and statuses[-1:] == ["interrupted"]
    events = f"started, {len(statuses) - 2} x loading, interrupted" if in_order else ", ".join(statuses)
    rows: list[tuple[str, object, bool]] = [
        ("received on the stream", received, received > 0),
        ("+ repaired from REST", repaired, True),
        ("= delivered, according to telemetry", delivered, delivered == received + repaired),
        ("= read back from the topic", topics.records, topics.records == delivered),
        ("missing", topics.missing, topics.missing == 0),
        ("duplicate or out of order", topics.disordered, topics.disordered == 0),
        ("events", events, in_order),
        ("exit code after the stop command", code, code == 0),
    ]
    table = Table(show_header=False)
    for what, value, right in rows:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        table.add_row(what, shown, "[green]ok[/]" if right else "[red]wrong[/]")
    console.print("\nResult", style="bold")
    console.print(table)
    if all(right for _, _, right in rows):
        return 0
    console.print("\n".join(log.lines), markup=False, highlight=False, soft_wrap=True)
    return 1
