"""What a trade costs at the rates that pairs have: the part `rates`.

A contender runs for some seconds; between two looks at /proc, away from its start and its end, its threads' CPU time
and context switches, and the broker's CPU time, are counted. The broker's log on disk says how many requests those
trades took: each batch of records in it was one. The fast contenders also run at the same time, because they
differ by less than the speed of the machine and of the broker does from run to run.
"""

from __future__ import annotations

import contextlib
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.tools import usage
from tests.tools.bench.contenders import Contender
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.latency import EVEN_RATE, WARM_UP, Pace, burst_frames, even_frames, judged
from tests.tools.bench.process import Measured, RunError

if TYPE_CHECKING:
    from tests.tools.bench.arena import Arena
    from tests.tools.bench.measures import Bench

_RATES = (1, 20, 200, EVEN_RATE)
_SIDE_BY_SIDE = (200, EVEN_RATE)
_TIMED = 300  # trades at least, for a p99
_STARTS = 30.0  # seconds for all that run at the same time to start
_KEPT_UP = 0.95  # share of the trades that each of them must have written, or it has fallen behind
_TAIL = 1.0  # seconds of trades after the second look, or two trades where they are rarer
_MAIN, _OTHERS, _LIBRDKAFKA = "CPU of the main thread", "CPU of other threads of Python", "CPU of librdkafka's threads"
_ENDLESS, _STOPPED = 1_000_000_000, 143
_BATCH = struct.Struct(">qiibIhiqqqhii")  # a batch's header in Kafka's log, from the base offset to the record count


class Look(NamedTuple):
    """What the kernel had counted at a moment."""

    clock: float
    """Seconds since 1970: the clock of the broker's log."""
    threads: dict[int, usage.Thread]
    processes: dict[int, float]
    """Seconds of CPU of each process with its children."""
    broker: float


