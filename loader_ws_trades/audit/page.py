"""The findings of an audit as one HTML page that needs nothing else: no script, no font, no picture from outside."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import Any

from loader_ws_trades import __version__
from loader_ws_trades.audit import charts
from loader_ws_trades.audit.findings import Agreement, Findings, Listed, RecordRanges
from loader_ws_trades.audit.timeline import Timeline
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.text import format_time

_TEMPLATE = resources.files("loader_ws_trades") / "audit" / "page.html"
_Rows = list[tuple[str, ...]]


def page(found: Findings, settings: Settings) -> str:
    """The page."""
    parts = {
        "title": f"{settings.symbol} on {settings.kafka_topic}",
        "symbol": settings.symbol,
        "topic": settings.kafka_topic,
        "verdict": "No faults" if not found.exit_code else "Faults found" if found.faults else "No trades",
        "faults": ", ".join(found.faults),
        "range": _range(found),
        "version": __version__,
        "scanned": f"{found.scanned:,}",
        "seconds": f"{found.seconds:.1f}",
    }
    made = {
        "state": "bad" if found.exit_code else "good",
        "tiles": "".join(_tiles(found)),
        "charts": _charts(found.timeline)
        if found.spans.count and found.timeline
        else '<p class="note">The topic has no trades in this range.</p>',
        "agreement": _agreement(found.agreement) if found.agreement else "",
        "listed": "".join(_listed(found)),
    }
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        {name: escape(text) for name, text in parts.items()}, **made
    )


def _range(found: Findings) -> str:
    if not found.spans.first:
        return "no trades"
    first, last = found.spans.first[0].first, found.spans.first[-1].last
    return f"{charts.when(first.timestamp, last.timestamp)}, trade ids {Gap(first.trade_id, last.trade_id)}"


def _tiles(found: Findings) -> list[str]:
    numbers = (
        ("Records", found.records, False),
        ("Missing ids", found.missing.size, True),
        ("Duplicates", found.duplicates.size, True),
        ("Out of order", found.out_of_order.size, True),
        ("Malformed", found.malformed.size, True),
        ("Filled later", found.filled_later.size, False),
    )
    return [
        f'<div class="tile{" bad" if is_fault and count else ""}"><b>{count:,}</b><span>{name}</span></div>'
        for name, count, is_fault in numbers
    ]


def _charts(timeline: Timeline) -> str:
    shaded = '<span class="key gap"></span>ids are missing'
    drawn = [_figure(f"Trades per {charts.unit(timeline)}", shaded, charts.rates(timeline))]
    drawn.append(_figure("Findings", "by the time of the trade", charts.findings(timeline)))
    if timeline.has_lag:
        keys = '<span class="key p50"></span>median <span class="key p99"></span>99 % of trades are faster'
        drawn.append(_figure("Lag from trade to append", keys, charts.lags(timeline)))
    else:
        drawn.append(
            '<figure><h2>Lag from trade to append</h2><p class="note">Not known: the records of this topic carry the '
            "time of the trade. A topic with <code>message.timestamp.type=LogAppendTime</code> has the time of "
            "writing.</p></figure>"
        )
    return "".join(drawn)


def _figure(title: str, keys: str, drawing: str) -> str:
    return f"<figure><h2>{title} <small>{keys} · UTC</small></h2>{drawing}</figure>"


def _agreement(found: Agreement) -> str:
    rows: _Rows = [
        ("as in the archive", f"{found.agree:,} of {found.trades:,} trades"),
        ("ids", str(Gap(found.first.trade_id, found.last.trade_id))),
        ("times", f"{format_time(found.first.timestamp)} to {format_time(found.last.timestamp)}"),
    ]
    for source in found.sources:
        checked = "matches its .CHECKSUM" if source.matches_checksum else "no .CHECKSUM beside it"
        rows.append((source.name, f"SHA-256 {source.sha256}, {checked}"))
    differ: _Rows = [
        (str(one.trade_id), one.field, one.topic, one.archive, _where(one.partition, one.offset))
        for one in found.differ.first
    ]
    unknown: _Rows = [(str(gap), f"{len(gap):,}") for gap in found.unknown.first]
    return (
        _table("Compared with the exchange's archive", (), rows)
        + _table(
            "Trades that differ from the archive", ("id", "field", "topic", "archive", "where"), differ, found.differ
        )
        + _table("Trade ids that are not in the archive", ("ids", "count"), unknown, found.unknown)
    )


def _listed(found: Findings) -> list[str]:
    missing: _Rows = [(str(gap), f"{len(gap):,}") for gap in found.missing.first]
    malformed: _Rows = [(_where(bad.partition, bad.offset), bad.reason) for bad in found.malformed.first]
    heads = ("ids", "records", "where")
    return [
        _table("Missing trade ids", ("ids", "count"), missing, found.missing),
        _table("Duplicates", heads, _ranges(found.duplicates), found.duplicates),
        _table("Out of order", heads, _ranges(found.out_of_order), found.out_of_order),
        _table("Malformed records", ("where", "reason"), malformed, found.malformed),
        _table("Filled later, which is not a fault", heads, _ranges(found.filled_later), found.filled_later),
    ]


def _ranges(found: RecordRanges) -> _Rows:
    return [
        (str(ids), f"{len(ids):,}", _where(part.partition, part.offset))
        for part in found.first
        for ids in [Gap(part.first, part.last)]
    ]


def _where(partition: int, offset: int) -> str:
    return f"partition {partition}, offset {offset}"


def _table(title: str, heads: tuple[str, ...], rows: _Rows, kind: Listed[Any] | None = None) -> str:
    """A table, or nothing if it has no rows."""
    if not rows:
        return ""
    more = f'<p class="note">and {kind.count - len(rows):,} more</p>' if kind and kind.count > len(rows) else ""
    head = f"<thead><tr>{''.join(f'<th>{name}</th>' for name in heads)}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<section><h2>{title}</h2><div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>{more}</section>'
    )
