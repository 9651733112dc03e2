"""A file whose modification time shows that a run is alive, for probes that run a command."""

from __future__ import annotations

import logging
import os
import time

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.logs import Events

events = Events(logging.getLogger(__name__))

_EVERY = 1.0  # seconds


class Heartbeat:
    """Touches the file at `path`, which is created if need be.

    Raises:
        ConfigurationError: if it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._failed = False
        try:
            self._touch()
        except OSError as error:
            # Its name is not shown: a password may be there by mistake.
            raise ConfigurationError(
                f"{named('heartbeat_file')} names a file that cannot be written ({error.strerror}); "
                "choose a writable one"
            ) from error

    @property
    def due(self) -> bool:
        """Whether it is time to touch it."""
        return time.monotonic() - self._touched >= _EVERY

    def beat(self) -> None:
        """Touch it; a failure is logged once."""
        try:
            self._touch()
        except OSError as error:
            if not self._failed:
                text = f"Cannot write the heartbeat file ({error.strerror}); check {named('heartbeat_file')}"
                events.warn("heartbeat_failed", text)
            self._failed = True

    def _touch(self) -> None:
        self._touched = time.monotonic()
        # A pipe that nobody reads must not block.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        try:
            os.utime(file)
        finally:
            os.close(file)
