"""What a run tells of itself: to the status line, to its last log line, to metrics and to probes.

All of it is read out of plain numbers that the parts keep anyway, from any thread, when somebody asks.
"""

from __future__ import annotations

import time

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Activity
from loader_ws_trades.monitoring.health import main_loop, verdict
from loader_ws_trades.monitoring.latency import Latencies
from loader_ws_trades.monitoring.status import Facts
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import Link, Sink, Source


class Vitals:
    """What there is to know of a run; `turn` is called by its main thread, at each turn."""

    def __init__(
        self, settings: Settings, source: Source, sink: Sink, ingest: Ingest, latencies: Latencies | None
    ) -> None:
        self.settings = settings
        self.source = source
        self.sink = sink
        self.ingest = ingest
        self.latencies = latencies
        self.stage = "starting"
        self._turned = time.monotonic()
        self._full = self._turned  # when the source was last seen waiting for room in the sink

    def enter(self, stage: str) -> None:
        """Begin one of `health.STAGES`, which may allow less time for a turn than the one before."""
        self.turn()
        self.stage = stage

    def turn(self) -> None:
        """Note a turn of the main loop, and what was delivered by then."""
        self._turned = now = time.monotonic()
        if self.ingest.full:
            self._full = now
        if self.latencies:
            self.latencies.settle(self.sink.delivered, now)

    def trouble(self) -> str | None:
        """What is stuck or dead, in a sentence; None if nothing is."""
        settings = self.settings
        activities = [
            main_loop(
                self.stage,
                self._turned,
                startup=settings.startup_timeout + settings.startup_grace,
                shutdown=settings.shutdown_timeout,
            )
        ]
        if self.stage == "loading":
            activities += map(self._but_for_a_full_sink, self.source.activities())
        return verdict(activities, time.monotonic())

    def _but_for_a_full_sink(self, activity: Activity) -> Activity:
        # What waits for room stands still for as long as Kafka does.
        return activity._replace(since=max(activity.since, self._full)) if activity.limit else activity

    @property
    def lag(self) -> float | None:
        """Seconds since the last trade, by the exchange's clock and ours; None before the first one."""
        last = self.ingest.last_time
        return max(0.0, time.time() - last / 1000) if last else None

    @property
    def link(self) -> Link:
        """The source's connection."""
        return self.source.link

    @property
    def kafka_outage(self) -> float:
        """Seconds for which nothing that waits was acknowledged; 0 if nothing waits."""
        return _since(self.sink.waiting_since)

    @property
    def feed_outage(self) -> float:
        """Seconds without a connection to the exchange; 0 while there is one."""
        return _since(self.link.lost)

    @property
    def connection_age(self) -> float:
        """Seconds since the present connection was opened; 0 while there is none."""
        return _since(self.link.opened)

    def shown(self) -> Facts:
        """For the status line."""
        return Facts(
            state=self.source.state,
            delivered=self.sink.delivered,
            in_flight=self.sink.in_flight,
            lag=self.lag,
            missing=self.ingest.missing,
            reconnects=self.source.reconnects,
            total=self.source.total,
        )

    def counts(self) -> dict[str, int]:
        """What happened to the trades, for the last log line."""
        return {
            "received": self.ingest.received,
            "delivered": self.sink.delivered,
            "duplicates": self.ingest.duplicates,
            "late": self.ingest.late,
            "refused": self.ingest.refused.total(),
            "repaired": self.ingest.repaired,
            "missing": self.ingest.missing,
        }


def _since(moment: float | None) -> float:
    return 0.0 if moment is None else max(0.0, time.monotonic() - moment)