class Watch:
    """Looks at a contender and the broker twice, `seconds` apart, and says what happened in between."""

    def __init__(self, arena: Arena, seconds: float) -> None:
        self._arena = arena
        self._seconds = seconds

    def during(self, *processes: Measured) -> None:
        """Watch them from the end of the warm-up on."""
        time.sleep(WARM_UP)
        self._families = {process.pid: usage.family(process.pid) for process in processes}
        self.pids = [pid for family in self._families.values() for pid in family]
        self._first = self._look()
        time.sleep(self._seconds)
        self._last = self._look()
        for process in processes:
            if usage.stat(process.pid)[:1] in ([], ["Z"]):
                raise RunError(f"it ended while it was watched\n{process.text()[-3000:]}")

    def after(self, topic: str) -> None:
        """Count what it wrote between the two looks."""
        self.written = written(self._arena.logs / f"{topic}-0", self._first.clock, self._last.clock)

    def _look(self) -> Look:
        found = {number: thread for pid in self.pids for number, thread in usage.threads(pid).items()}
        processes = {
            pid: sum(thread.cpu for member in family for thread in usage.threads(member).values())
            for pid, family in self._families.items()
        }
        broker = usage.threads(self._arena.cluster.nodes[0].pid or 0)
        return Look(time.time(), found, processes, sum(thread.cpu for thread in broker.values()))

    @property
    def seconds(self) -> float:
        """The time between the two looks."""
        return self._last.clock - self._first.clock

    def covers(self, moment: int) -> bool:
        """Whether a time in milliseconds since 1970 lies between the two looks."""
        return self._first.clock * 1000 <= moment < self._last.clock * 1000

    def of(self, pid: int) -> float:
        """Seconds of CPU that one of the processes took."""
        return self._last.processes[pid] - self._first.processes[pid]

    @property
    def broker(self) -> float:
        """Seconds of CPU that the broker took."""
        return self._last.broker - self._first.broker

    @property
    def switches(self) -> float:
        """Context switches of the process."""
        return sum(thread.switches for _, thread in self._spent())

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU by kind of thread; Python names threads for the kernel from 3.14 on only."""
        found = dict.fromkeys((_MAIN, _OTHERS, _LIBRDKAFKA), 0.0)
        for number, thread in self._spent():
            kind = _MAIN if number in self.pids else _LIBRDKAFKA if thread.name.startswith("rdk:") else _OTHERS
            found[kind] += thread.cpu
        return found

    def _spent(self) -> Iterator[tuple[int, usage.Thread]]:
        """By thread what it took; one that was started in between began at nothing."""
        for number, thread in self._last.threads.items():
            before = self._first.threads.get(number, usage.Thread("", 0.0, 0))
            yield number, usage.Thread(thread.name, thread.cpu - before.cpu, thread.switches - before.switches)


class Written(NamedTuple):
    """What a contender wrote to its topic in a time."""

    records: int
    batches: int
    size: int


def written(partition: Path, first: float, last: float) -> Written:
    """The batches that the broker appended to a partition from `first` to `last`, in seconds since 1970."""
    found = []
    for segment in partition.glob("*.log"):
        data, at = segment.read_bytes(), 0
        while at + _BATCH.size <= len(data):
            head = _BATCH.unpack_from(data, at)
            length, maximum, records = head[1], head[8], head[-1]
            if not length:
                break  # allocated and not written yet
            if first * 1000 <= maximum < last * 1000:
                found.append((records, length + 12))
            at += length + 12
    return Written(sum(count for count, _ in found), len(found), sum(size for _, size in found))


def rates(bench: Bench) -> None:
    """What a trade costs at even rates and in recorded bursts, and what an idle loader costs."""
    scale = bench.scale
    paces = [even_frames(bench.arena.path("even.jsonl"), scale.window + max(_TAIL, 2 / rate), rate) for rate in _RATES]
    long_paces = [even_frames(bench.arena.path("even.jsonl"), scale.window + _STARTS, rate) for rate in _SIDE_BY_SIDE]
    length = WARM_UP + scale.window + _TAIL
    bursts = burst_frames(bench.arena.path("bursts.jsonl"), bench.arena.path("recorded"), length)
    bench.say("rates: a run that does not count")
    # The broker's code is slow until Java has compiled it.
    bench.arena.race(bench.loader, MarketSpec(count=scale.trades), seconds=120)
    for number in range(scale.window_rounds):
        for pace in [*paces, bursts]:
            for contender in bench.in_turn(number):
                bench.say(f"rates, {pace.name}: round {number + 1} of {scale.window_rounds}, {contender.name}")
                _count(bench, contender, pace)
                if len(pace.due) > _TIMED:
                    _time(bench, contender, pace)
        for pace in long_paces:
            bench.say(f"rates, {pace.name}, at the same time: round {number + 1} of {scale.window_rounds}")
            _side_by_side(bench, pace, [each for each in bench.in_turn(number) if each.is_fast])
        for contender in bench.in_turn(number):
            if contender.is_loader:
                bench.say(f"rates, idle: round {number + 1} of {scale.window_rounds}, {contender.name}")
                _idle(bench, contender)


def _count(bench: Bench, contender: Contender, pace: Pace) -> None:
    watch = Watch(bench.arena, bench.scale.window)
    bench.arena.race(contender, _market(pace), seconds=pace.due[-1] + 60, watch=watch)
    trades, batches, size = watch.written
    spent = watch.cpu()
    found = {"CPU": sum(spent.values()), **spent}
    rows = [(name, "µs a trade", seconds * 1_000_000 / trades) for name, seconds in found.items()]
    rows += [
        ("context switches", "a second", watch.switches / watch.seconds),
        ("requests with trades", "a second", batches / watch.seconds),
        ("size in the broker's log", "bytes a trade", size / trades),
        ("the broker's CPU", "% of a core", watch.broker * 100 / watch.seconds),
    ]
    for name, unit, value in rows:
        bench.results.add(f"cost, {pace.name}", name, unit, contender.name, value, better="lower")


def _side_by_side(bench: Bench, pace: Pace, contenders: list[Contender]) -> None:
    watch, running = Watch(bench.arena, bench.scale.window), dict[str, tuple[Measured, str]]()
    with contextlib.ExitStack() as stack:
        for contender in contenders:
            process, run, exchange = stack.enter_context(bench.arena.run(contender, _market(pace)))
            exchange.await_text('"begun"', 60)
            running[contender.name] = process, run.topic
        watch.during(*(process for process, _ in running.values()))
        for name, (process, topic) in running.items():
            watch.after(topic)
            if watch.written.records * pace.due[1] < _KEPT_UP * watch.seconds:
                raise RunError(f"{name} fell behind: {watch.written.records} records in {watch.seconds:.1f} s")
            value = watch.of(process.pid) * 1_000_000 / watch.written.records
            bench.results.add(f"cost at the same time, {pace.name}", "CPU", "µs a trade", name, value, better="lower")


def _time(bench: Bench, contender: Contender, pace: Pace) -> None:
    path = bench.arena.path("stamps")
    outcome = bench.arena.race(contender, _market(pace), seconds=pace.due[-1] + 60, stamps=path)
    shown = judged(path, pace, outcome.begun)
    for name in ("from read to report, p50", "from read to report, p99"):
        bench.results.add(f"cost, {pace.name}", name, "ms", contender.name, shown[name], better="lower")


def _market(pace: Pace) -> MarketSpec:
    return MarketSpec(count=len(pace.due), frames=str(pace.path))


def _idle(bench: Bench, contender: Contender) -> None:
    watch = Watch(bench.arena, bench.scale.window)
    with bench.arena.run(contender, MarketSpec(count=_ENDLESS, rate=0.001)) as (process, _, exchange):
        exchange.await_text('"begun"', 60)
        watch.during(process)
        process.tell(signal.SIGTERM)
        process.await_end(60, codes=(_STOPPED,))
    spent = watch.cpu()
    found = {"CPU": sum(spent.values()), **spent, "the broker's CPU": watch.broker}
    rows = [(name, "% of a core", seconds * 100 / watch.seconds) for name, seconds in found.items()]
    for name, unit, value in [*rows, ("context switches", "a second", watch.switches / watch.seconds)]:
        bench.results.add("cost, idle", name, unit, contender.name, value, better="lower")
