"""The findings of an audit of several pairs: a line for each."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from loader_ws_trades.audit.findings import Findings
from loader_ws_trades.audit.report import PipeConsole, as_json
from loader_ws_trades.config.settings import Settings


def as_lines(found: Mapping[str, Findings], settings: Settings) -> str:
    """The JSON of each pair, one a line."""
    return "\n".join(as_json(one, settings.for_symbol(symbol)) for symbol, one in found.items())


def show(found: Mapping[str, Findings], settings: Settings) -> None:
    """Print a table, and how to see more of a pair that has faults."""
    console = PipeConsole()
    table = Table(
        title=f"{len(found)} pairs on topic {settings.kafka_topic}",
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("pair", no_wrap=True)
    for head in ("records", "missing", "duplicates", "out of order", "malformed", "filled later"):
        table.add_column(head, justify="right")
    table.add_column("")
    for symbol, one in found.items():
        kinds = (one.missing, one.duplicates, one.out_of_order, one.malformed, one.filled_later)
        verdict = ("fault", "red") if one.faults else ("no trades", "red" if one.exit_code else "yellow")
        verdict = ("ok", "green") if one.spans.count and not one.faults else verdict
        table.add_row(symbol, f"{one.records:,}", *(f"{kind.size:,}" for kind in kinds), Text(*verdict))
    console.print(table)
    faulty = [symbol for symbol, one in found.items() if one.exit_code]
    if faulty:
        text = f"Faults found in {len(faulty)} of {len(found)} pairs; --symbol {faulty[0]} lists those of one pair."
        console.print(Text(text, "bold red"), soft_wrap=True)
    elif any(one.spans.count for one in found.values()):
        console.print(Text("No faults found.", "bold green"))
    else:
        console.print(Text(f"The topic {settings.kafka_topic} has no trades of these pairs.", "bold"), soft_wrap=True)
