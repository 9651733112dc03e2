"""What a fleet did and took, and the table of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.tools.chaos.outcome import COLUMNS, Counts


class Plan(NamedTuple):
    """A fleet, and for how long it loads before all of it is ended by SIGTERM and started again."""

    symbols: int = 20
    rate: float = 200.0
    """Trades a second of each symbol, on average."""
    seconds: float = 60.0
    partitions: int = 6
    topic_each: bool = False
    """A topic for each symbol, in place of one for all."""


@dataclass
class Report:
    """The measures of one fleet; lists have an entry a symbol."""

    plan: Plan
    counts: dict[str, Counts] = field(default_factory=dict)
    first_trade: list[float] = field(default_factory=list)
    """Seconds from the start of the process to its first trade on the topic, all processes started at once."""
    cpu: list[float] = field(default_factory=list)
    """Shares of a core, while the fleet loads."""
    broker_cpu: float | None = None
    per_trade: float = 0.0
    """Seconds of CPU time."""
    memory: list[float] = field(default_factory=list)
    """MiB resident."""
    proportional: list[float] = field(default_factory=list)
    """MiB with only its share of what processes have in common; 0 where the kernel does not say."""
    latency: dict[str, float] = field(default_factory=dict)
    """Milliseconds from the read of a trade's frame to its delivery report, by the percentile's name."""
    drained: float = 0.0
    """Seconds from SIGTERM to all of them until the last one had ended."""
    caught_up: float = 0.0
    """Seconds from the second start, all at once, until each topic had all that its exchange had issued by then."""
    stopped: float = 0.0
    """Seconds from the end of the stop command until the last one had ended."""
    start_weight: int = 0
    restart_weight: int = 0
    peak_weight: int = 0
    connections: int = 0
    broken: list[str] = field(default_factory=list)
    """Guarantees that were broken."""
    about: str = ""

    def judge(self) -> None:
        """Take the counts that should be 0 to what is broken."""
        for symbol, counts in self.counts.items():
            self.broken += [f"{symbol}: {fault}" for fault in counts.faults()]
            if not counts.on_topic:
                self.broken.append(f"{symbol}: no trade on the topic")

    def lines(self) -> list[tuple[str, str]]:
        """The table: what, and how much."""
        plan, counts = self.plan, list(self.counts.values())
        topics = "a topic each" if plan.topic_each else f"one topic of {plan.partitions} partitions"
        proportional = [held for held in self.proportional if held]
        shares = _spread([share * 100 for share in self.cpu], "% of a core")
        found = [
            ("symbols", f"{plan.symbols}, a process each, from one set of variables; {topics}"),
            (
                "pace",
                f"{plan.rate:g} trades/s a symbol, {plan.symbols * plan.rate:,.0f} in all, for {plan.seconds:g} s",
            ),
            ("trades issued", f"{sum(each.issued for each in counts):,}"),
            ("records on topic", f"{sum(each.on_topic for each in counts):,}"),
            *((name.replace("_", " "), f"{sum(getattr(each, name) for each in counts):,}") for name in COLUMNS),
            ("CPU a symbol", f"{shares}; {self.per_trade * 1e6:.0f} us a trade"),
            ("CPU of the fleet", f"{sum(self.cpu) * 100:.0f} % of a core"),
            ("CPU of the broker", "-" if self.broker_cpu is None else f"{self.broker_cpu * 100:.0f} % of a core"),
            ("memory a symbol", f"RSS {_spread(self.memory, 'MB')}"),
            ("", f"PSS {_spread(proportional, 'MB')}, {sum(proportional):.0f} MB in all" if proportional else "PSS -"),
            ("read to report", ", ".join(f"{name} {value:.1f} ms" for name, value in self.latency.items())),
            ("start to first trade", f"{_spread(self.first_trade, 's')}, all started at once"),
            ("SIGTERM to all", f"the last one ended after {self.drained:.1f} s"),
            ("all started again", f"all caught up after {self.caught_up:.1f} s"),
            ("one stop command", f"the last one ended {self.stopped:.1f} s after it"),
            ("REST weight", f"{self.start_weight} for the start, {self.restart_weight} for the second one"),
            ("", f"{self.peak_weight} in one minute at most, of the 6,000 of an IP"),
            ("connections", f"{self.connections} of the 300 in 5 minutes of an IP"),
            ("machine", self.about),
        ]
        return [*found, *(("BROKEN", text) for text in self.broken)]


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.1f} {unit}, at most {max(values):.1f}" if values else "-"
