"""What a check found: a line for each probe as it comes, or one JSON object."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from loader_ws_trades.check.probes import Line, exit_code

_STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red", "skip": "dim"}
_VERDICT, _NAME, _TIME = 4, 16, 7  # widths of the columns
_INDENT = " " * (_VERDICT + 2)
_WIDEST = 100


class Report:
    """Prints lines on standard output; on a terminal it also says what is being tried."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._width = min(_WIDEST, self._console.width)

    def begin(self, name: str) -> None:
        """Say what is being tried, until its line takes the place."""
        if self._live:
            self._console.file.write(f"\r\x1b[K{_INDENT}{name} ...")
            self._console.file.flush()

    def add(self, line: Line) -> None:
        """Print one line, with its text behind it if all is well, below it if not."""
        if self._live:
            self._console.file.write("\r\x1b[K")
        head = Text(f"{line.verdict:<{_VERDICT}}  ", _STYLES[line.verdict])
        head.append(f"{line.name:<{_NAME}}", "dim" if line.verdict == "skip" else "bold")
        head.append(f"{_duration(line):>{_TIME}}  ", "dim")
        beside = line.verdict == "ok" or len(head) + len(line.text) <= self._width
        texts = _wrapped(line.text, self._width - len(head)) if beside else []
        self._print(head.append(texts[0]) if texts else head)
        for text in texts[1:]:
            self._print(Text(" " * (_VERDICT + 2 + _NAME + _TIME + 2) + text))
        if not beside:
            for sentence in line.text.split("\n"):
                for text in _wrapped(sentence, self._width - len(_INDENT)):
                    self._print(Text(_INDENT + text))

    def end(self, lines: list[Line]) -> None:
        """Print what it comes to."""
        if self._live:
            self._console.file.write("\r\x1b[K")
        failed = [line.name for line in lines if line.verdict == "FAIL"]
        warned = [line.name for line in lines if line.verdict == "warn"]
        if failed:
            verdict = Text(f"Mend this: {', '.join(failed)}.", "bold red")
        elif warned:
            verdict = Text(f"A run works. See: {', '.join(warned)}.", "bold yellow")
        else:
            verdict = Text("All is right.", "bold green")
        self._print(Text())
        for text in _wrapped(verdict.plain, self._width):
            self._print(Text(text, verdict.style))

    @property
    def _live(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def _print(self, text: Text) -> None:
        text.rstrip()
        self._console.print(text, soft_wrap=True)


def as_json(lines: list[Line]) -> str:
    """One object; times in seconds."""
    shown = [
        {"name": line.name, "verdict": line.verdict.lower(), "seconds": round(line.seconds, 3), "text": line.text}
        for line in lines
    ]
    return json.dumps({"right": exit_code(lines) == 0, "exit_code": exit_code(lines), "lines": shown})


def _duration(line: Line) -> str:
    if line.verdict == "skip":
        return "-"
    return f"{line.seconds:.1f} s" if line.seconds >= 1 else f"{line.seconds * 1000:.0f} ms"


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines, broken between words alone."""
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False)


def show(lines: Iterable[Line], report: Report) -> list[Line]:
    """Print `lines` as they come; all of them."""
    found = []
    for line in lines:
        report.add(line)
        found.append(line)
    report.end(found)
    return found
