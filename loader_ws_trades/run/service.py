"""One run: start, load, and then `run.shutdown`."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import Empty

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.errors import LoaderError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.control import Control
from loader_ws_trades.kafka.properties import consumer_properties
from loader_ws_trades.kafka.startup import retry_until_ready
from loader_ws_trades.lifecycle import Deadline, Mailbox, Startup, StopReason, Task
from loader_ws_trades.logs import Events
from loader_ws_trades.monitoring.progress import Display, ProgressLog
from loader_ws_trades.pipeline.interfaces import Sink, Source
from loader_ws_trades.run.context import TURN, RunContext, reason_of
from loader_ws_trades.run.shutdown import Shutdown
from loader_ws_trades.run.signals import signals_to

log = logging.getLogger(__name__)
events = Events(log)


def run(
    settings: Settings,
    make_source: Callable[[], Source],
    make_sink: Callable[[], Sink],
    *,
    reports: bool = True,
    display: Display | None = None,
) -> int:
    """Load from a source into a sink until the source is done or the run is stopped; the exit code.

    Args:
        settings: the settings of the process.
        make_source: makes the source; called once.
        make_sink: makes the sink; called once.
        reports: whether the run sends telemetry and obeys commands.
        display: shows the progress; log lines do if it is left out.
    """
    mailbox = Mailbox()
    display = display or ProgressLog(log, "status")
    with signals_to(mailbox):
        try:
            context = RunContext(settings, make_source(), make_sink(), mailbox, reports=reports, display=display)
        except LoaderError as error:
            events.error("ended", f"{error}", status="error")
            return error.exit_code
        mailbox.on_put = context.sink.wake
        try:
            reason = _start(context) or _load(context)
        except Exception as error:
            reason = reason_of(error)
        try:
            return Shutdown(context, reason).run()
        finally:
            context.monitor.close()


def _start(context: RunContext) -> StopReason | None:
    """Connect to everything, and check it; the reason to stop, if one comes first."""
    settings, sink, mailbox = context.settings, context.sink, context.mailbox

    def stopped() -> bool:
        context.monitor.turn()  # waiting for Kafka counts as turning
        return not mailbox.empty()

    startup = Startup(Deadline(settings.startup_timeout), settings.startup_grace, stopped)
    with contextlib.suppress(LoaderError):
        context.monitor.open()  # probes are answered while the run waits for Kafka
    if context.telemetry:
        context.telemetry.open(startup)
    retry_until_ready(context.monitor.open, startup, threading.Event().wait)  # by now an event can report why it fails
    sink.open(startup)
    if context.control:
        context.control.open(startup)
    if stopped():
        return mailbox.get()
    if reason := _in_background(context, context.source.check):
        return reason
    of = "" if settings.many else f" of {settings.symbol}"  # the pairs are in the log already
    events.info("started", f"Writing trades{of} to {sink}")
    context.lanes.start(context.lanes.all)
    return _read_commands(context, context.control) if context.control else None


def _read_commands(context: RunContext, control: Control) -> StopReason | None:
    """Start reading commands; a stop that was sent before this start counts, so wait for the end of their topic."""
    settings = context.settings
    control.start(lambda: context.mailbox.put(StopReason.by_command()), context.on_death)
    while not control.caught_up.wait(TURN):
        if not context.mailbox.empty():
            return context.mailbox.get()
        context.sink.poll(0)
        context.tick()
        if control.silent_for > settings.startup_timeout:
            raise TopicAdmin(consumer_properties(settings), settings.queue_control_topic).read_timeout()
    # A stop command that was read on the way comes before loading.
    return None if context.mailbox.empty() else context.mailbox.get()


def _in_background(context: RunContext, step: Callable[[], None]) -> StopReason | None:
    """Run a step that waits for others in a thread; the reason to stop, if one comes first: the step is abandoned."""
    preparing = Task("prepare", step)
    preparing.start()
    while not preparing.join(TURN) and context.mailbox.empty():
        context.sink.poll(0)
        context.tick()
    if not context.mailbox.empty():
        return context.mailbox.get()
    preparing.future.result()
    return None


def _load(context: RunContext) -> StopReason:
    """Load until there is a reason to stop."""
    settings, source = context.settings, context.source
    bound = Deadline(settings.duration) if settings.duration else None
    context.monitor.enter("preparing")
    if reason := _in_background(context, lambda: source.prepare(context.ingest, context.lanes)):
        return reason
    source.start(context.ingest, context.on_death)
    context.monitor.enter("loading")
    complete: StopReason | None = None
    while True:
        turn = TURN if complete else context.turn
        context.sink.poll(min(turn, bound.remaining) if bound and not complete else turn)
        context.tick()
        if bound and bound.passed:
            complete = complete or StopReason.complete(f"The requested duration of {settings.duration:g} s has passed")
        with contextlib.suppress(Empty):
            reason = context.mailbox.get_nowait()
            if reason.status != "finished":
                return reason
            complete = reason
        if source.done:
            complete = complete or StopReason.complete("All requested trades are loaded")
        if complete:
            # No one is waiting for the end, so the tail has all the time that the limits of repair and of Kafka allow.
            context.monitor.enter("stopping")
            context.sink.drain()
            source.close()
            if source.done and context.all_delivered:
                return complete
