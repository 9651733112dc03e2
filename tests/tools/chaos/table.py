"""The table of all lines, for people: on a terminal, or as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.tools.chaos.outcome import Outcome

_WIDTH = 190
_COUNTS = ("issued", "on_topic", "lost", "duplicated", "out_of_order", "altered")
_HEADS = (
    *("issued", "on topic", "lost", "dupli-\ncated", "out of\norder", "altered"),
    *("seconds\nto detect", "seconds\nto recover", "exit\ncodes", "peak\nMB"),
)


def print_table(outcomes: Sequence[Outcome], seed: int, file: TextIO) -> None:
    """Print one line for each outcome, below it what was not kept, and at the end how many rows passed."""
    table = Table(box=box.ASCII2 if not file.isatty() else box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("fault", no_wrap=True)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        table.add_row(*map(Text, _cells(outcome)), style="" if outcome.passed else "red")
    # A file has no width that would be too small.
    console = Console(file=file, width=None if file.isatty() else _WIDTH, highlight=False)
    console.print(table)
    for outcome in outcomes:
        for text in (outcome.remark, outcome.not_run and f"not run: {outcome.not_run}", *outcome.broken):
            if text:
                console.print(Text(f"{outcome.row} {outcome.name}: {text}"))
    rows = {number: list(lines) for number, lines in groupby(outcomes, lambda outcome: outcome.row)}
    passed = [number for number, lines in rows.items() if all(line.passed for line in lines)]
    good = sum(outcome.passed for outcome in outcomes)
    console.print(f"Seed {seed}. {len(passed)} of {len(rows)} rows passed, {good} of {len(outcomes)} lines.")


def _cells(outcome: Outcome) -> list[str]:
    counts = outcome.counts
    return [
        str(outcome.row),
        outcome.name,
        *(("-" if counts is None else str(getattr(counts, name))) for name in _COUNTS),
        *(("-" if seconds is None else f"{seconds:.1f}") for seconds in (outcome.detect, outcome.recover)),
        _codes(outcome.exit_codes),
        "-" if outcome.peak_memory is None else f"{outcome.peak_memory:.0f}",
        "" if outcome.passed else "not run" if outcome.not_run else "BROKEN",
    ]


def _codes(codes: Sequence[int]) -> str:
    runs = [(code, len(list(run))) for code, run in groupby(codes)]
    return " ".join(f"{code}" if count == 1 else f"{code}x{count}" for code, count in runs) or "-"
