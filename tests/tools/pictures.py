"""The pictures of the README: `python -m tests.tools.pictures` makes them, that of the demo from a real run."""

from __future__ import annotations

import io
import re
import sys
from html import escape

from rich.console import Console

from loader_ws_trades.sandbox.demo import run_demo
from tests.tools.docs import README, ROOT

IMAGES = ROOT / ".images"
DEMO = IMAGES / "demo.svg"
BENCHMARK = IMAGES / "benchmark.svg"

_COLUMNS = 124  # of the demo's terminal

# Of the chart of the benchmark, in pixels.
_WIDTH, _PANEL, _LABELS, _BARS, _ROW, _HEAD = 920, 460, 228, 150, 17, 34


def demo() -> str:
    """The screen of a demo that has run now; ends the program if that failed."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    if run_demo(15.0, 500.0, console):
        sys.exit(f"The demo failed:\n{console.export_text()}")
    picture = console.export_svg(title="make demo")
    # Fonts from elsewhere are not loaded within a page.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def benchmark() -> str:
    """The table of the README as bars, to a scale of its own for each row."""
    table = README.read_text("utf-8").partition("\n`make bench`")[2].partition("\n\nWhile trades")[0]
    lines = re.findall(r"^\|.*\|$", table, re.MULTILINE)
    names, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    libraries = [name.replace(" json,", "") for name in names[1:]]
    panels = [_panel(row[0].replace("`", ""), libraries, row[1:]) for row in rows]
    height = _HEAD + _ROW * len(libraries) + 14
    placed = "".join(
        f'<g transform="translate({number % 2 * _PANEL} {number // 2 * height})">{panel}</g>'
        for number, panel in enumerate(panels)
    )
    style = (
        "text{font:11.5px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#57606a}"
        ".title{font-size:13px;font-weight:600;fill:#1f2328}.ours{fill:#1f2328;font-weight:600}"
        "rect{fill:#afb8c1}rect.ours{fill:#2f6fde}"
        "@media(prefers-color-scheme:dark){text{fill:#9198a1}.title,.ours{fill:#f0f6fc}"
        "rect{fill:#4b5561}rect.ours{fill:#6aa5ff}}"
    )
    size = f'viewBox="0 0 {_WIDTH} {height * -(-len(panels) // 2)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><style>{style}</style>{placed}</svg>\n'


def _panel(title: str, names: list[str], cells: list[str]) -> str:
    """One row of the table."""
    texts = [re.sub(r" \(.*\)", "", cell) for cell in cells]
    values = [float(text.replace(",", "")) for text in texts]
    better = "more is better" if title.startswith("trades/s") else "less is better"
    parts = [f'<text class="title" x="0" y="18">{escape(title)}<tspan font-weight="400"> · {better}</tspan></text>']
    for number, (name, text, value) in enumerate(zip(names, texts, values, strict=True)):
        y = _HEAD + _ROW * number
        kind = ' class="ours"' if not number else ""
        length = max(1.0, _BARS * value / max(values))
        parts += [
            f'<text{kind} x="{_LABELS - 10}" y="{y + 9}" text-anchor="end">{escape(name)}</text>',
            f'<rect{kind} x="{_LABELS}" y="{y}" width="{length:.1f}" height="11" rx="2"/>',
            f'<text{kind} x="{_LABELS + length + 6:.1f}" y="{y + 9}">{text}</text>',
        ]
    return "".join(parts)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    BENCHMARK.write_text(benchmark(), "utf-8")
    DEMO.write_text(demo(), "utf-8")
