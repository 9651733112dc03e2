"""What a second connection gives and costs: the parts `cuts`, `connections` and `racing`.

They are not run by default: together they take half an hour.
"""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.tools.bench.contenders import LOADER
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.latency import WARM_UP, Pace, even_frames
from tests.tools.bench.process import RunError
from tests.tools.bench.stamps import load, percentiles

if TYPE_CHECKING:
    from tests.tools.bench.arena import Outcome
    from tests.tools.bench.measures import Bench

_CUTS, _CUT_RATE = 10, 500
_APART = 3.0  # seconds from one cut to the next
_RACING_RATE = 10
_RACING = "delay:each,connection=1,seconds=3ms,p99=150ms,seed={}"


def cuts(bench: Bench) -> None:
    """The delay from a trade's issue to its acknowledgement while connections are cut: with one and with two."""
    pace = even_frames(bench.arena.path("even.jsonl"), (_CUTS + 1.5) * _APART, _CUT_RATE)
    part = f"delay from issue to acknowledgement over {_CUTS} cuts at {_CUT_RATE} trades/s"
    count = int(_APART * _CUT_RATE)
    # Each connection that is cut has a number, and lasts until its slot's turn comes again.
    arms = {
        "one connection": (1, [_cut(number, count) for number in range(1, _CUTS + 1)]),
        "two connections": (2, [_cut(number, count * min(number, 2)) for number in range(1, _CUTS + 1)]),
        "two connections without cuts": (2, []),
    }
    bench.say("cuts: a run that does not count")
    _timed(bench, pace, "1", [])
    for number in range(bench.scale.redundancy_rounds):
        for name in _in_turn(list(arms), number):
            connections, faults = arms[name]
            bench.say(f"cuts: round {number + 1} of {bench.scale.redundancy_rounds}, {name}")
            outcome, delays = _timed(bench, pace, str(connections), faults)
            if outcome.connections != connections + len(faults):
                raise RunError(f"{outcome.connections} connections were opened, with {len(faults)} cuts")
            for share, milliseconds in delays.items():
                bench.results.add(part, f"{name}, {share}", "ms", LOADER, milliseconds, better="lower")
            bench.results.add(part, f"{name}, repair requests", "", LOADER, outcome.repairs, better="lower")


def connections(bench: Bench) -> None:
    """What a second connection costs in CPU, at even rates and flat out."""
    part, scale = "CPU of two connections against one", bench.scale
    spent: dict[tuple[str, str], list[float]] = {}
    rates = [(200, scale.even * 4), (2000, scale.even * 2), (None, 0.0)]
    bench.say("connections: a run that does not count")
    bench.arena.race(bench.loader, MarketSpec(count=scale.trades), seconds=120)
    for number in range(scale.redundancy_rounds):
        for rate, seconds in rates:
            name = f"{rate:,} trades/s" if rate else "flat out"
            count = int(rate * seconds) if rate else scale.trades
            for one in _in_turn(["1", "2"], number):
                bench.say(f"connections: round {number + 1} of {scale.redundancy_rounds}, {name}, {one}")
                market = MarketSpec(count=count, rate=rate and float(rate))
                found = bench.arena.race(bench.loader, market, seconds=120, settings={"FEED_CONNECTIONS": one})
                label = f"{name}, {'one connection' if one == '1' else 'two connections'}"
                bench.results.add(part, label, "µs a trade", LOADER, found.cpu, better="lower")
                spent.setdefault((name, one), []).append(found.cpu)
    for name in dict.fromkeys(name for name, _ in spent):
        times = median(spent[name, "2"]) / median(spent[name, "1"])
        bench.results.add(part, f"{name}, two against one", "times", LOADER, times)


def racing(bench: Bench) -> None:
    """What the first of two copies gains where delays are independent: drawn at random, so a simulation."""
    pace = even_frames(bench.arena.path("even.jsonl"), bench.scale.even * 12, _RACING_RATE)
    part = f"racing over a simulated network at {_RACING_RATE} trades/s: from issue to acknowledgement"
    bench.say("racing: a run that does not count")
    bench.arena.race(bench.loader, MarketSpec(count=bench.scale.trades), seconds=120)
    for number in range(bench.scale.redundancy_rounds):
        for one in _in_turn(["1", "2"], number):
            name = "one connection" if one == "1" else "two connections"
            bench.say(f"racing: round {number + 1} of {bench.scale.redundancy_rounds}, {name}")
            _, delays = _timed(bench, pace, one, [_RACING.format(number)])
            for share, milliseconds in delays.items():
                bench.results.add(part, f"{name}, {share}", "ms", LOADER, milliseconds, better="lower")


def _cut(connection: int, trades: int) -> str:
    return f"cut:connection={connection},after={trades}"


def _in_turn(names: list[str], number: int) -> list[str]:
    place = number % len(names)
    return names[place:] + names[:place]


def _timed(bench: Bench, pace: Pace, connections: str, faults: list[str]) -> tuple[Outcome, dict[str, float]]:
    path = bench.arena.path("stamps")
    market = MarketSpec(count=len(pace.due), frames=str(pace.path), faults=faults)
    settings = {"FEED_CONNECTIONS": connections}
    outcome = bench.arena.race(bench.loader, market, seconds=pace.due[-1] + 60, cut_stamps=path, settings=settings)
    return outcome, _delays(path, pace, outcome.begun)


def _delays(path: Path, pace: Pace, begun: float) -> dict[str, float]:
    """Percentiles in milliseconds of the time from when a trade was due to its delivery report."""
    reports = load(path).reports
    if len(reports) != len(pace.due):
        raise RunError(f"{len(reports)} reports of {len(pace.due)} trades")
    first = bisect_left(pace.due, WARM_UP)
    return percentiles([report - begun - due for due, report in zip(pace.due[first:], reports[first:], strict=True)])
