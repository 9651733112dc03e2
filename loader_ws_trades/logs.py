"""Log lines on standard error: text for people, JSON for machines, without secrets, and no floods."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

from pythonjsonlogger.json import JsonFormatter

from loader_ws_trades.config import Settings, redacted

LOGGER = logging.getLogger("loader_ws_trades")


def configure(settings: Settings) -> None:
    """Send the package's log lines to standard error, in the form and from the level that the settings name."""
    formatter: logging.Formatter
    if settings.log_format == "json":
        formatter = JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields={
                "queue_id": settings.queue_id,
                "symbol": settings.symbol,
                "producer": settings.telemetry_producer_id,
            },
        )
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_Redaction(settings))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(settings.log_level.upper())
    LOGGER.propagate = False


class _Redaction(logging.Filter):
    """Takes secrets out of a line before it is formatted; nothing here puts one in, but what others say may."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._traces = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage(), self._settings), None
        if record.exc_info:
            record.exc_text = redacted(self._traces.formatException(record.exc_info), self._settings)
            record.exc_info = None
        return True


class Throttle:
    """Warnings of which each kind is logged a few times, then only at debug level: input must not flood the log."""

    def __init__(self, logger: logging.Logger, per_kind: int) -> None:
        self._logger = logger
        self._per_kind = per_kind
        self._seen: Counter[str] = Counter()

    def warn(self, kind: str, message: str) -> None:
        """Log `message`, at debug level if its kind has been logged often enough."""
        self._seen[kind] += 1
        if self._seen[kind] > self._per_kind:
            self._logger.debug("%s", message)
            return
        last = " (more of this kind are logged at debug level only)" if self._seen[kind] == self._per_kind else ""
        self._logger.warning("%s%s", message, last)
