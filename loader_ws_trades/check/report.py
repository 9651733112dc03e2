"""The results of a check: a line each as they come in, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from loader_ws_trades.check.steps import Result, exit_code
from loader_ws_trades.text import format_duration

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red", "skip": "dim"}
_MAX_WIDTH = 100


def show(run: Callable[[Callable[[str], None]], Iterable[Result]], console: Console | None = None) -> list[Result]:
    """Print the results of `run` on standard output as they come in; return them all.

    `run` takes a function to call with the name of each step that begins; a terminal shows it.
    """
    console = console or Console(highlight=False)
    width = min(_MAX_WIDTH, console.width)
    results = []
    with console.status("") as status:
        for result in run(lambda name: status.update(f"{name} ...")):
            results.append(result)
            columns = Column(width=4), Column(width=16), Column(width=9, justify="right"), Column()
            row = Table.grid(*columns, padding=(0, 2, 0, 0))
            verdict = Text(result.verdict, _STYLES[result.verdict])
            lasted = "-" if result.verdict == "skip" else format_duration(result.seconds)
            row.add_row(verdict, result.name, lasted, Text(result.text))
            console.print(row, width=width)
    names = {verdict: [each.name for each in results if each.verdict == verdict] for verdict in ("FAIL", "warn")}
    if names["FAIL"]:
        summary = Text(f"Fix: {', '.join(names['FAIL'])}.", "bold red")
    elif names["warn"]:
        summary = Text(f"Ready, with warnings: {', '.join(names['warn'])}.", "bold yellow")
    else:
        summary = Text("All checks passed.", "bold green")
    console.print()
    console.print(summary, width=width)
    return results


def as_json(results: list[Result]) -> str:
    """One object; times in seconds."""
    lines = [
        {"name": name, "verdict": verdict.lower(), "seconds": round(seconds, 3), "text": text}
        for verdict, text, _, name, seconds in results
    ]
    code = exit_code(results)
    return json.dumps({"ok": code == 0, "exit_code": code, "lines": lines})
