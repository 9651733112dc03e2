"""What a benchmark found: rows of values, one a round, for each contender; as a table, as JSON, two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from tests.tools.bench.contenders import LOADER
from tests.tools.tables import MARKDOWN, table

Better = Literal["higher", "lower", ""]


class Row(msgspec.Struct):
    """One measure of one part."""

    part: str
    name: str
    unit: str
    better: Better = ""
    """Which values are better; none: nothing to compare with."""
    values: dict[str, list[float]] = msgspec.field(default_factory=dict)
    """By contender, in the order of the rounds."""


class Results(msgspec.Struct):
    """All of one run."""

    about: dict[str, str]
    rows: list[Row] = msgspec.field(default_factory=list)

    def add(self, part: str, name: str, unit: str, contender: str, value: float, *, better: Better = "") -> None:
        """Note one value of one round."""
        row = self.find(part, name)
        if row is None:
            row = Row(part, name, unit, better)
            self.rows.append(row)
        row.values.setdefault(contender, []).append(value)

    def find(self, part: str, name: str) -> Row | None:
        """The row of that part and name."""
        return next((row for row in self.rows if (row.part, row.name) == (part, name)), None)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self)))


def load(path: Path) -> Results:
    """What `save` wrote.

    Raises:
        msgspec.MsgspecError: if the file holds something else.
    """
    return msgspec.json.decode(path.read_bytes(), type=Results)


def ratios(row: Row, contender: str) -> list[float]:
    """How many times better the loader is than another, round by round."""
    pairs = zip(row.values.get(LOADER, ()), row.values.get(contender, ()), strict=False)
    if row.better == "higher":
        return [ours / theirs for ours, theirs in pairs if theirs]
    return [theirs / ours for ours, theirs in pairs if ours]


def summary(results: Results) -> str:
    """All of it as Markdown: a row a measure, a column a contender."""
    present = {contender for row in results.rows for contender in row.values}
    names = [name for name in results.about if name in present]
    lines = [["measure", "unit", *names]]
    part = ""
    for row in results.rows:
        if row.part != part:
            part = row.part
            lines.append([f"**{part}**", *[""] * (len(names) + 1)])
        lines.append([row.name, row.unit, *(_cell(row, name) for name in names)])
    about = "\n".join(f"{name}: {text}" for name, text in results.about.items())
    return f"{about}\n\n{table(lines[0], lines[1:], box=MARKDOWN)}"


def comparison(before: Results, after: Results) -> str:
    """The medians of two runs, and by how much the second one differs."""
    lines = [["measure", "unit", "contender", "A", "B", "B to A", "verdict"]]
    for row in before.rows:
        other = after.find(row.part, row.name)
        for contender, values in row.values.items():
            others = other.values.get(contender, []) if other else []
            if values and others:
                lines.append([f"{row.part}: {row.name}", row.unit, contender, *_change(row, values, others)])
    keys = [{(row.part, row.name) for row in results.rows} for results in (before, after)]
    alone = [f"only in {name}: {part}: {row}" for name, extra in _extra(*keys) for part, row in sorted(extra)]
    abouts = [f"{name}: A {text}; B {after.about.get(name, '')}" for name, text in before.about.items()]
    return "\n".join([*abouts, "", table(lines[0], lines[1:], box=MARKDOWN), *alone])


def _extra(before: set[tuple[str, str]], after: set[tuple[str, str]]) -> list[tuple[str, set[tuple[str, str]]]]:
    return [("A", before - after), ("B", after - before)]


def _change(row: Row, before: list[float], after: list[float]) -> list[str]:
    old, new = median(before), median(after)
    change = f"{(new / old - 1) * 100:+.1f} %" if old else ""
    apart = min(after) > max(before) or max(after) < min(before)
    if not row.better or len(before) < 2 or len(after) < 2:
        verdict = ""
    elif not apart:
        verdict = "within the spread"
    else:
        verdict = "better" if (new > old) == (row.better == "higher") else "worse"
    return [_spread(before), _spread(after), change, verdict]


def _cell(row: Row, contender: str) -> str:
    values = row.values.get(contender)
    if not values:
        return ""
    against = ratios(row, contender) if row.better and contender != LOADER else []
    return _spread(values) + (f"; {_spread(against)}x" if against else "")


def _spread(values: Sequence[float]) -> str:
    """The median, and from where to where."""
    middle = _number(median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    """Three digits that count."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{float(f'{value:.3g}'):,.{digits}f}"
