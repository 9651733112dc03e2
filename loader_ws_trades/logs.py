"""Log lines on standard error, as text or JSON: without secrets, one line each, throttled."""

from __future__ import annotations

import logging
import math
import sys
import time
from functools import lru_cache
from typing import TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

from loader_ws_trades import streams
from loader_ws_trades.config import parsers
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.text import printable

LOGGER = logging.getLogger("loader_ws_trades")

_LONGEST = 16_000  # characters of a message; a hundred ranges of trade ids need fewer
_LAST_DROPPED = {"missing", "stopping", "ended"}  # events that name trade ids, or the reason a run ends


def configure(settings: Settings) -> None:
    """Log to standard error, in the format and from the level that the settings say."""
    formatter: logging.Formatter
    who = {
        "queue_id": settings.queue_id,
        "symbol": settings.symbol,
        "producer": settings.client_id,
    }
    who = {name: value for name, value in who.items() if value}  # some commands need fewer settings
    if settings.log_format == "json":
        formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields=who,
        )
    else:
        # After the message, because it is the same on every line of a process.
        end = f"  [{' '.join(' '.join(who.values()).split())}]".replace("%", "%%") if who else ""
        formatter = logging.Formatter(f"%(asctime)s %(levelname)-7s %(message)s{end}")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler = _Handler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_Redaction(settings))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(settings.log_level.upper())
    LOGGER.propagate = False
    if isinstance(sys.stderr, streams.StandardError):
        sys.stderr.note = handler.dropped


class _Handler(logging.Handler):
    """Writes lines to `StandardError`, with their rank, or to another stream."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n"
            if isinstance(self._stream, streams.StandardError):
                self._stream.put_text(line, _rank(record))
            else:
                self._stream.write(line)
        except Exception:
            self.handleError(record)

    def dropped(self, count: int) -> str:
        """The line that reports `count` dropped ones."""
        text = "%d earlier log lines were dropped: they could not be written, or were not read in time"
        extra = {"event": "log_lines_dropped", "lines": count}
        record = LOGGER.makeRecord(LOGGER.name, logging.WARNING, "", 0, text, (count,), None, extra=extra)
        return f"{self.format(record)}\n"


def _rank(record: logging.LogRecord) -> int:
    if record.levelno >= logging.ERROR or getattr(record, "event", None) in _LAST_DROPPED:
        return streams.HIGH
    return streams.NORMAL if record.levelno >= logging.WARNING else streams.LOW


class _Redaction(logging.Filter):
    """Removes secrets from a line, and control characters that would make it more than one line.

    Our own messages have neither, but foreign text in them may.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._traces = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "event"):
            record.event = "other"  # lines at INFO and above name their own
        record.msg, record.args = printable(redacted(record.getMessage(), self._settings), _LONGEST), None
        if record.exc_info:
            trace = redacted(self._traces.formatException(record.exc_info), self._settings)
            record.exc_text = "\n".join(f"  {printable(line, _LONGEST)}" for line in trace.split("\n"))
            record.exc_info = None
        return True


def secrets(settings: Settings) -> tuple[str, ...]:
    """All secret values, longest first, for redaction."""
    return _secrets(
        (settings.kafka_password_producer, settings.kafka_password_consumer),
        settings.kafka_properties or (),
        (*parsers.url_list(settings.binance_ws_url or ""), settings.binance_rest_url),
    )


@lru_cache(maxsize=8)
def _secrets(
    passwords: tuple[str | None, ...], properties: tuple[tuple[str, str], ...], addresses: tuple[str | None, ...]
) -> tuple[str, ...]:
    found = set(passwords)
    found.update(value for _, value in properties if len(value) >= 8)
    for address in addresses:
        parts = urlsplit(address or "")
        held = parts.password or parts.username or ""  # the user may be a token
        found |= {held, unquote(held)}
        found.update(value for _, value in parse_qsl(parts.query) if len(value) >= 8)
    # Replacing shorter ones would mangle unrelated words.
    return tuple(sorted({value for value in found if value and len(value) >= 4}, key=len, reverse=True))


def redacted(text: str, settings: Settings) -> str:
    """`text` without the secrets of `settings`."""
    for secret in secrets(settings):
        text = text.replace(secret, "***")
    return text


class Events:
    """Logs lines that each name their event; an event and its fields are what a JSON line has beside the message."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def error(self, event: str, message: str, /, **fields: object) -> None:
        """Log an error."""
        self.log(logging.ERROR, event, message, **fields)

    def warn(self, event: str, message: str, /, **fields: object) -> bool:
        """Log a warning; whether it was logged as one."""
        return self.log(logging.WARNING, event, message, **fields)

    def info(self, event: str, message: str, /, **fields: object) -> None:
        """Log at INFO."""
        self.log(logging.INFO, event, message, **fields)

    def log(self, level: int, event: str, message: str, /, **fields: object) -> bool:
        """Log `message` at `level`, unless it was logged too often; whether at `level`."""
        self._logger.log(level, "%s", message, extra={"event": event, **fields})
        return True


class Throttle(Events):
    """Logs each kind of line a few times, then only at debug level: input must not flood the log.

    Args:
        logger: where the lines go.
        per_kind: how many of a kind are logged.
        every: seconds after which the count of a kind starts over.
    """

    def __init__(self, logger: logging.Logger, per_kind: int, every: float = math.inf) -> None:
        super().__init__(logger)
        self._per_kind = per_kind
        self._every = every
        self._seen: dict[str, tuple[float, int]] = {}  # by kind: start of the count, and the count

    def log(self, level: int, kind: str, message: str, /, **fields: object) -> bool:
        """Log `message` at `level`, or at debug level if its kind has been logged often enough; whether at `level`.

        The kind is also the `event` of a JSON line, unless that is among the fields.
        """
        extra = {"event": kind, **fields}
        now = time.monotonic()
        began, seen = self._seen.get(kind, (now, 0))
        note = ""
        if now - began >= self._every:
            if seen > self._per_kind:
                note = f" ({seen - self._per_kind} more of this kind were logged at debug level only)"
            began, seen = now, 0
        self._seen[kind] = began, seen + 1
        if seen >= self._per_kind:
            self._logger.debug("%s", message, extra=extra)
            return False
        if seen + 1 == self._per_kind:
            note += " (more of this kind are logged at debug level only"
            note += ")" if math.isinf(self._every) else f" for {began + self._every - now:.0f} s)"
        self._logger.log(level, "%s%s", message, note, extra=extra)
        return True
