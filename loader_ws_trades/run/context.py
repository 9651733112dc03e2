"""The parts of a run, and one turn of its main loop.

Signal handlers, the control thread and a dying thread only put a `StopReason` into the mailbox, which wakes the main
thread; it alone acts on it. It also serves the delivery reports, so it never waits for anything that waits for them.
"""

from __future__ import annotations

import logging
import time

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import EndOfOutputError, LoaderError
from loader_ws_trades.kafka.control import Control
from loader_ws_trades.kafka.telemetry import Telemetry
from loader_ws_trades.lifecycle import Deadline, Mailbox, StopReason
from loader_ws_trades.monitoring import progress
from loader_ws_trades.monitoring.monitor import Monitor
from loader_ws_trades.monitoring.status import RunStatus
from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import Sink, Source
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.sequencer import WINDOW, Sequencer
from loader_ws_trades.run.lanes import Lanes
from loader_ws_trades.run.reporting import Reporter, rejections

log = logging.getLogger(__name__)

TURN = 0.1  # seconds that one turn of the main loop may wait if more is due than delivery reports: commits, an end
LOADING_TURN = 0.25  # the same while only delivery reports come
IDLE_TURN = 2.0  # the same while nothing was accepted since the last turn, and nothing waits to be delivered
_LOOK = 1.0  # seconds between two looks at how the run is doing, which cost more than the rest of a turn


class RunContext:
    """The parts of one run; used by the main thread, except where other threads are named.

    Args:
        settings: the settings of the process.
        source: where trades come from.
        sink: where they go.
        mailbox: where the reasons to stop arrive.
        reports: whether the run sends telemetry and obeys commands.
        display: shows the progress.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        sink: Sink,
        mailbox: Mailbox,
        *,
        reports: bool,
        display: progress.Display,
    ) -> None:
        self.settings = settings
        self.source = source
        self.sink = sink
        self.mailbox = mailbox
        self.display = display
        self.started = time.monotonic()
        self._look = Deadline(0)
        self._trouble: str | None = None
        self._accepted = 0  # by the sink, before the last turn
        self.telemetry = Telemetry(settings) if reports else None
        self.control = Control(settings) if reports else None
        self.monitor = Monitor(settings, self.status)
        latencies = self.monitor.latencies
        self._copies = Copies() if settings.feed_connections > 1 else None  # of all pairs
        self._stamp_source = source.origin if settings.record_headers == "on" else None
        self._outlet: Outlet[Lane] = Outlet(
            sink.put,
            limit=settings.max_records,
            on_limit=lambda: mailbox.put(StopReason.complete(f"Loaded all {settings.max_records} requested records")),
        )
        self.ingest = Ingest(
            self._outlet,
            stamp_source=self._stamp_source,
            on_rejected=rejections(source),
            on_read=(lambda received: latencies.note(sink.accepted, received)) if latencies else None,
        )
        self.lanes = Lanes(
            settings,
            source=source,
            sink=sink,
            ingest=self.ingest,
            telemetry=self.telemetry,
            make=self._make_lane,
            stop=mailbox.put,
        )

    def _make_lane(self, settings: Settings, reporter: Reporter) -> Lane:
        return Lane(
            settings,
            Sequencer(WINDOW if settings.gap_repair == "on" else 0),
            self._outlet,
            on_events=reporter.on_events,
            stamp_source=self._stamp_source,
            copies=Copies(self._copies) if self._copies else None,
        )

    def status(self) -> RunStatus:
        """How the run is doing; may be called in any thread."""
        sink = self.sink
        return RunStatus(
            stage=self.monitor.stage,
            source=self.source.status(),
            lanes=self.lanes.all,
            delivered=sink.delivered,
            in_flight=sink.in_flight,
            rejected=dict(self.ingest.rejected),
            blocked=self.ingest.full,
            kafka_outages=sink.outages,
            undelivered_since=sink.waiting_since,
            copies=self._copies,
        )

    def tick(self) -> None:
        """Do what is due, besides serving the delivery reports."""
        self.source.tick(self.sink.delivery_time)
        if self.monitor.latencies:
            late = self.sink.served_late
            self.monitor.latencies.settle(self.sink.delivered, time.monotonic(), late=late)
        if self.telemetry:
            self.telemetry.poll()
        if self._look.passed:
            self._look = Deadline(_LOOK)
            status = self.monitor.turn()
            self._trouble = status.source.trouble
            self.display.show(progress.of_run(status))
        self.lanes.tick(self._trouble)

    @property
    def turn(self) -> float:
        """Seconds that the next turn of the main loop may wait for delivery reports."""
        before, self._accepted = self._accepted, self.sink.accepted
        idle = before == self._accepted and not self.sink.in_flight
        if self.source.ends or (self.settings.delivery == "transactional" and not idle):
            return TURN
        # With many pairs an event is always due soon, which must not make turns shorter than while trades come.
        longest = min(IDLE_TURN, max(LOADING_TURN, self.lanes.due_in)) if idle else LOADING_TURN
        return min(longest, self.settings.telemetry_interval / 2)

    @property
    def all_delivered(self) -> bool:
        """Whether every trade that was received is delivered, but for those that a gap holds back."""
        return self.ingest.idle and not self.sink.in_flight

    def on_death(self, error: BaseException) -> None:
        """A thread died; called in that thread."""
        self.mailbox.put(reason_of(error))


def reason_of(error: BaseException) -> StopReason:
    """The reason to stop that an error is."""
    if isinstance(error, EndOfOutputError):
        return StopReason.complete(str(error))
    if isinstance(error, LoaderError):
        return StopReason.failed(str(error), error.exit_code)
    log.debug("Internal error", exc_info=error)
    return StopReason.failed(
        f"Internal error: {type(error).__name__}: {error}; set LOG_LEVEL=debug (--log-level) to see where, "
        "and report it"
    )
