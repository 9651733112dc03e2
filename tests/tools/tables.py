"""Tables for people, of the tools that print one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich import box as boxes
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN, MARKDOWN = boxes.ASCII2, boxes.MARKDOWN


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
    box: boxes.Box = PLAIN,
    width: int | None = None,
) -> str:
    """A table as text; columns whose place is in `right` are aligned there. Only within a `width` do cells wrap."""
    made = Table(box=box, pad_edge=box is MARKDOWN)
    for place, head in enumerate(heads):
        made.add_column(head, justify="right" if place in right else "left", no_wrap=width is None)
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=width or 1000, color_system=None)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())
