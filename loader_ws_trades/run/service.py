"""One run, from the first contact to the exit code: puts source, sink and the rest together, and decides why it ends.

Signal handlers, the control thread and a dying thread only put a `StopReason` into the mailbox; the main thread
alone acts on it. It also serves the delivery reports, so it never waits for anything that waits for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import EndOfOutputError, LoaderError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.control import Control, NoControl
from loader_ws_trades.kafka.properties import consumer_properties
from loader_ws_trades.kafka.startup import retry_until_ready
from loader_ws_trades.kafka.telemetry import NoTelemetry, Telemetry
from loader_ws_trades.lifecycle import Deadline, Startup, StopReason, Task
from loader_ws_trades.logs import Throttle
from loader_ws_trades.monitoring.latency import Latencies
from loader_ws_trades.monitoring.monitor import Monitor
from loader_ws_trades.monitoring.status import StatusLine, StatusLog
from loader_ws_trades.monitoring.vitals import Vitals
from loader_ws_trades.pipeline.id_ranges import ranges
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import Sink, Source
from loader_ws_trades.pipeline.missing import IN_A_MESSAGE, MissingIds, listed
from loader_ws_trades.pipeline.sequencer import WINDOW, Event, Gap, Late, Reset, Sequence
from loader_ws_trades.pipeline.trade import FrameDecoder, Refusal
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

_TURN = 0.1  # seconds that one turn of the main loop may wait for delivery reports
_LAST_EVENT = 3.0  # seconds of the shutdown's time that are kept for the last event
_HURRIED = 1.5  # seconds that are left after a second signal, so that the process has ended after 2
_LAST_MOMENT = 1.9  # seconds after a second signal at which the process is ended, should it still be there
_THREAD_END = 0.5  # seconds that a thread has to end in, once all is said; it dies with the process anyway
_GAP_LINES = (200, 3600.0)  # log lines about missing ids in so many seconds; the end of the run names the others


def run(
    settings: Settings,
    make_source: Callable[[], Source],
    make_sink: Callable[[], Sink],
    *,
    reports: bool = True,
    status: StatusLine | None = None,
) -> int:
    """Load from a source into a sink until the source is done or the run is stopped; the exit code.

    Args:
        settings: the settings of the process.
        make_source: gives the source; called once.
        make_sink: gives the sink; called once.
        reports: whether the run sends telemetry and obeys commands.
        status: a line that is kept up to date.
    """
    mailbox: SimpleQueue[StopReason] = SimpleQueue()
    with _signals_to(mailbox):
        try:
            parts = _Run(settings, make_source(), make_sink(), mailbox, reports=reports, status=status)
        except LoaderError as error:
            log.error("%s", error, extra={"event": "ended", "status": "error"})  # noqa: TRY400 - a user's fault is one sentence
            return error.exit_code
        return parts.run()


@contextlib.contextmanager
def _signals_to(mailbox: SimpleQueue[StopReason]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        mailbox.put(StopReason.by_signal(number))

    with _end_after_second_signal():
        before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _end_after_second_signal() -> Iterator[None]:
    """End the process `_LAST_MOMENT` after a second signal, whatever its threads are doing.

    A handler runs only once the main thread is back in Python, and a library may keep it for long; Python writes to
    the wake-up descriptor at once.
    """
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while seen < 2 and (numbers := woken.recv(64)):
            seen += len(numbers)
        if seen >= 2 and not ended.wait(_LAST_MOMENT):
            os._exit(1)

    woken, wake = socket.socketpair()
    wake.setblocking(False)
    with woken, wake:
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        watcher = Task("signals", watch)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            ended.set()
            wake.close()
            watcher.join(_THREAD_END)


class _Run:
    def __init__(
        self,
        settings: Settings,
        source: Source,
        sink: Sink,
        mailbox: SimpleQueue[StopReason],
        *,
        reports: bool,
        status: StatusLine | None,
    ) -> None:
        self._status = status
        self._status_log = StatusLog(log)
        self._settings = settings
        self._source = source
        self._sink = sink
        self._mailbox = mailbox
        self._began = time.monotonic()
        self._telemetry = Telemetry(settings) if reports else NoTelemetry()
        self._control = Control(settings) if reports else NoControl()
        self._refusals = Throttle(log, per_kind=1)
        self._gap_lines = Throttle(log, *_GAP_LINES)
        self._missing = MissingIds()  # for telemetry
        self._unlogged = MissingIds()
        self._told_unchecked = False
        latencies = Latencies() if settings.metrics_port else None
        self._ingest = Ingest(
            FrameDecoder(settings.symbol),
            Sequence(WINDOW if settings.gap_repair == "on" else 0),
            sink.put,
            limit=settings.max_records,
            on_limit=lambda: mailbox.put(StopReason.complete(f"All {settings.max_records} records asked for are here")),
            on_refusal=self._on_refusal,
            on_events=self._on_events,
            on_read=(lambda came: latencies.note(sink.accepted, came)) if latencies else None,
        )
        self._vitals = Vitals(settings, source, sink, self._ingest, latencies)
        self._monitor = Monitor(self._vitals)

    def run(self) -> int:
        """The run; its exit code."""
        try:
            reason = self._start() or self._stream()
        except Exception as error:
            reason = self._reason_of(error)
        try:
            return self._finish(reason)
        finally:
            self._monitor.close()

    # -- what other threads call

    def _on_refusal(self, refusal: Refusal, connection: int) -> None:
        if not self._source.refused(refusal, connection):
            text = f"Frames that are no trade of ours are dropped ({refusal.kind}): {refusal.detail}"
            self._refusals.warn(refusal.kind, text, event="frame_rejected", frame=refusal.kind)

    def _on_events(self, events: list[Event], why: str) -> None:
        for event in events:
            if isinstance(event, Reset):
                text = f"The exchange began its trade ids anew: {event.first} follows {event.last}"
                self._gap_lines.warn("ids_reset", text, first=event.first, last=event.last)
                self._source.keep_only(event.connection)
            elif isinstance(event, Late):
                text = f"Trade ids {event} came after they had been given up and stay missing; backfill adds them"
                self._gap_lines.warn("late_trades", text, first=event.first, last=event.last)
        gaps = [event for event in events if isinstance(event, Gap)]
        if not gaps:
            return
        self._missing.add(gaps)
        first, more = gaps[:IN_A_MESSAGE], gaps[IN_A_MESSAGE:]
        text = ", ".join(map(str, first)) + (f" and {len(more)} more ranges" if more else "")
        count = sum(map(len, first))
        logged = self._gap_lines.warn("missing", f"Missing trade ids {text} ({why})", ids=listed(first), count=count)
        self._unlogged.add(more if logged else gaps)

    def _on_death(self, error: BaseException) -> None:
        self._mailbox.put(self._reason_of(error))

    @staticmethod
    def _reason_of(error: BaseException) -> StopReason:
        if isinstance(error, EndOfOutputError):
            return StopReason.complete(str(error))
        if isinstance(error, LoaderError):
            return StopReason.failed(str(error), error.exit_code)
        log.debug("Internal error", exc_info=error)
        return StopReason.failed(
            f"Internal error: {type(error).__name__}: {error}; set LOG_LEVEL=debug (--log-level) to see where, "
            "and report it"
        )

    # -- the main thread

    def _start(self) -> StopReason | None:
        settings = self._settings
        startup = Startup(Deadline(settings.startup_timeout), settings.startup_grace, stopped=self._called_off)
        with contextlib.suppress(LoaderError):
            self._monitor.open()  # probes are answered while Kafka is awaited
        self._telemetry.open(startup)
        retry_until_ready(self._monitor.open, startup, threading.Event().wait)  # here an event can tell why it fails
        self._sink.open(startup)
        self._control.open(startup)
        if startup.stopped():
            return self._mailbox.get()
        if stopped := self._prepare(self._source.check):
            return stopped
        log.info("Loading trades of %s into %s", settings.symbol, self._sink, extra={"event": "started"})
        self._telemetry.send("started", f"Started loading trades of {settings.symbol} into {settings.kafka_topic}", 0)
        self._control.start(lambda: self._mailbox.put(StopReason.by_command()), self._on_death)
        while not self._control.caught_up.wait(_TURN):
            if not self._mailbox.empty():
                return self._mailbox.get()
            self._sink.poll(0)
            self._tick()
            if self._control.silent_for > settings.startup_timeout:
                raise TopicAdmin(consumer_properties(settings), settings.queue_control_topic).read_timeout()
        return None

    def _called_off(self) -> bool:
        self._monitor.turn()  # a wait for Kafka asks here at each of its turns
        return not self._mailbox.empty()

    def _stream(self) -> StopReason:
        bound = Deadline(self._settings.duration) if self._settings.duration else None
        # A stop command that was read on the way to the end of its topic comes first.
        if not self._mailbox.empty():
            return self._mailbox.get()
        self._vitals.enter("preparing")
        if stopped := self._prepare(lambda: self._source.prepare(self._ingest)):
            return stopped
        self._source.start(self._ingest, self._on_death)
        self._vitals.enter("loading")
        complete: StopReason | None = None
        while True:
            self._sink.poll(_TURN)
            self._tick()
            if bound and bound.passed:
                complete = complete or StopReason.complete(f"The {self._settings.duration:g} s asked for are over")
            with contextlib.suppress(Empty):
                reason = self._mailbox.get_nowait()
                if reason.status != "finished":
                    return reason
                complete = reason
            if self._source.done:
                complete = complete or StopReason.complete("All that was asked for is here")
            if complete:
                self._vitals.enter("stopping")
                self._sink.drain()
                # Nobody asked it to hurry: the tail has all the time that the limits of repair and of Kafka give.
                self._source.close()
                if self._source.done and self._all_delivered():
                    return complete

    def _prepare(self, step: Callable[[], None]) -> StopReason | None:
        """Let a thread take a step that asks others; the reason to stop, if one comes first: the step is left then."""
        preparing = Task("prepare", step)
        preparing.start()
        while not preparing.join(_TURN) and self._mailbox.empty():
            self._sink.poll(0)
            self._tick()
        if not self._mailbox.empty():
            return self._mailbox.get()
        preparing.future.result()
        return None

    def _all_delivered(self) -> bool:
        return self._ingest.idle and not self._sink.in_flight

    def _tick(self) -> None:
        self._monitor.turn()
        self._telemetry.poll()
        self._source.tick()
        if self._telemetry.due:
            self._telemetry.send("loading", self._progress(), self._sink.delivered)
        if not self._status:
            steady = self._vitals.stage == "loading" and self._source.total is None
            self._status_log.turn(self._vitals.shown, steady=steady)
        elif self._status.due:
            self._status.draw(self._vitals.shown())

    def _progress(self, reason: str = "") -> str:
        trouble = self._source.trouble() or ""
        parts = [f"Loaded and published {self._sink.delivered} trade records", trouble if trouble not in reason else ""]
        if not self._told_unchecked and self._source.unchecked:
            self._told_unchecked = True
            parts.append(self._source.unchecked)
        if missing := self._missing.message():
            parts.append(f"missing trade ids {missing}")
        return "; ".join(part for part in parts if part)

    def _finish(self, reason: StopReason) -> int:
        started = self._vitals.stage in {"loading", "stopping"}
        self._vitals.enter("stopping")
        timeout = self._settings.shutdown_timeout
        self._reason, self._signalled = reason, reason.by_a_signal
        self._deadline, self._tail = Deadline(timeout), Deadline(timeout - min(_LAST_EVENT, timeout / 4))
        if reason.status != "error":
            log.info("Stopping: %s", reason.message, extra={"event": "stopping", "status": reason.status})
        elif started:  # the last line says which
            log.warning(
                "Stopping because of an error; what was received is delivered first",
                extra={"event": "stopping", "status": "error"},
            )
        self._source.close()
        self._control.close()
        self._sink.drain()
        undelivered = self._drain(final=reason.exit_code == 0 or not self._source.resumes)
        self._note_reasons()
        reason = self._reason
        if undelivered or self._sink.in_flight:
            ids = f"trade ids {listed(ranges(undelivered))}" if undelivered else f"{self._sink.in_flight} trades"
            message = f"{reason.message}; not delivered: {ids}"
            reason = StopReason.failed(message, reason.exit_code if reason.status == "error" else 1)
        message = f"{reason.message}; {self._progress(reason.message)}"
        if self._telemetry.is_open:
            self._telemetry.send(reason.status, message, self._sink.delivered, finished=True)
            while not self._telemetry.flushed and not self._deadline.passed:
                self._monitor.turn()
                self._telemetry.poll(_TURN)
                self._note_reasons()
            self._telemetry.give_up()
        if self._status:
            self._status.close()
        for text in self._unlogged.lines():
            log.warning(
                "Missing trade ids %s (not named in the log before)", text, extra={"event": "missing", "ids": text}
            )
        for thread in (self._control, self._source):
            thread.join(_THREAD_END)
        level = logging.ERROR if reason.status == "error" else logging.INFO
        counts, seconds = self._vitals.counts(), time.monotonic() - self._began
        shown = f"{', '.join(f'{name} {count}' for name, count in counts.items())}, in {format_duration(seconds)}"
        extra = {
            "event": "ended",
            "status": reason.status,
            "exit_code": reason.exit_code,
            **counts,
            "seconds": round(seconds, 3),
        }
        log.log(level, "%s: %s (%s)", reason.status.capitalize(), message, shown, extra=extra)
        return reason.exit_code

    def _note_reasons(self) -> None:
        """Take what came after the reason for the end: an error is a graver one, a second signal asks to hurry."""
        with contextlib.suppress(Empty):
            while True:
                more = self._mailbox.get_nowait()
                if more.status == "error" and self._reason.status != "error":
                    self._reason = more
                if more.by_a_signal and self._signalled:
                    log.warning(
                        "%s again: no more than %g s for the tail", more.message, _HURRIED, extra={"event": "hurried"}
                    )
                    self._deadline.shorten(_HURRIED)
                    self._tail.shorten(_HURRIED / 2)
                self._signalled = self._signalled or more.by_a_signal

    def _drain(self, *, final: bool) -> list[int]:
        """Deliver what was received, for as long as there is time; the ids that could not be delivered.

        If `final`, no later run fetches what a gap holds back: repair gets half of the time, then the gap is given up.
        """
        repair_end = Deadline(self._tail.remaining / 2)
        while not self._tail.passed:
            # A second signal leaves no time for repair.
            patient = not repair_end.passed and self._tail.remaining > _HURRIED / 2
            if self._source.finish(final=final, patient=patient) and self._ingest.close() and self._all_delivered():
                return []
            try:
                self._sink.poll(_TURN)
            except EndOfOutputError:
                self._ingest.abandon()
                return []  # nobody wants what is left
            except LoaderError as error:
                self._mailbox.put(self._reason_of(error))
                break
            self._tick()
            self._note_reasons()
        self._source.finish(final=final, patient=False)
        waiting = self._ingest.abandon()
        return self._sink.give_up(Deadline(self._deadline.remaining / 2)) + waiting
