"""The findings of an audit, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loader_ws_trades.audit.findings import Agreement, Findings, IdAndTime, Listed, RecordRanges
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.text import format_time

_COMMANDS = 10  # gaps for which the backfill command is shown
_SYMBOLS = 10  # other symbols shown in the table


def as_json(found: Findings, settings: Settings) -> str:
    """One line; times are in milliseconds, and of each kind the first findings are listed."""
    commands = dict(_backfills(found, settings))
    missing = [
        {**gap._asdict(), **({"backfill": commands[gap]} if gap in commands else {})} for gap in found.missing.first
    ]
    spans = [{"first": span.first._asdict(), "last": span.last._asdict()} for span in found.spans.first]
    shown: dict[str, Any] = {
        "symbol": settings.symbol,
        "topic": settings.kafka_topic,
        "ok": found.exit_code == 0,
        "faults": found.faults,
        "range": {name: value for name, value in found.bounds._asdict().items() if value is not None},
        "scanned": found.scanned,
        "records": found.records,
        "partitions": dict(sorted(found.partitions.items())),
        "sequences": {"count": found.spans.count, "listed": spans},
        "missing": {"ids": found.missing.size, "ranges": found.missing.count, "listed": missing},
        "duplicates": _ranges(found.duplicates),
        "out_of_order": _ranges(found.out_of_order),
        "filled_later": _ranges(found.filled_later),
        "malformed": {"records": found.malformed.size, "listed": [bad._asdict() for bad in found.malformed.first]},
        "other_symbols": dict(found.others.most_common()),
        "in_open_transaction": [{"partition": number, "offset": offset} for number, offset in found.hidden.items()],
        "seconds": round(found.seconds, 3),
    }
    if found.agreement:
        shown["archive"] = _agreement(found.agreement)
    return json.dumps(shown)


def _agreement(found: Agreement) -> dict[str, object]:
    return {
        "files": [source._asdict() for source in found.sources],
        "first": found.first._asdict(),
        "last": found.last._asdict(),
        "trades": found.trades,
        "agree": found.agree,
        "differ": {"ids": found.differ.size, "listed": [one._asdict() for one in found.differ.first]},
        "not_in_archive": {"ids": found.unknown.size, "listed": [gap._asdict() for gap in found.unknown.first]},
    }


def _ranges(found: RecordRanges) -> dict[str, object]:
    return {"records": found.size, "ranges": found.count, "listed": [asdict(part) for part in found.first]}


def _backfills(found: Findings, settings: Settings) -> list[tuple[Gap, str]]:
    """The commands that may fill the first gaps."""
    command = ("loader-ws-trades", "backfill", "--symbol", settings.symbol, "--kafka-topic", settings.kafka_topic)
    return [
        (gap, shlex.join([*command, "--from-id", str(gap.first), "--to-id", str(gap.last)]))
        for gap in found.fillable[:_COMMANDS]
    ]


class PipeConsole(Console):
    """A console whose reader may leave before the end, as `head` does."""

    def on_broken_pipe(self) -> None:
        """Go on without printing."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(found: Findings, settings: Settings) -> None:
    """Print the findings on standard output."""
    console = PipeConsole()
    if found.spans.count:
        console.print(_table(found, settings))
    else:
        where = f" ({_range(found.bounds)})" if found.bounds else ""
        others = f"; other symbols: {_others(found)}" if found.others else ""
        _print(console, f"The topic {settings.kafka_topic} has no trades of {settings.symbol}{where}{others}.", "bold")
    gaps = [f"{gap} ({len(gap):,} ids)" if len(gap) > 1 else str(gap) for gap in found.missing.first]
    _list(console, "Missing trade ids", gaps, found.missing)
    for title, kind in (
        ("Duplicates", found.duplicates),
        ("Out of order", found.out_of_order),
        ("Filled later (not a fault)", found.filled_later),
    ):
        lines = [f"{Gap(part.first, part.last)} at {_where(part.partition, part.offset)}" for part in kind.first]
        _list(console, title, lines, kind)
    lines = [f"{_where(bad.partition, bad.offset)}: {bad.reason}" for bad in found.malformed.first]
    _list(console, "Malformed records", lines, found.malformed)
    if found.agreement:
        _show_agreement(console, found.agreement)
    if found.fillable:
        _print(console, "\nCommands that may fill the first gaps", "bold")
        for _, command in _backfills(found, settings):
            _print(console, f"  {command}")
    for partition, offset in found.hidden.items():
        _print(console, f"\nNot audited because of an open transaction: {_where(partition, offset)} onwards", "yellow")
    rate = found.scanned / found.seconds if found.seconds else 0.0
    _print(console, f"\nRead {found.scanned:,} records in {found.seconds:.1f} s ({rate:,.0f} per second).")
    if found.compacted:
        _print(console, "\nThe topic is compacted, which deletes trades; set its cleanup.policy to delete.", "red")
    _show_verdict(console, found)


