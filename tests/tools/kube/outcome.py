"""What came of one scenario, and the table of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.tools.tables import table

_HEADS = ("scenario", "expected: exit codes, Job", "seen", "records", "wrong", "next pod\nafter s", "verdict")
_WIDTH = 170


@dataclass(frozen=True)
class End:
    """How a Job ended, expected or seen."""

    job: str
    """`Complete`, or `Failed` with the reason."""
    codes: tuple[tuple[int, ...], ...]
    """Exit codes of the pods of each index, in the order in which they were started."""
    counted: int
    """Pods that the Job counts as failed."""
    failed_indexes: str = ""

    def __str__(self) -> str:
        codes = " | ".join(", ".join(map(str, of_index)) for of_index in self.codes)
        indexes = f", failed index {self.failed_indexes}" if self.failed_indexes else ""
        return f"{codes}: {self.job}{indexes}, {self.counted} counted as failed"


@dataclass
class Outcome:
    """One line of the table."""

    scenario: str
    expected: End
    seen: End | None = None
    records: int | None = None
    """Records on the topic of trades."""
    wrong: int | None = None
    """Trades that are lost, there twice, out of order or altered."""
    pauses: list[float] = field(default_factory=list)
    """Seconds from the end of a pod to the start of the one in its place."""
    overridden: dict[str, str] = field(default_factory=dict)
    """Variables whose value was not the manifest's, and what it was."""
    broken: list[str] = field(default_factory=list)
    """Guarantees that were broken."""

    @property
    def passed(self) -> bool:
        """Whether it ended as expected, with no guarantee broken."""
        return not self.broken and self.seen == self.expected


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """One line for each outcome, then what was broken or not as in the manifest, then how many passed."""
    yield table(_HEADS, map(_cells, outcomes), right={3, 4, 5}, width=_WIDTH)
    for outcome in outcomes:
        yield from (f"{outcome.scenario}: {text}" for text in outcome.broken)
    overridden = {name: text for outcome in reversed(outcomes) for name, text in outcome.overridden.items()}
    yield from (f"Not as in the manifest: {name}: {overridden[name]}" for name in sorted(overridden))
    passed = sum(outcome.passed for outcome in outcomes)
    yield f"{passed} of {len(outcomes)} scenarios as expected."


def _cells(outcome: Outcome) -> list[str]:
    return [
        outcome.scenario,
        str(outcome.expected),
        str(outcome.seen or "-"),
        "-" if outcome.records is None else str(outcome.records),
        "-" if outcome.wrong is None else str(outcome.wrong),
        ", ".join(f"{pause:.1f}" for pause in outcome.pauses) or "-",
        "as expected" if outcome.passed else "WRONG",
    ]
