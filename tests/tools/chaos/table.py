"""The table of all scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tests.tools.chaos.outcome import COLUMNS, Outcome
from tests.tools.tables import table

_HEADS = (
    *("#", "fault", "issued", "on topic", "lost", "dupli-\ncated", "out of\norder", "altered"),
    *("seconds\nto detect", "seconds\nto recover", "exit\ncodes", "peak\nMB", ""),
)


def report(outcomes: Sequence[Outcome], seed: int) -> Iterator[str]:
    """One line for each outcome, then what was broken, then how many rows passed."""
    yield table(_HEADS, map(_cells, outcomes), right={0, *range(2, 12)})
    for outcome in outcomes:
        for text in (outcome.remark, outcome.not_run and f"not run: {outcome.not_run}", *outcome.broken):
            if text:
                yield f"{outcome.row} {outcome.name}: {text}"
    rows = {number: list(lines) for number, lines in groupby(outcomes, lambda outcome: outcome.row)}
    passed = [number for number, lines in rows.items() if all(line.passed for line in lines)]
    good = sum(outcome.passed for outcome in outcomes)
    yield f"Seed {seed}. {len(passed)} of {len(rows)} rows passed, {good} of {len(outcomes)} lines."


def _cells(outcome: Outcome) -> list[str]:
    counts = outcome.counts
    return [
        str(outcome.row),
        outcome.name,
        *(("-" if counts is None else str(getattr(counts, name))) for name in ("issued", "on_topic", *COLUMNS)),
        *(("-" if seconds is None else f"{seconds:.1f}") for seconds in (outcome.detect, outcome.recover)),
        _codes(outcome.exit_codes),
        "-" if outcome.peak_memory is None else f"{outcome.peak_memory:.0f}",
        "" if outcome.passed else "not run" if outcome.not_run else "BROKEN",
    ]


def _codes(codes: Sequence[int]) -> str:
    runs = [(code, len(list(run))) for code, run in groupby(codes)]
    return " ".join(f"{code}" if count == 1 else f"{code}x{count}" for code, count in runs) or "-"
