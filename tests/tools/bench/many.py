"""The whole exchange in one process: the parts `exchange`, `highest` and `restart`.

The simulated exchange has as many pairs as the real one, at rates as uneven as the real ones. A record's delay is the
broker's time, when it was appended, less the time of its trade: both are this machine's clock, in milliseconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition

from loader_ws_trades.sandbox.market.crowd import symbols
from tests.tools.bench.contenders import LOADER, Run
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.process import Measured, RunError
from tests.tools.bench.rates import Watch
from tests.tools.bench.stamps import percentiles
from tests.tools.waiting import wait_for

if TYPE_CHECKING:
    from tests.tools.bench.measures import Bench

ALL = {"SYMBOL": "", "SYMBOLS": "*", "MAX_RECORDS": ""}
_STOPPED = 143
_START = 120.0  # seconds for all pairs to be subscribed
_BEHIND = 2000  # milliseconds that the newest records may be late
_LADDER = (5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000)
_SINGLES = 20
_BUDGET = 3000  # request weight a minute, the default of `REST_WEIGHT_LIMIT`
_QUIET = 100  # request weight in a look's time that stream checks need at most, where repair needs more


class Record(NamedTuple):
    """One record, without its price and quantity."""

    symbol: str
    issued: int
    """Milliseconds since 1970, as `appended`."""
    appended: int

    @property
    def delay(self) -> int:
        return self.appended - self.issued


class _Fields(msgspec.Struct):
    symbol: str
    timestamp: int


def exchange(bench: Bench) -> None:
    """What all pairs in one process take, and what they would take in a process each."""
    scale = bench.scale
    spec = MarketSpec(count=0, symbols=scale.pairs, rate=scale.pairs_rate)
    part = f"{scale.pairs:,} pairs, {scale.pairs_rate:,.0f} trades/s in all, for {scale.pairs_seconds:g} s"
    watch = Watch(bench.arena, scale.pairs_seconds)
    with bench.arena.exchange(spec) as (simulated, where):
        with _loader(bench, where, ALL) as (process, run):
            opened = _subscribed(simulated, scale.pairs)
            bench.say(f"exchange: {scale.pairs:,} pairs in one process")
            before = simulated.cpu()
            watch.during(process)
            spent = simulated.cpu() - before
            _note(bench, part, "one process", watch, [process])
            bench.results.add(part, "the simulated exchange's CPU", "% of a core", LOADER, spent * 100 / watch.seconds)
            found = [record for record in _records(bench, run.topic) if watch.covers(record.appended)]
            bench.results.add(part, "trades", "a second", LOADER, len(found) / watch.seconds)
            for name, value in percentiles([record.delay / 1000 for record in found]).items():
                bench.results.add(part, f"one process, from issue to append, {name}", "ms", LOADER, value)
            first = {record.symbol: record.delay for record in reversed(list(_records(bench, run.topic)))}
            bench.results.add(part, "from exec to the last pair's subscription", "s", LOADER, opened - process.began)
            name = f"the first record of each of {len(first):,} pairs, from issue to append, at most"
            bench.results.add(part, name, "ms", LOADER, max(first.values()))
            _end(process)
        _singles(bench, part, simulated, where)


def _singles(bench: Bench, part: str, simulated: Measured, where: dict[str, Any]) -> None:
    """Some pairs in a process each; each stands for the pairs that are about as active as it is."""
    scale = bench.scale
    names, strata = symbols(scale.pairs), _strata(scale.pairs)
    bench.say(f"exchange: {len(strata)} pairs in a process each")
    watch = Watch(bench.arena, scale.pairs_seconds)
    with contextlib.ExitStack() as stack:
        started = []
        for low, high in strata:
            name = names[(low + high) // 2]
            settings = {"SYMBOL": name, "MAX_RECORDS": ""}
            before = _ask(simulated)["connections"]
            started.append(stack.enter_context(_loader(bench, where, settings))[0])
            wait_for(lambda: _ask(simulated)["connections"] > before, f"the loader of {name}", _START)  # noqa: B023
        time.sleep(5)
        watch.during(*started)
        sizes = [high - low for low, high in strata]
        cpu = [watch.of(process.pid) * 100 / watch.seconds for process in started]
        memory = [process.memory("Pss") for process in started]
        _note(bench, part, f"{len(started)} processes", watch, started)
        label = f"a process each, extrapolated from {len(started)} to {scale.pairs:,}"
        weighed = sum(one * size for one, size in zip(cpu, sizes, strict=True))
        bench.results.add(part, f"{label}: CPU", "% of a core", LOADER, weighed)
        bench.results.add(part, f"{label}: memory (Pss)", "MiB", LOADER, sum(memory) / len(memory) * scale.pairs)
        for process in started:
            process.tell(signal.SIGTERM)
        for process in started:
            process.await_end(60, codes=(_STOPPED,))


def highest(bench: Bench) -> None:
    """The highest rate at which nothing falls behind: of the simulated exchange alone, and of the loader."""
    for name in ("the simulated exchange alone", "the loader"):
        best = 0.0
        for rate in _LADDER:
            bench.say(f"highest: {name}, {rate:,} trades/s")
            found, worst = (_drained if name.endswith("alone") else _loaded)(bench, rate)
            bench.say(f"highest: {found:,.0f} trades/s, {worst:,.0f} ms behind at most")
            if worst > _BEHIND or found < rate * 0.9:
                break
            best = max(best, found)
        part = f"highest rate of {bench.scale.pairs:,} pairs with nothing more than {_BEHIND / 1000:g} s late"
        bench.results.add(part, name, "trades/s", LOADER, best, better="higher")


def _drained(bench: Bench, rate: int) -> tuple[float, float]:
    spec = MarketSpec(count=0, symbols=bench.scale.pairs, rate=rate)
    with bench.arena.exchange(spec) as (_, where):
        arguments = [where["combined"], str(bench.scale.pairs), str(bench.scale.highest)]
        process = Measured([sys.executable, "-m", "tests.tools.bench.drain", *arguments], {}, bench.arena.path("drain"))
        try:
            shown = json.loads(process.await_text('"rate"', _START + bench.scale.highest))
        finally:
            process.close()
    return shown["rate"], shown["worst"]


def _loaded(bench: Bench, rate: int) -> tuple[float, float]:
    spec = MarketSpec(count=0, symbols=bench.scale.pairs, rate=rate)
    with bench.arena.exchange(spec) as (simulated, where), _loader(bench, where, ALL) as (process, run):
        _subscribed(simulated, bench.scale.pairs)
        time.sleep(3)
        first = time.time() * 1000
        time.sleep(bench.scale.highest)
        last = time.time() * 1000
        process.tell(signal.SIGKILL)
        process.await_end(10, codes=(-signal.SIGKILL, 128 + signal.SIGKILL))
        found = [record for record in _records(bench, run.topic) if first <= record.appended < last]
    # Of those in the last quarter: what was late before has been caught up with, or it still is.
    late = [record.delay for record in found if record.appended > last - (last - first) / 4]
    return len(found) * 1000 / (last - first), max(late, default=float("inf"))


def restart(bench: Bench) -> None:
    """How long pairs that moved while the loader was down take to be in order again, and what the others notice."""
    scale = bench.scale
    spec = MarketSpec(count=0, symbols=scale.pairs, rate=scale.pairs_rate)
    part = f"restart of {scale.pairs:,} pairs after {scale.down:g} s at {scale.pairs_rate:,.0f} trades/s in all"
    with bench.arena.exchange(spec) as (simulated, where), _loader(bench, where, ALL) as (process, run):
        _subscribed(simulated, scale.pairs)
        time.sleep(2 * scale.down)  # only pairs that had a trade before are resumed
        _end(process)
        bench.say(f"restart: down for {scale.down:g} s")
        time.sleep(scale.down)
        again = Measured(bench.loader.command(run), bench.loader.environment(run), bench.arena.path("again.log"))
        try:
            opened = _subscribed(simulated, scale.pairs)
            weight = _await_quiet(bench, simulated)
            _end(again)
        finally:
            again.close()
        found = [record for record in _records(bench, run.topic) if record.appended > again.began * 1000]
    missed = [record for record in found if record.issued < opened * 1000]
    moved = {record.symbol for record in missed}
    first = {record.symbol: record.delay / 1000 for record in reversed(found) if record.symbol not in moved}
    rows = [
        ("pairs that moved", "", len(moved)),
        ("trades that were missed", "", len(missed)),
        ("request weight", "", weight),
        ("what the budget takes for that weight", "s", weight * 60 / _BUDGET),
        ("from exec to the last pair's subscription", "s", opened - again.began),
        ("from exec until all are in order again", "s", max(one.appended for one in missed) / 1000 - again.began),
        ("pairs that had not moved and had a trade", "", len(first)),
    ]
    rows += [
        (f"the first record of a pair that had not moved, from issue to append, {name}", "ms", value)
        for name, value in percentiles(list(first.values())).items()
    ]
    for name, unit, value in rows:
        bench.results.add(part, name, unit, LOADER, value)


@contextlib.contextmanager
def _loader(bench: Bench, where: dict[str, Any], settings: dict[str, str]) -> Iterator[tuple[Measured, Run]]:
    with bench.arena.topics() as (topic, control, events):
        run = Run(
            trades=0,
            stream=where["stream"],
            ws_url=where["ws"],
            rest_url=where["rest"],
            servers=bench.arena.cluster.bootstrap_servers,
            topic=topic,
            control_topic=control,
            events_topic=events,
            ca=None,
            settings=settings,
        )
        process = Measured(bench.loader.command(run), bench.loader.environment(run), bench.arena.path("loader.log"))
        try:
            yield process, run
        finally:
            process.close()


def _end(process: Measured) -> None:
    process.tell(signal.SIGTERM)
    process.await_end(60, codes=(_STOPPED,))


def _strata(pairs: int) -> list[tuple[int, int]]:
    """Ranges of ranks that together are all pairs, each some times as long as the one before."""
    factor = pairs ** (1 / _SINGLES)
    edges = sorted({0, pairs, *(round(factor**number) for number in range(1, _SINGLES))})
    return list(itertools.pairwise(edges))


def _note(bench: Bench, part: str, who: str, watch: Watch, processes: list[Measured]) -> None:
    spent = sum(watch.cpu().values())
    bench.results.add(part, f"{who}: CPU", "% of a core", LOADER, spent * 100 / watch.seconds)
    bench.results.add(part, f"{who}: memory", "MiB", LOADER, sum(process.memory() for process in processes))
    bench.results.add(part, f"{who}: the broker's CPU", "% of a core", LOADER, watch.broker * 100 / watch.seconds)


def _subscribed(simulated: Measured, pairs: int) -> float:
    """Wait until all streams have a subscriber; the Unix time of that."""
    wait_for(lambda: _ask(simulated)["subscribed"] >= pairs, "the subscriptions of all pairs", _START)
    return time.time()


def _ask(simulated: Measured) -> dict[str, int]:
    """How far the clients of the exchange are."""
    number = simulated.text().count('"state"')
    simulated.tell(signal.SIGUSR1)
    found: dict[str, int] = json.loads(simulated.await_text(f'"state": {number},', 10))
    return found


def _await_quiet(bench: Bench, simulated: Measured) -> int:
    """Wait until REST has been asked for little for some seconds; the weight that it took until then."""
    weights = [_ask(simulated)["weight"]]
    deadline = time.monotonic() + 600
    while len(weights) < 5 or weights[-1] - weights[-4] > _QUIET:
        if time.monotonic() > deadline:
            raise RunError("repair does not end")
        time.sleep(5)
        weights.append(_ask(simulated)["weight"])
        bench.say(f"restart: a weight of {weights[-1]:,} so far")
    return int(weights[-1] - weights[0])


def _records(bench: Bench, topic: str) -> Iterator[Record]:
    """All records of a topic that has one partition."""
    consumer = Consumer({"bootstrap.servers": bench.arena.cluster.bootstrap_servers, "group.id": "bench"})
    decode = msgspec.json.Decoder(_Fields).decode
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
        consumer.assign([TopicPartition(topic, 0, 0)])
        offset = -1
        while offset < high - 1:
            messages = consumer.consume(10_000, timeout=10)
            if not messages:
                raise RunError(f"{topic} could not be read to its end")
            for message in messages:
                offset = message.offset() or 0
                fields = decode(message.value() or b"")
                yield Record(fields.symbol, fields.timestamp, message.timestamp()[1])
    finally:
        consumer.close()
