"""How far long work has come: a bar on a terminal, a log line now and then elsewhere, both on standard error."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as _Bar

log = logging.getLogger(__name__)

_REDRAW = 0.1  # seconds between two looks of the bar
_LINE = 10.0  # seconds between two log lines


class Progress:
    """The share of some work that is done, and its rate in records; to be used as a context manager.

    The bar is drawn by whoever calls `update`, so that there is no thread to end.
    """

    def __init__(self, doing: str, total: int, *, bar: bool) -> None:
        self._doing = doing
        self._total = total
        self._begin = self._shown = time.monotonic()
        self._bar: _Bar | None = None
        console = Console(stderr=True)
        if bar and sys.stderr.isatty() and not console.is_dumb_terminal:
            self._bar = _Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._bar.add_task(doing, total=total, rate="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._begin

    def update(self, done: int, records: int) -> None:
        """Show, if it is time to, that `done` of the total is done, and how many records that were."""
        now = time.monotonic()
        if now - self._shown < (_REDRAW if self._bar else _LINE):
            return
        self._shown = now
        rate = records / (now - self._begin)
        if self._bar:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.0f} records/s")
            self._bar.refresh()
            return
        share = done / self._total if self._total else 1.0
        left = self.seconds * (1 - share) / share if share else 0.0
        line = "%s: %.0f %% done, %d records, %.0f a second, about %.0f s left"
        log.info(
            line,
            self._doing,
            share * 100,
            records,
            rate,
            left,
            extra={"event": "progress", "done": round(share, 4), "records": records, "rate": round(rate)},
        )
