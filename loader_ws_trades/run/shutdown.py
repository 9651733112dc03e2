"""The end of a run: deliver what was received, report what could not be, send the last event."""

from __future__ import annotations

import contextlib
import logging
import time
from queue import Empty

from loader_ws_trades.errors import EndOfOutputError, LoaderError
from loader_ws_trades.kafka.telemetry import Telemetry
from loader_ws_trades.lifecycle import Deadline, StopReason
from loader_ws_trades.logs import Events
from loader_ws_trades.monitoring.status import RunStatus
from loader_ws_trades.pipeline.interfaces import Undelivered
from loader_ws_trades.run.context import TURN, RunContext, reason_of
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)
events = Events(log)

_LAST_EVENT = 3.0  # seconds of the shutdown timeout that are kept for the last event
_HURRIED = 1.5  # seconds that are left after a second signal, so that the process has ended after 2
_THREAD_END = 0.5  # seconds to wait for a thread at the very end; it dies with the process anyway


class Shutdown:
    """Ends a run for `reason`, within `SHUTDOWN_TIMEOUT`."""

    def __init__(self, context: RunContext, reason: StopReason) -> None:
        self._context = context
        self._reason = reason
        self._signalled = reason.by_a_signal
        timeout = context.settings.shutdown_timeout
        self._deadline, self._tail = Deadline(timeout), Deadline(timeout - min(_LAST_EVENT, timeout / 4))

    def run(self) -> int:
        """Deliver the tail, name what could not be delivered, send the last event; the exit code."""
        context = self._context
        self._log_begin(started=context.monitor.stage in {"loading", "stopping"})
        context.monitor.enter("stopping")
        context.source.close()
        if context.control:
            context.control.close()
        context.sink.drain()
        resumes = context.source.status().resumes
        undelivered = self._drain(final=self._reason.exit_code == 0 or not resumes)
        self._note_reasons()
        status = context.status()
        reason, message = context.lanes.finish(self._reason, undelivered, context.sink.in_flight, status.source.trouble)
        if context.telemetry and context.telemetry.is_open:
            self._await_last_event(context.telemetry)
        context.display.close()
        context.lanes.log_remaining()
        if context.control:
            context.control.join(_THREAD_END)
        context.source.join(_THREAD_END)
        self._log_end(reason, message, status)
        return reason.exit_code

    def _drain(self, *, final: bool) -> list[Undelivered]:
        """Deliver what was received, for as long as there is time; what could not be delivered.

        If `final`, no later run fetches what a gap holds back: repair gets half of the time, then the gap is given up.
        """
        context = self._context
        source, ingest, sink = context.source, context.ingest, context.sink
        repair_end = Deadline(self._tail.remaining / 2)
        while not self._tail.passed:
            # A second signal leaves no time for repair.
            patient = not repair_end.passed and self._tail.remaining > _HURRIED / 2
            if source.finish(final=final, patient=patient) and ingest.close() and context.all_delivered:
                return []
            try:
                sink.poll(TURN)
            except EndOfOutputError:
                ingest.abandon()
                return []  # no one reads what is left
            except LoaderError as error:
                context.mailbox.put(reason_of(error))
                break
            context.tick()
            self._note_reasons()
        source.finish(final=final, patient=False)
        waiting = ingest.abandon()
        return sink.give_up(Deadline(self._deadline.remaining / 2)) + waiting

    def _note_reasons(self) -> None:
        """Take the reasons that came after the first: a worse one outranks it, a second signal shortens the rest."""
        with contextlib.suppress(Empty):
            while True:
                more = self._context.mailbox.get_nowait()
                if more.severity > self._reason.severity:
                    self._reason = more
                if more.by_a_signal and self._signalled:
                    events.warn("hurried", f"{more.message} again: at most {_HURRIED:g} s left to deliver the rest")
                    self._deadline.shorten(_HURRIED)
                    self._tail.shorten(_HURRIED / 2)
                self._signalled = self._signalled or more.by_a_signal

    def _await_last_event(self, telemetry: Telemetry) -> None:
        while not telemetry.flushed and not self._deadline.passed:
            self._context.monitor.turn()
            telemetry.poll(TURN)
            self._note_reasons()
        telemetry.give_up()

    def _log_begin(self, *, started: bool) -> None:
        reason = self._reason
        if reason.status != "error":
            events.info("stopping", f"Stopping: {reason.message}", status=reason.status)
        elif started:  # the last line has the reason
            events.warn("stopping", "Stopping because of an error; delivering what was received first", status="error")

    def _log_end(self, reason: StopReason, message: str, status: RunStatus) -> None:
        counts, seconds = status.counts(), time.monotonic() - self._context.started
        shown = f"{', '.join(f'{name} {count}' for name, count in counts.items())}, in {format_duration(seconds)}"
        extra = {
            "event": "ended",
            "status": reason.status,
            "exit_code": reason.exit_code,
            **counts,
            "seconds": round(seconds, 3),
        }
        level = logging.ERROR if reason.status == "error" else logging.INFO
        log.log(level, "%s: %s (%s)", reason.status.capitalize(), message, shown, extra=extra)
