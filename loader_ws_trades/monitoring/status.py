"""The line at the bottom of a terminal that says how a run is doing; log lines go above it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

_REDRAW = 0.25  # seconds between two looks of the line
_RATE_OVER = 5.0  # seconds that a rate is taken over
_CLEAR = "\r\x1b[K"
_FIRST_LINE, _RARELY = 10.0, 300.0  # seconds between two log lines, at first and at most
_BAR = 20  # characters
_WIDEST = 79  # characters of a line
_ALL_DIGITS, _FEW_DIGITS = 10**15, 999  # the largest numbers that are shown with all digits
_NEXT_UNIT = 999.5  # from here on a number would be shown as 1000
_MINUTES = 600.0  # seconds of lag, from here on shown as a clock


class Facts(NamedTuple):
    """How a run is doing."""

    state: str
    delivered: int
    in_flight: int
    lag: float | None = None  # seconds since the last trade, by the exchange's clock and ours
    missing: int = 0
    reconnects: int = 0
    total: int | None = None  # trades, where the run has an end


class StatusLog:
    """Logs `Facts` now and then, where no `StatusLine` shows them; `turn` is called by one thread."""

    def __init__(self, logger: logging.Logger) -> None:
        self._log = logger
        self._told = time.monotonic()
        self._every = _FIRST_LINE
        self._delivered = 0

    def turn(self, facts: Callable[[], Facts], *, steady: bool) -> None:
        """Log how the run is doing, if it is time to.

        Args:
            facts: gives what is logged.
            steady: whether nothing but a stream without an end goes on, which is logged rarely.
        """
        now = time.monotonic()
        if now - self._told < (_RARELY if steady else self._every):
            return
        told = facts()
        rate = (told.delivered - self._delivered) / (now - self._told)
        if not steady:
            self._every = min(2 * self._every, _RARELY)  # what takes hours fills no log
        self._told, self._delivered = now, told.delivered
        lag = {} if told.lag is None else {"lag": round(told.lag, 3)}
        fields = {key: value for key, value in told._asdict().items() if value is not None} | lag
        text = ", ".join([*_told(told), f"{rate:.0f}/s"])
        self._log.info(
            "%s: %s", told.state.capitalize(), text, extra={"event": "status", **fields, "rate": round(rate)}
        )


def _told(facts: Facts) -> list[str]:
    """`Facts` in the words of a log line."""
    if facts.total is not None:
        share = f"{min(1.0, facts.delivered / facts.total):.0%} of {facts.total}" if facts.total else "nothing"
        return [share, f"delivered {facts.delivered}", f"missing {facts.missing}"]
    lag = [] if facts.lag is None else [f"lag {facts.lag:.1f} s"]
    return [
        f"delivered {facts.delivered}",
        f"queued {facts.in_flight}",
        *lag,
        f"missing {facts.missing}",
        f"reconnects {facts.reconnects}",
    ]


class StatusLine:
    """Draws `Facts`; `draw` is called by one thread, log lines may come from any."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._text = ""
        self._drawn = 0.0
        self._seen: deque[tuple[float, int]] = deque()

    @staticmethod
    def is_wanted() -> bool:
        """Whether standard error is a terminal that can draw a line anew."""
        return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    @property
    def due(self) -> bool:
        """Whether it is time to draw again."""
        return time.monotonic() - self._drawn >= _REDRAW

    def draw(self, facts: Facts) -> None:
        """Draw the line anew."""
        now = self._drawn = time.monotonic()
        self._seen.append((now, facts.delivered))
        while len(self._seen) > 2 and self._seen[1][0] < now - _RATE_OVER:
            self._seen.popleft()
        (since, before), passed = self._seen[0], now - self._seen[0][0]
        rate = (facts.delivered - before) / passed if passed > 0 and now > since else 0.0
        text = line(facts, rate)[: shutil.get_terminal_size().columns - 1]
        with self._lock:
            self._text = text
            self._write(_CLEAR + text)

    def close(self) -> None:
        """Take the line away."""
        with self._lock:
            self._text = ""
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the line away while something else is written."""
        with self._lock:
            self._write(_CLEAR)
            yield
            self._write(self._text)

    def put_below(self, logger: logging.Logger) -> None:
        """Keep the line below what the handlers of `logger` write."""
        for handler in logger.handlers:
            emit = handler.emit

            def emit_above(record: logging.LogRecord, emit: object = emit) -> None:
                with self.hidden():
                    emit(record)  # type: ignore[operator]

            handler.emit = emit_above  # type: ignore[method-assign]


def line(facts: Facts, rate: float) -> str:
    """The text for `facts` and a rate in trades/s, in at most 79 characters: what is long loses digits, then parts."""
    full, short = _parts(facts, rate, _ALL_DIGITS), _parts(facts, rate, _FEW_DIGITS)
    texts = ["  ".join(full), "  ".join(short), " ".join(short), " ".join(short[:-1])]
    return next((text for text in texts if len(text) <= _WIDEST), texts[-1][:_WIDEST])


def _parts(facts: Facts, rate: float, most: int) -> list[str]:
    """What the line consists of, the least important last."""

    def shown(value: float) -> str:
        return _number(value, most)

    if facts.total is not None:
        share = min(1.0, facts.delivered / facts.total) if facts.total else 1.0
        bar = f"{'#' * round(share * _BAR):-<{_BAR}} {share:4.0%}"
        left = [f"{_clock((facts.total - facts.delivered) / rate)} left"] if rate > 0 else []
        return [bar, f"{shown(facts.delivered)} of {shown(facts.total)}", f"{shown(rate)}/s", *left]
    lag = "-" if facts.lag is None else f"{facts.lag:.1f} s" if facts.lag < _MINUTES else _clock(facts.lag)
    return [
        facts.state,
        f"{shown(rate)}/s",
        f"delivered {shown(facts.delivered)}",
        f"queued {shown(facts.in_flight)}",
        f"lag {lag}",
        f"missing {shown(facts.missing)}",
        f"reconnects {shown(facts.reconnects)}",
    ]


def _number(value: float, most: int) -> str:
    """A number with all its digits up to `most`, beyond it as one like 12.3M."""
    if value <= most:
        return f"{value:,.0f}"
    for unit in "kMG":
        value /= 1000
        if value < _NEXT_UNIT:
            return f"{value:.{0 if value >= 100 else 1}f}{unit}"
    return f"{value:,.0f}G"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
