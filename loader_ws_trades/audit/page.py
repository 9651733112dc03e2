"""The findings of an audit as one HTML page that needs nothing else: no script, no font, no picture from outside."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template

from loader_ws_trades import __version__
from loader_ws_trades.audit import charts
from loader_ws_trades.audit.findings import Agreement, Findings, Section, sections
from loader_ws_trades.audit.timeline import Timeline
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.events import Gap

_TEMPLATE = resources.files("loader_ws_trades") / "audit" / "page.html"
_NO_FAULTS = {"records", "filled later"}


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
        "listed": "".join(map(_table, sections(found))),
    }
    return Template(_TEMPLATE.read_text("utf-8")).substitute(
        {name: escape(text) for name, text in parts.items()}, **made
    )


def _range(found: Findings) -> str:
    if not found.spans.first:
        return "no trades"
    first, last = found.spans.first[0].first, found.spans.first[-1].last
    return f"{charts.period(first.timestamp, last.timestamp)}, trade ids {Gap(first.trade_id, last.trade_id)}"


def _tiles(found: Findings) -> list[str]:
    sizes = {"records": found.records} | {name: kind.size for name, kind in found.kinds.items()}
    return [
        f'<div class="tile{" bad" if count and name not in _NO_FAULTS else ""}"><b>{count:,}</b>'
        f"<span>{name.capitalize()}</span></div>"
        for name, count in sizes.items()
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
    rows = [
        ("as in the archive", f"{found.agree:,} of {found.trades:,} trades"),
        ("ids", str(Gap(found.first.trade_id, found.last.trade_id))),
        ("times", charts.period(found.first.timestamp, found.last.timestamp)),
    ]
    for source in found.sources:
        checked = "matches its .CHECKSUM" if source.matches_checksum else "no .CHECKSUM beside it"
        rows.append((source.name, f"SHA-256 {source.sha256}, {checked}"))
    return _table(Section("Compared with the exchange's archive", (), [*rows]))


def _table(section: Section) -> str:
    title, heads, rows, more = section
    note = f'<p class="note">and {more:,} more</p>' if more else ""
    head = f"<thead><tr>{''.join(f'<th>{name}</th>' for name in heads)}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<section><h2>{title}</h2><div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>{note}</section>'
    )
