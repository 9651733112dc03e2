"""Shows others how a run is, as far as the settings ask for it: over HTTP, and by a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loader_ws_trades.monitoring.heartbeat import Heartbeat
from loader_ws_trades.monitoring.vitals import Vitals

if TYPE_CHECKING:
    from loader_ws_trades.monitoring.server import Exposition


class Monitor:
    """Metrics, probes and the heartbeat of a run, from `open` to `close`."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._heartbeat: Heartbeat | None = None
        self._exposition: Exposition | None = None

    def open(self) -> None:
        """Begin; called again, begin what could not be begun.

        Raises:
            ConfigurationError: if the port or the file cannot be had.
            UnavailableError: if somebody else has the port.
        """
        settings = self._vitals.settings
        if settings.heartbeat_file and not self._heartbeat:
            self._heartbeat = Heartbeat(settings.heartbeat_file)
        if settings.metrics_port and not self._exposition:
            from loader_ws_trades.monitoring.server import Exposition  # noqa: PLC0415 - its library takes time and memory

            self._exposition = Exposition(settings.metrics_port, self._vitals)
            self._exposition.start()

    def turn(self) -> None:
        """Note a turn of the main loop."""
        self._vitals.turn()
        if self._heartbeat and self._heartbeat.due and not self._vitals.trouble():
            self._heartbeat.beat()

    def close(self) -> None:
        """Show nothing more."""
        if self._exposition:
            self._exposition.close()
