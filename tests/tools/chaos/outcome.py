"""The outcome of one line of the fault matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

COLUMNS = ("lost", "duplicated", "out_of_order", "altered")
"""The counts that must be 0."""


@dataclass(frozen=True)
class Counts:
    """What an independent consumer found, compared with what the exchange issued."""

    issued: int
    """Trades the topic must have: all from the first one to the newest on the topic, or to the trial's goal."""
    on_topic: int
    lost: int
    duplicated: int
    out_of_order: int
    altered: int
    """Records with another field, digit, key or timestamp than the exchange's trade, or with an id it never issued."""
    examples: str = ""
    """Some of the ids that are wrong."""

    def faults(self, expected: Collection[str] = ()) -> list[str]:
        """What is wrong, for people, except in the `expected` columns."""
        found = {column: getattr(self, column) for column in COLUMNS if column not in expected}
        return [f"{count} {column.replace('_', ' ')} ({self.examples})" for column, count in found.items() if count]


def total(counts: Mapping[str, Counts]) -> Counts:
    """The sums of several pairs' counts."""
    if len(counts) == 1:
        return next(iter(counts.values()))
    sums = {name: sum(getattr(one, name) for one in counts.values()) for name in ("issued", "on_topic", *COLUMNS)}
    examples = "; ".join(f"{symbol} {one.examples}" for symbol, one in counts.items() if one.examples)
    return Counts(**sums, examples=examples)


@dataclass
class Outcome:
    """One line of the table."""

    row: int
    name: str
    counts: Counts | None = None
    detect: float | None = None
    """Seconds from the fault's strike to the first sign of it in the loader's log."""
    recover: float | None = None
    """Seconds from the fault's end until everything issued by then was on the topic."""
    exit_codes: list[int] = field(default_factory=list)
    peak_memory: float | None = None
    """MB that the loader held at most."""
    broken: list[str] = field(default_factory=list)
    """Guarantees that were broken."""
    log: str = field(default="", repr=False)
    """What the loaders wrote to standard error."""
    remark: str = ""
    not_run: str = ""
    """Why it could not be run here."""

    @property
    def passed(self) -> bool:
        """Whether it ran and broke no guarantee."""
        return not self.broken and not self.not_run

    def check(self) -> None:
        """Raise `AssertionError` with all broken guarantees."""
        assert self.passed, f"{self.row} {self.name}: {'; '.join([*self.broken, self.not_run])}"