def _show_verdict(console: Console, found: Findings) -> None:
    agreement = found.agreement
    for source in agreement.sources if agreement else ():
        checked = "matches" if source.matches_checksum else "not checked: there is no"
        _print(console, f"{source.name}, SHA-256 {source.sha256} ({checked} {source.name}.CHECKSUM)")
    if found.faults:
        _print(console, f"Faults found: {', '.join(found.faults)}.", "bold red")
    elif found.spans.count:
        _print(console, f"No faults found.{_certificate(agreement) if agreement else ''}", "bold green")


def _certificate(found: Agreement) -> str:
    ids = Gap(found.first.trade_id, found.last.trade_id)
    return (
        f" Each of the {found.trades:,} trades of the archive, ids {ids}, is on the topic exactly once, with its "
        "price, quantity, time and side."
    )


def _show_agreement(console: Console, found: Agreement) -> None:
    lines = [
        f"{one.trade_id} at {_where(one.partition, one.offset)}: {one.field} {one.topic}, in the archive {one.archive}"
        for one in found.differ.first
    ]
    _list(console, "Trades that differ from the archive", lines, found.differ)
    _list(console, "Trade ids that are not in the archive", [str(gap) for gap in found.unknown.first], found.unknown)


def _table(found: Findings, settings: Settings) -> Table:
    title = f"{settings.symbol} on topic {settings.kafka_topic}"
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)

    def row(name: str, value: str, *, is_fault: bool | None = None) -> None:
        verdict = Text("") if is_fault is None else Text("fault", "red") if is_fault else Text("ok", "green")
        table.add_row(Text(name), Text(value), verdict)

    def counted(name: str, kind: Listed[Any], things: str, *, is_fault: bool = True) -> None:
        value = f"{kind.size:,} {things} in {kind.count:,} ranges" if kind.count else "none"
        row(name, value, is_fault=bool(kind.count) if is_fault else None)

    if found.bounds:
        row("range", _range(found.bounds))
    row("records", f"{found.records:,}")
    for number, span in enumerate(found.spans.first):
        row("first after id reset" if number else "first", _trade(span.first))
        row("last", _trade(span.last))
    if found.spans.count > len(found.spans.first):
        row("further id resets", f"{found.spans.count - len(found.spans.first):,}")
    partitions = [f"{partition} ({count:,} records)" for partition, count in sorted(found.partitions.items())]
    row("partitions", ", ".join(partitions), is_fault=len(partitions) > 1)
    counted("missing", found.missing, "ids")
    counted("duplicates", found.duplicates, "records")
    counted("out of order", found.out_of_order, "records")
    row("malformed", f"{found.malformed.count:,}", is_fault=bool(found.malformed.count))
    if agreement := found.agreement:
        differ = bool(agreement.differ.count or agreement.unknown.count)
        row("as in the archive", f"{agreement.agree:,} of {agreement.trades:,} trades", is_fault=differ)
    if found.filled_later.count:
        counted("filled later", found.filled_later, "records", is_fault=False)
    if found.others:
        row("other symbols", _others(found))
    return table


def _range(bounds: Bounds) -> str:
    """The range asked for."""
    parts = [
        "" if bounds.from_id is None else f"from id {bounds.from_id}",
        "" if bounds.to_id is None else f"to id {bounds.to_id}",
        "" if bounds.since is None else f"since {format_time(bounds.since)}",
        "" if bounds.until is None else f"until {format_time(bounds.until)}",
    ]
    return ", ".join(part for part in parts if part)


def _others(found: Findings) -> str:
    named = [f"{name} {count:,}" for name, count in found.others.most_common(_SYMBOLS)]
    more = len(found.others) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _list(console: Console, title: str, lines: list[str], kind: Listed[Any]) -> None:
    if not lines:
        return
    _print(console, f"\n{title}", "bold")
    for line in lines:
        _print(console, f"  {line}")
    if kind.count > len(lines):
        _print(console, f"  and {kind.count - len(lines):,} more")


def _print(console: Console, line: str, style: str = "") -> None:
    """Print a line as it is: without markup, and not wrapped."""
    console.print(Text(line, style), soft_wrap=True)


def _trade(trade: IdAndTime) -> str:
    return f"{trade.trade_id}, {format_time(trade.timestamp)}"


def _where(partition: int, offset: int) -> str:
    return f"partition {partition}, offset {offset}"
