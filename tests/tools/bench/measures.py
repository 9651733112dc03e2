"""The parts of the benchmark, each of which adds rows to the results.

Contenders run in turn, round by round, so that what else the machine does hits all of them.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.tools.apache_kafka.cluster import free_port
from tests.tools.bench import latency, many, rates, redundancy
from tests.tools.bench.arena import Arena
from tests.tools.bench.contenders import CONTENDERS, LOADER, Contender
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.process import Measured
from tests.tools.bench.results import Results
from tests.tools.scrape import ask
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

_ENDLESS = 1_000_000_000
_STOPPED = 143


class Scale(NamedTuple):
    """How much is run: rounds, and seconds or trades of each."""

    rounds: int
    trades: int
    latency_rounds: int
    even: float
    bursts: float
    settling: float
    outage: float
    redundancy_rounds: int
    window: float
    window_rounds: int
    pairs: int
    pairs_rate: float
    pairs_seconds: float
    highest: float
    """Seconds of one step on the way to the highest rate."""
    down: float


FULL = Scale(
    rounds=5,
    trades=1_000_000,
    latency_rounds=3,
    even=10.0,
    bursts=50.0,
    settling=10.0,
    outage=60.0,
    redundancy_rounds=5,
    window=10.0,
    window_rounds=3,
    pairs=1600,
    pairs_rate=3000.0,
    pairs_seconds=120.0,
    highest=20.0,
    down=30.0,
)
QUICK = Scale(
    rounds=2,
    trades=300_000,
    latency_rounds=1,
    even=5.0,
    bursts=15.0,
    settling=3.0,
    outage=10.0,
    redundancy_rounds=1,
    window=4.0,
    window_rounds=1,
    pairs=400,
    pairs_rate=1000.0,
    pairs_seconds=15.0,
    highest=8.0,
    down=10.0,
)


class Bench(NamedTuple):
    """What every part gets."""

    arena: Arena
    results: Results
    scale: Scale
    contenders: tuple[Contender, ...]
    say: Callable[[str], None]

    @property
    def loader(self) -> Contender:
        return CONTENDERS[0]

    def in_turn(self, number: int) -> tuple[Contender, ...]:
        """The contenders, another one first in each round: who follows whom must not decide."""
        place = number % len(self.contenders)
        return self.contenders[place:] + self.contenders[:place]


def saturation(bench: Bench) -> None:
    """How many trades a second a contender takes from the socket to the topic at most, and what one costs."""
    scale = bench.scale
    for scheme in ("ws", "wss"):
        bench.say(f"saturation {scheme}: a run that does not count")
        market = MarketSpec(count=scale.trades)
        bench.arena.race(bench.loader, market, seconds=120, tls=scheme == "wss")
        for number in range(scale.rounds):
            for contender in bench.in_turn(number):
                bench.say(f"saturation {scheme}: round {number + 1} of {scale.rounds}, {contender.name}")
                market = MarketSpec(count=int(scale.trades * contender.share))
                found = bench.arena.race(contender, market, seconds=120, tls=scheme == "wss")
                part = f"saturation over {scheme}://"
                bench.results.add(part, "rate", "trades/s", contender.name, found.rate, better="higher")
                bench.results.add(part, "CPU", "µs a trade", contender.name, found.cpu, better="lower")
                bench.results.add(part, "memory at most", "MiB", contender.name, found.peak)


def stages(bench: Bench) -> None:
    """What a trade costs the loader, stage by stage; with clocks in its way, so only the shares count."""
    for number in range(bench.scale.rounds):
        bench.say(f"stages: round {number + 1} of {bench.scale.rounds}")
        path = bench.arena.path("stages.json")
        bench.arena.race(bench.loader, MarketSpec(count=bench.scale.trades), seconds=120, stages=path)
        found: dict[str, float] = json.loads(path.read_text())
        total = sum(found.values())
        for stage, spent in found.items():
            part = "CPU of the loader by stage, timed (ws://)"
            bench.results.add(part, stage, "%", LOADER, spent / total * 100)


def metrics(bench: Bench) -> None:
    """What it costs the hot path to be asked for metrics each second, which is more often than Prometheus asks."""
    for number in range(bench.scale.rounds):
        for asked in (True, False) if number % 2 else (False, True):
            what = "asked for metrics each second" if asked else "without metrics"
            bench.say(f"metrics: round {number + 1} of {bench.scale.rounds}, {what}")
            port = free_port() if asked else None
            with _asked(port):
                found = bench.arena.race(
                    bench.loader, MarketSpec(count=bench.scale.trades), seconds=120, metrics_port=port
                )
            part = "the loader with and without metrics, flat out (ws://)"
            bench.results.add(part, f"rate, {what}", "trades/s", LOADER, found.rate)
            bench.results.add(part, f"CPU, {what}", "µs a trade", LOADER, found.cpu)


@contextlib.contextmanager
def _asked(port: int | None) -> Iterator[None]:
    """A thread that asks for the metrics at `port`, if there is one."""
    ended = threading.Event()

    def scrape() -> None:
        while port and not ended.wait(1.0):
            with contextlib.suppress(OSError):
                ask(port, "/metrics")

    thread = threading.Thread(target=scrape, name="scrape")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def latencies(bench: Bench) -> None:
    """How long a trade takes, at an even pace and in recorded bursts."""
    scale = bench.scale
    even = latency.even_frames(bench.arena.path("even.jsonl"), scale.even)
    bursts = latency.burst_frames(bench.arena.path("bursts.jsonl"), bench.arena.path("recorded"), scale.bursts)
    bench.say("latency: runs that do not count")
    # The broker's code is slow until Java has compiled it, and the first contender would pay for that.
    bench.arena.race(bench.loader, MarketSpec(count=scale.trades), seconds=120)
    for contender in bench.contenders:
        bench.arena.race(contender, MarketSpec(count=len(even.due), frames=str(even.path)), seconds=60)
    for pace, rounds in ((even, scale.latency_rounds), (bursts, 1)):
        for number in range(rounds):
            for contender in bench.in_turn(number):
                bench.say(f"latency, {pace.name}: round {number + 1} of {rounds}, {contender.name}")
                path = bench.arena.path("stamps")
                market = MarketSpec(count=len(pace.due), frames=str(pace.path))
                outcome = bench.arena.race(contender, market, seconds=pace.due[-1] + 60, stamps=path)
                for name, milliseconds in latency.judged(path, pace, outcome.begun).items():
                    part = f"latency, {pace.name}"
                    bench.results.add(part, name, "ms", contender.name, milliseconds, better="lower")


def memory(bench: Bench) -> None:
    """What the loader needs when nothing comes, at 5,000 trades a second, and after an outage of Kafka."""
    scale, part = bench.scale, "memory"

    def note(name: str, process: Measured, field: str = "VmRSS") -> None:
        bench.results.add(part, name, "MiB", LOADER, process.memory(field), better="lower")

    bench.say("memory: idle")
    slow = MarketSpec(count=_ENDLESS, rate=0.01)
    with bench.arena.run(bench.loader, slow) as (process, _, exchange):
        exchange.await_text('"begun"', 60)
        time.sleep(scale.settling)
        note("idle", process)
    bench.say(f"memory: 5,000 trades/s, then {scale.outage:g} s of them without Kafka")
    with bench.arena.run(bench.loader, MarketSpec(count=_ENDLESS, rate=5000.0)) as (process, _, exchange):
        exchange.await_text('"begun"', 60)
        time.sleep(scale.settling)
        note("at 5,000 trades/s", process)
        node = bench.arena.cluster.nodes[0]
        node.stop()
        try:
            time.sleep(scale.outage)
            note(f"after {scale.outage:g} s without Kafka at 5,000 trades/s", process)
        finally:
            node.start()
        # What waited is delivered before it ends.
        process.tell(signal.SIGTERM)
        process.await_end(60, codes=(_STOPPED,))
        name = "at most, the end of the outage included"
        bench.results.add(part, name, "MiB", LOADER, process.peak, better="lower")


def start(bench: Bench) -> None:
    """How long the loader takes to say its help, and to say `started`."""
    for number in range(bench.scale.rounds):
        bench.say(f"start: round {number + 1} of {bench.scale.rounds}")
        began = time.monotonic()
        command = [sys.executable, "-m", "loader_ws_trades", "--help"]
        subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=True)
        spent = (time.monotonic() - began) * 1000
        bench.results.add("start", "--help", "ms", LOADER, spent, better="lower")
        with bench.arena.run(bench.loader, MarketSpec(count=_ENDLESS, rate=0.01)) as (process, run, exchange):
            exchange.await_text('"begun"', 60)
            found = wait_for(lambda: read_topic(run.servers, run.events_topic), "the event started")
            started = found[0].timestamp()[1] - process.began * 1000
            bench.results.add(
                "start", "from exec to the event started on its topic", "ms", LOADER, started, better="lower"
            )


PARTS: dict[str, Callable[[Bench], None]] = {
    "saturation": saturation,
    "stages": stages,
    "metrics": metrics,
    "latency": latencies,
    "memory": memory,
    "start": start,
    "rates": rates.rates,
    "cuts": redundancy.cuts,
    "connections": redundancy.connections,
    "racing": redundancy.racing,
    "exchange": many.exchange,
    "highest": many.highest,
    "restart": many.restart,
}
BY_DEFAULT = ("saturation", "stages", "metrics", "latency", "memory", "start")
