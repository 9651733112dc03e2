"""How far work has come: a line at the bottom of a terminal, otherwise a log line now and then."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from loader_ws_trades.monitoring.status import RunStatus
from loader_ws_trades.text import format_duration

_REDRAW = 0.25  # seconds
_FIRST_LINE, _LONGEST = 10.0, 300.0  # seconds between two log lines, at first and at most
_RATE_OVER = 5.0  # seconds that the rate on the terminal is measured over


class Progress(NamedTuple):
    """How far work has come."""

    state: str
    done: int
    total: int | None = None
    """None where there is no end, or it is not known."""
    details: Mapping[str, int | float] = {}
    """Numbers by their names, the most important first; a float is a duration in seconds."""
    steady: bool = False
    """Whether only a stream without an end is going on, which is logged rarely."""


def of_run(status: RunStatus) -> Progress:
    """The progress of a run."""
    source = status.source
    details: dict[str, int | float] = {}
    if len(status.lanes) > 1:
        details["pairs"] = sum(not lane.ended for lane in status.lanes)
    details |= {"delivered": status.delivered, "missing": status.total(lambda lane: lane.missing)}
    if source.total is None:
        if (lag := status.lag) is not None:
            details["lag"] = round(lag, 3)
        details |= {"in_flight": status.in_flight, "reconnects": source.reconnects}
    steady = status.stage == "loading" and source.total is None
    return Progress(source.state, status.delivered, source.total, details, steady)


class Display(Protocol):
    """Shows progress; all of it is called by one thread."""

    def show(self, progress: Progress) -> None:
        """Show it, if it is time to."""

    def close(self) -> None:
        """Show nothing more."""


def display(logger: logging.Logger, event: str, *, line: bool) -> Display:
    """A line on the terminal if `line` and standard error is one, otherwise log lines called `event`."""
    if line and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return ProgressLine(logger)
    return ProgressLog(logger, event)


class ProgressLog:
    """Log lines, at intervals that grow: what takes hours must not fill the log."""

    def __init__(self, logger: logging.Logger, event: str) -> None:
        self._log = logger
        self._event = event
        self._last = time.monotonic()
        self._interval = _FIRST_LINE
        self._done = 0

    def show(self, progress: Progress) -> None:
        """Log a line, if it is time to."""
        state, done, total, details, steady = progress
        passed = time.monotonic() - self._last
        if passed < (_LONGEST if steady else self._interval):
            return
        rate = (done - self._done) / passed
        if not steady:
            self._interval = min(2 * self._interval, _LONGEST)
        self._last += passed
        self._done = done
        parts = [] if total is None else [f"{_share(done, total):.0%} of {total}"]
        text = ", ".join([*parts, *_texts(details), f"{rate:.0f}/s", *_left(done, total, rate)])
        extra = {"event": self._event, "state": state, **details, "rate": round(rate)}
        if total is not None:
            extra["total"] = total
        self._log.info("%s: %s", state.capitalize(), text, extra=extra)

    def close(self) -> None:
        """Nothing to remove."""


class ProgressLine:
    """A line on the terminal, below the log lines; `show` draws it, so it needs no thread."""

    def __init__(self, logger: logging.Logger) -> None:
        from rich.console import Console  # noqa: PLC0415 - a run without a terminal need not load it
        from rich.live import Live  # noqa: PLC0415

        class CursorKept(Console):
            """A process that is killed must not leave the terminal without its cursor."""

            def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - the library's
                return False

        console = CursorKept(stderr=True, highlight=False)
        self._line = Live(
            console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._lock = threading.RLock()
        self._open = False
        self._drawn = -_REDRAW
        self._seen: deque[tuple[float, int]] = deque()
        for handler in logger.handlers:
            self._keep_below(handler)

    def show(self, progress: Progress) -> None:
        """Draw the line, if it is time to."""
        from rich.text import Text  # noqa: PLC0415

        now = time.monotonic()
        if now - self._drawn < _REDRAW:
            return
        self._drawn = now
        state, done, total, details, _ = progress
        rate = self._rate(now, done)
        if total is None:
            parts = [f"{rate:,.0f}/s", *_texts(details)]
        else:
            parts = [f"{_share(done, total):.0%}", f"{done:,} of {total:,}", f"{rate:,.0f}/s"]
            parts += _left(done, total, rate)
        with self._lock:
            self._open = True
            self._line.start()
            self._line.update(Text("  ".join([state, *parts]), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Remove the line."""
        with self._lock:
            self._open = False
            self._line.stop()

    def _keep_below(self, handler: logging.Handler) -> None:
        emit = handler.emit

        def emit_above(record: logging.LogRecord) -> None:
            with self._hidden():
                emit(record)

        handler.emit = emit_above  # type: ignore[method-assign]

    @contextlib.contextmanager
    def _hidden(self) -> Iterator[None]:
        with self._lock:
            self._line.stop()
            yield
            if self._open:
                self._line.start(refresh=True)

    def _rate(self, now: float, done: int) -> float:
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_OVER:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now > since else 0.0


def _share(done: int, total: int) -> float:
    return min(1.0, done / total) if total else 1.0


def _left(done: int, total: int | None, rate: float) -> list[str]:
    return [f"{format_duration((total - done) / rate)} left"] if total is not None and rate and done < total else []


def _texts(details: Mapping[str, int | float]) -> list[str]:
    return [
        f"{name.replace('_', ' ')} {format_duration(value) if isinstance(value, float) else value}"
        for name, value in details.items()
    ]
