"""Shows others how a run is, as far as the settings ask for it: over HTTP, and by a file."""

from __future__ import annotations

from loader_ws_trades.heartbeat import Heartbeat
from loader_ws_trades.vitals import Vitals


class Monitor:
    """Metrics, probes and the heartbeat of a run.

    Raises:
        ConfigurationError: if the port or the file cannot be had.
    """

    def __init__(self, vitals: Vitals) -> None:
        settings = vitals.settings
        self._vitals = vitals
        self._heartbeat = Heartbeat(settings.heartbeat_file) if settings.heartbeat_file else None
        self._exposition = None
        if settings.metrics_port:
            from loader_ws_trades.exposition import Exposition  # noqa: PLC0415 - its library takes time and memory

            self._exposition = Exposition(settings.metrics_port, vitals)
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
