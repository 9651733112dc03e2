"""What an audit found, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loader_ws_trades.audit.findings import Findings, Listed, Place, Stretch
from loader_ws_trades.audit.scan import Audited
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.sequencer import Gap
from loader_ws_trades.text import format_time

_COMMANDS = 10  # holes for which the command that fills them is shown
_SYMBOLS = 10  # other symbols that are named


def as_json(audited: Audited, settings: Settings) -> str:
    """One line; times are in milliseconds, and of each kind the first findings are listed."""
    found = audited.findings
    commands = {gap: _backfill(gap, settings) for gap in found.fillable[:_COMMANDS]}
    missing = [
        {**gap._asdict(), **({"backfill": commands[gap]} if gap in commands else {})} for gap in found.missing.first
    ]
    spans = [{"first": span.first._asdict(), "last": span.last._asdict()} for span in found.spans.first]
    shown: dict[str, Any] = {
        "symbol": settings.symbol,
        "topic": settings.kafka_topic,
        "right": audited.exit_code == 0,
        "faults": audited.faults,
        "judged": {name: value for name, value in audited.bounds._asdict().items() if value is not None},
        "scanned": found.scanned,
        "records": found.records,
        "partitions": found.partitions,
        "sequences": {"count": found.spans.count, "listed": spans},
        "missing": {"ids": found.missing.size, "ranges": found.missing.count, "listed": missing},
        "duplicates": _stretches(found.duplicates),
        "disorder": _stretches(found.disorder),
        "filled_later": _stretches(found.filled_later),
        "malformed": {"records": found.malformed.size, "listed": [bad._asdict() for bad in found.malformed.first]},
        "other_symbols": found.others,
        "in_open_transaction": [{"partition": number, "offset": offset} for number, offset in audited.hidden.items()],
        "seconds": round(audited.seconds, 3),
    }
    return json.dumps(shown)


def _stretches(found: Listed[Stretch]) -> dict[str, object]:
    listed = [
        {"first": stretch.first, "last": stretch.last, "partition": stretch.partition, "offset": stretch.offset}
        for stretch in found.first
    ]
    return {"records": found.size, "stretches": found.count, "listed": listed}


def _backfill(gap: Gap, settings: Settings) -> str:
    names = ("--symbol", settings.symbol, "--kafka-topic", settings.kafka_topic)
    return shlex.join(["loader-ws-trades", "backfill", *names, "--from-id", str(gap.first), "--to-id", str(gap.last)])


class _Console(Console):
    """A console whose reader may leave before the end, as `head` does."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(audited: Audited, settings: Settings) -> None:
    """Print it on standard output."""
    console = _Console()
    found = audited.findings
    if found.spans.count:
        console.print(_table(audited, settings))
    else:
        where = f" ({_judged(audited.bounds)})" if audited.bounds else ""
        others = f"; other symbols: {_others(found)}" if found.others else ""
        line = f"The topic {settings.kafka_topic} holds no trade of {settings.symbol}{where}{others}."
        _print(console, line, "bold")
    _list(
        console,
        "Missing trade ids",
        [f"{gap} ({_number(len(gap))} ids)" if len(gap) > 1 else str(gap) for gap in found.missing.first],
        found.missing,
    )
    for title, kind in (
        ("Duplicates", found.duplicates),
        ("In disorder", found.disorder),
        ("Filled in later, which is no fault", found.filled_later),
    ):
        lines = [f"{Gap(part.first, part.last)} at {_where(part.partition, part.offset)}" for part in kind.first]
        _list(console, title, lines, kind)
    lines = [f"{_where(bad.partition, bad.offset)}: {bad.reason}" for bad in found.malformed.first]
    _list(console, "Malformed records", lines, found.malformed)
    if found.fillable:
        _print(console, "\nWhat may fill the first holes", "bold")
        for gap in found.fillable[:_COMMANDS]:
            _print(console, f"  {_backfill(gap, settings)}")
    for partition, offset in audited.hidden.items():
        _print(console, f"\nNot judged, in an open transaction: {_where(partition, offset)} on", "yellow")
    rate = found.scanned / audited.seconds if audited.seconds else 0.0
    _print(console, f"\n{_number(found.scanned)} records read in {audited.seconds:.1f} s, {rate:,.0f} a second.")
    if audited.compacted:
        _print(console, "\nThe topic is compacted and loses trades; set its cleanup.policy to delete alone.", "red")
    if audited.faults:
        _print(console, f"Wrong: {', '.join(audited.faults)}.", "bold red")
    elif found.spans.count:
        _print(console, "All is right.", "bold green")


def _table(audited: Audited, settings: Settings) -> Table:
    found = audited.findings
    table = Table(
        title=f"{settings.symbol} on the topic {settings.kafka_topic}",
        title_justify="left",
        title_style="bold",
        show_header=False,
    )

    def row(what: str, value: str, *, wrong: bool | None = None) -> None:
        verdict = Text("") if wrong is None else Text("wrong", "red") if wrong else Text("ok", "green")
        table.add_row(Text(what), Text(value), verdict)

    if audited.bounds:
        row("judged", _judged(audited.bounds))
    row("records", _number(found.records))
    for number, span in enumerate(found.spans.first):
        row("ids began anew" if number else "first", _place(span.first))
        row("last", _place(span.last))
    if found.spans.count > len(found.spans.first):
        row("ids began anew", f"{_number(found.spans.count - len(found.spans.first))} more times")
    partitions = [f"{partition} ({_number(count)} records)" for partition, count in found.partitions.items()]
    only = len(partitions) == 1
    row(
        "partition" if only else "partitions", str(*found.partitions) if only else ", ".join(partitions), wrong=not only
    )
    row("missing", _counted(found.missing, "ids", "ranges"), wrong=bool(found.missing.count))
    row("duplicates", _counted(found.duplicates, "records", "stretches"), wrong=bool(found.duplicates.count))
    row("in disorder", _counted(found.disorder, "records", "stretches"), wrong=bool(found.disorder.count))
    row("malformed", _number(found.malformed.count), wrong=bool(found.malformed.count))
    if found.filled_later.count:
        row("filled in later", _counted(found.filled_later, "records", "stretches"))
    if found.others:
        row("other symbols", _others(found))
    return table


def _judged(bounds: Bounds) -> str:
    """The range that was asked for."""
    parts = [
        "" if bounds.from_id is None else f"ids from {bounds.from_id}",
        "" if bounds.to_id is None else f"ids to {bounds.to_id}",
        "" if bounds.since is None else f"since {format_time(bounds.since)}",
        "" if bounds.until is None else f"until {format_time(bounds.until)}",
    ]
    return ", ".join(part for part in parts if part)


def _others(found: Findings) -> str:
    named = [f"{name} {_number(count)}" for name, count in list(found.others.items())[:_SYMBOLS]]
    more = len(found.others) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _list(console: Console, title: str, lines: list[str], kind: Listed[Any]) -> None:
    if not lines:
        return
    _print(console, f"\n{title}", "bold")
    for line in lines:
        _print(console, f"  {line}")
    if kind.count > len(lines):
        _print(console, f"  and {_number(kind.count - len(lines))} more")


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style), soft_wrap=True)


def _counted(kind: Listed[Any], things: str, parts: str) -> str:
    return f"{_number(kind.size)} {things} in {_number(kind.count)} {parts}" if kind.count else "none"


def _number(value: int) -> str:
    return f"{value:,}"


def _place(place: Place) -> str:
    return f"{place.trade_id}, {format_time(place.timestamp)}"


def _where(partition: int, offset: int) -> str:
    return f"partition {partition}, offset {offset}"
