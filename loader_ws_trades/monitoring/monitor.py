"""Watches a run, and shows others how it is doing: over HTTP and by a heartbeat file, as far as settings ask for it.

An outage of Kafka or of the exchange does not make a run unhealthy: the loader waits for them within limits of its own,
and being killed meanwhile would only lose what it has buffered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import SLACK, Activity
from loader_ws_trades.monitoring.heartbeat import Heartbeat
from loader_ws_trades.monitoring.metrics import Latencies
from loader_ws_trades.monitoring.status import RunStatus

if TYPE_CHECKING:
    from loader_ws_trades.monitoring.server import MetricsServer


_TURN = 10.0  # seconds that a turn of the main loop may take; it waits two at most
_START = 60.0  # seconds that a step of the start may take besides waiting for Kafka: REST, and looking up topics


class Monitor:
    """The health, metrics and heartbeat of a run, from `open` to `close`; all but `trouble` is for the main thread.

    Args:
        settings: the limits, and what is to be served.
        status: reads how the run is doing; may be called in any thread.
    """

    def __init__(self, settings: Settings, status: Callable[[], RunStatus]) -> None:
        self._settings = settings
        self._status = status
        self.latencies = Latencies() if settings.metrics_port else None
        self.stage = "starting"
        self._turned = time.monotonic()
        self._blocked = self._turned  # when the source was last seen waiting for room in the sink
        self._heartbeat: Heartbeat | None = None
        self._server: MetricsServer | None = None

    def open(self) -> None:
        """Start serving; called again, start what failed before.

        Raises:
            ConfigurationError: if the port or the file cannot be used.
            UnavailableError: if the port is in use.
        """
        settings = self._settings
        if settings.heartbeat_file and not self._heartbeat:
            self._heartbeat = Heartbeat(settings.heartbeat_file)
        if settings.metrics_port and not self._server:
            from loader_ws_trades.monitoring.server import MetricsServer  # noqa: PLC0415 - its library costs memory

            self._server = MetricsServer(settings, self._status, self.latencies, self.trouble)
            self._server.start()

    def enter(self, stage: str) -> None:
        """Begin one of `status.STAGES`, which may allow less time for a turn than the one before."""
        self.turn()
        self.stage = stage

    def turn(self) -> RunStatus:
        """Note a turn of the main loop; how the run is doing."""
        self._turned = now = time.monotonic()
        status = self._status()
        if status.blocked:
            self._blocked = now
        if self._heartbeat and self._heartbeat.due and not self._trouble(status):
            self._heartbeat.beat()
        return status

    def trouble(self) -> str | None:
        """What is stuck or dead, as a sentence; None if nothing is. May be called in any thread."""
        return self._trouble(self._status())

    def _trouble(self, status: RunStatus) -> str | None:
        settings = self._settings
        startup = settings.startup_timeout + settings.startup_grace
        activities = [main_loop(self.stage, self._turned, startup=startup, shutdown=settings.shutdown_timeout)]
        if self.stage == "loading":
            activities += map(self._unless_blocked, status.source.activities)
        return verdict(activities, time.monotonic())

    def _unless_blocked(self, activity: Activity) -> Activity:
        # Whatever waits for room stands still for as long as Kafka does.
        return activity._replace(since=max(activity.since, self._blocked)) if activity.limit else activity

    def close(self) -> None:
        """Stop serving."""
        if self._server:
            self._server.close()


def main_loop(stage: str, turned: float, *, startup: float, shutdown: float) -> Activity:
    """What the main thread is doing, last seen at `turned`; `startup` and `shutdown` are how long it may wait there."""
    limit = {"starting": startup + _START, "stopping": shutdown + SLACK}.get(stage, _TURN)
    return Activity("The main loop", f"been stuck while {stage}", turned, limit)


def verdict(activities: Iterable[Activity], now: float) -> str | None:
    """What is wrong, as a sentence; None if all is well."""
    for who, what, since, limit in activities:
        if now - since >= limit:
            allowed = f" (limit {limit:.0f} s)" if limit else ""
            return f"{who} has {what} for {now - since:.0f} s{allowed}"
    return None
