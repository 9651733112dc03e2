"""A file whose time of modification says that a run is alive, for probes that run a command."""

from __future__ import annotations

import logging
import os
import time

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError

log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds


class Heartbeat:
    """Renews the file at `path`, which is made if need be.

    Raises:
        ConfigurationError: if it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._told = False
        try:
            self._renew()
        except OSError as error:
            # Its name is not shown: a password may stand there by mistake.
            raise ConfigurationError(
                f"{named('heartbeat_file')} names a file that cannot be written ({error.strerror}); give one that can"
            ) from error

    @property
    def due(self) -> bool:
        """Whether it is time to renew it."""
        return time.monotonic() - self._renewed >= _EVERY

    def beat(self) -> None:
        """Renew it; that it cannot be is told once."""
        try:
            self._renew()
        except OSError as error:
            if not self._told:
                log.warning(
                    "The heartbeat cannot be renewed (%s); see to %s",
                    error.strerror,
                    named("heartbeat_file"),
                    extra={"event": "heartbeat_failed"},
                )
            self._told = True

    def _renew(self) -> None:
        self._renewed = time.monotonic()
        # A pipe that nobody reads must not block.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            os.utime(file)
        finally:
            os.close(file)
