"""The findings of an audit, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loader_ws_trades.audit.findings import Agreement, Findings, RecordRanges, location, sections
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.events import Gap, Position
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.text import counted, format_time, listed

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


def as_text(found: Findings, settings: Settings) -> str:
    """For people: a table, the first findings of each kind, and a verdict."""
    return _rendered(_parts(found, settings))


def all_as_text(found: Mapping[str, Findings], settings: Settings) -> str:
    """A table with a line for each of several pairs, and how to see more of a pair that has faults."""
    table = _empty_table(f"{len(found)} pairs on topic {settings.kafka_topic}", box=SIMPLE_HEAD, padding=0)
    table.add_column("pair", no_wrap=True)
    for head in ("records", *Findings(Bounds()).kinds):
        table.add_column(head, justify="right")
    table.add_column("")
    for symbol, one in found.items():
        verdict = Text("fault", "red") if one.faults else Text("no trades", "red" if one.exit_code else "yellow")
        if one.spans.count and not one.faults:
            verdict = Text("ok", "green")
        sizes = (one.records, *(kind.size for kind in one.kinds.values()))
        table.add_row(symbol, *(f"{size:,}" for size in sizes), verdict)
    if faulty := [symbol for symbol, one in found.items() if one.exit_code]:
        text = f"Faults found in {len(faulty)} of {len(found)} pairs; --symbol {faulty[0]} lists those of one pair."
        summary = Text(text, "bold red")
    elif any(one.spans.count for one in found.values()):
        summary = Text("No faults found.", "bold green")
    else:
        summary = Text(f"The topic {settings.kafka_topic} has no trades of these pairs.", "bold")
    return _rendered([table, summary])


def _rendered(parts: Iterable[Table | Text]) -> str:
    """What a terminal, or else standard output, shows; lines of text are not wrapped."""
    console = Console()
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    return captured.get().rstrip("\n")


def _parts(found: Findings, settings: Settings) -> Iterator[Table | Text]:
    if found.spans.count:
        yield _table(found, settings)
    else:
        where = f" ({_range(found.bounds)})" if found.bounds else ""
        others = f"; other symbols: {_others(found)}" if found.others else ""
        yield Text(f"The topic {settings.kafka_topic} has no trades of {settings.symbol}{where}{others}.", "bold")
    for title, _, rows, more in sections(found):
        yield Text(f"\n{title}", "bold")
        yield from (Text(f"  {'  '.join(row)}") for row in rows)
        if more:
            yield Text(f"  and {more:,} more")
    if found.fillable:
        yield Text("\nCommands that may fill the first gaps", "bold")
        yield from (Text(f"  {command}") for _, command in _backfills(found, settings))
    for hidden in found.hidden.items():
        yield Text(f"\nNot audited because of an open transaction: {location(*hidden)} onwards", "yellow")
    rate = found.scanned / found.seconds if found.seconds else 0.0
    yield Text(f"\nRead {found.scanned:,} records in {found.seconds:.1f} s ({rate:,.0f} per second).")
    if found.compacted:
        yield Text("\nThe topic is compacted, which deletes trades; set its cleanup.policy to delete.", "red")
    agreement = found.agreement
    for source in agreement.sources if agreement else ():
        checked = "matches" if source.matches_checksum else "not checked: there is no"
        yield Text(f"{source.name}, SHA-256 {source.sha256} ({checked} {source.name}.CHECKSUM)")
    if found.faults:
        yield Text(f"Faults found: {', '.join(found.faults)}.", "bold red")
    elif found.spans.count:
        yield Text(f"No faults found.{_certificate(agreement) if agreement else ''}", "bold green")


def _certificate(found: Agreement) -> str:
    ids = Gap(found.first.trade_id, found.last.trade_id)
    return (
        f" Each of the {found.trades:,} trades of the archive, ids {ids}, is on the topic exactly once, with its "
        "price, quantity, time and side."
    )


def _empty_table(title: str, **options: Any) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", **options)


def _table(found: Findings, settings: Settings) -> Table:
    table = _empty_table(f"{settings.symbol} on topic {settings.kafka_topic}", show_header=False)

    def row(name: str, value: str, *, is_fault: bool | None = None) -> None:
        verdict = Text("") if is_fault is None else Text("fault", "red") if is_fault else Text("ok", "green")
        table.add_row(Text(name), Text(value), verdict)

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
    for name, kind in found.kinds.items():
        value = counted(kind.size, "id" if kind is found.missing else "record") if kind.count else "none"
        if kind.count < kind.size:
            value += f" in {counted(kind.count, 'range')}"
        if kind is not found.filled_later:
            row(name, value, is_fault=bool(kind.count))
        elif kind.count:
            row(name, value)
    if agreement := found.agreement:
        differ = bool(agreement.differ.count or agreement.unknown.count)
        row("as in the archive", f"{agreement.agree:,} of {agreement.trades:,} trades", is_fault=differ)
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
    return listed([f"{name} {count:,}" for name, count in found.others.most_common()], _SYMBOLS)


def _trade(trade: Position) -> str:
    return f"{trade.trade_id}, {format_time(trade.timestamp)}"
