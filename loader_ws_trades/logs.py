"""Log lines on standard error: text for people, JSON for machines, without secrets, and no floods."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

from pythonjsonlogger.json import JsonFormatter

from loader_ws_trades.config import Settings, redacted

_PACKAGE = "loader_ws_trades"


def configure(settings: Settings) -> None:
    """Send the package's log lines to standard error, in the form and from the level that the settings name."""
    formatter: logging.Formatter
    if settings.log_format == "json":
        context = {
            "queue_id": settings.queue_id,
            "symbol": settings.symbol,
            "producer": settings.telemetry_producer_id,
        }
        formatter = _Json(settings, context)
    else:
        formatter = _Text(settings)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger = logging.getLogger(_PACKAGE)
    logger.handlers[:] = [handler]
    logger.setLevel(settings.log_level.upper())
    logger.propagate = False


class _Text(logging.Formatter):
    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record), self._settings)


class _Json(JsonFormatter):
    def __init__(self, settings: Settings, context: dict[str, str]) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields=context,
            timestamp=False,
        )
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"
        self._settings = settings

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record), self._settings)


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
