"""One run, from the first contact to the exit code: puts source, sink and the rest together, and decides why it ends.

Signal handlers, the control thread and a dying thread only put a `StopReason` into the mailbox; the main thread
alone acts on it. It also serves the delivery reports, so it never waits for anything that waits for them.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType

from loader_ws_trades.config import Settings
from loader_ws_trades.control import Control
from loader_ws_trades.errors import LoaderError, RunError, UnavailableError
from loader_ws_trades.feed import Feed
from loader_ws_trades.ingest import Ingest
from loader_ws_trades.kafka import Startup
from loader_ws_trades.lifecycle import Deadline, StopReason
from loader_ws_trades.logs import Throttle
from loader_ws_trades.ports import Sink, Source
from loader_ws_trades.publisher import Publisher
from loader_ws_trades.rest import Rest
from loader_ws_trades.sequence import Gap, Reset
from loader_ws_trades.telemetry import Telemetry
from loader_ws_trades.trade import FrameDecoder, Refusal

log = logging.getLogger(__name__)

_TURN = 0.1  # seconds that one turn of the main loop may wait for delivery reports
_LAST_EVENT = 3.0  # seconds of the shutdown's time that are kept for the last event
_HURRIED = 2.0  # seconds that are left after a second signal
_FEED_END = 2.0  # seconds after which a feed that is still connecting is not waited for
_RANGES = 10  # ranges of ids that one message names


def run_live(settings: Settings) -> int:
    """Load the live stream of `settings.symbol` into Kafka until stopped; the exit code."""
    return run(settings, lambda: Feed(settings), lambda: Publisher(settings), prepare=lambda: _check_symbol(settings))


def run(
    settings: Settings,
    make_source: Callable[[], Source],
    make_sink: Callable[[], Sink],
    *,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Load from a source into a sink until the source is done or the run is stopped; the exit code.

    Args:
        settings: the settings of the process.
        make_source: gives the source; called once.
        make_sink: gives the sink; called once.
        prepare: called before the run says `started`; what it raises ends the run.
    """
    mailbox: SimpleQueue[StopReason] = SimpleQueue()
    with _signals_to(mailbox):
        try:
            parts = _Run(settings, make_source(), make_sink(), prepare, mailbox)
        except LoaderError as error:
            log.error("%s", error)  # noqa: TRY400 - a user's fault is one sentence
            return error.exit_code
        return parts.run()


def _check_symbol(settings: Settings) -> None:
    rest = Rest(settings.binance_rest_url)
    try:
        status = rest.symbol_status(settings.symbol)
    except UnavailableError as error:
        log.warning("The symbol could not be checked, going on without: %s", error)
    else:
        if status != "TRADING":
            log.warning(
                "The exchange says that %s is in status %s: no trades come until it changes", settings.symbol, status
            )
    finally:
        rest.close()


@contextlib.contextmanager
def _signals_to(mailbox: SimpleQueue[StopReason]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        mailbox.put(StopReason.by_signal(number))

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    def __init__(
        self,
        settings: Settings,
        source: Source,
        sink: Sink,
        prepare: Callable[[], None],
        mailbox: SimpleQueue[StopReason],
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._prepare = prepare
        self._mailbox = mailbox
        self._telemetry = Telemetry(settings)
        self._control = Control(settings)
        self._refusals = Throttle(log, per_kind=1)
        self._missing: SimpleQueue[Gap] = SimpleQueue()
        self._ingest = Ingest(
            FrameDecoder(settings.symbol, combined=settings.combined_stream),
            sink.put,
            limit=settings.max_records,
            on_limit=lambda: mailbox.put(StopReason.complete(f"All {settings.max_records} records asked for are here")),
            on_refusal=self._on_refusal,
            on_event=self._on_event,
        )

    def run(self) -> int:
        """The run; its exit code."""
        try:
            reason = self._start() or self._stream()
        except Exception as error:
            reason = self._reason_of(error)
        return self._finish(reason)

    # -- what other threads call

    def _on_refusal(self, refusal: Refusal) -> None:
        self._refusals.warn(
            refusal.kind, f"Frames that are no trade of ours are dropped ({refusal.kind}): {refusal.detail}"
        )

    def _on_event(self, event: Gap | Reset) -> None:
        if isinstance(event, Reset):
            log.warning("The exchange began its trade ids anew: %d follows %d", event.first, event.last)
            return
        log.warning("Missing trade ids %s", event)
        self._missing.put(event)

    def _on_death(self, error: BaseException) -> None:
        self._mailbox.put(self._reason_of(error))

    @staticmethod
    def _reason_of(error: BaseException) -> StopReason:
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
        startup = Startup(
            Deadline(settings.startup_timeout), settings.startup_grace, stopped=lambda: not self._mailbox.empty()
        )
        self._telemetry.open(startup)
        self._sink.open(startup)
        self._control.open(startup)
        if startup.stopped():
            return self._mailbox.get()
        self._prepare()
        log.info("Loading trades of %s into the topic %s", settings.symbol, settings.kafka_topic)
        self._telemetry.send("started", f"Started loading trades of {settings.symbol} into {settings.kafka_topic}", 0)
        self._control.start(lambda: self._mailbox.put(StopReason.by_command()), self._on_death)
        while not self._control.caught_up.wait(_TURN):
            if not self._mailbox.empty():
                return self._mailbox.get()
            self._tick()
            if self._control.silent_for > settings.startup_timeout:
                raise RunError(
                    f"The topic {settings.queue_control_topic} could not be read to its end; check the brokers, then "
                    "run the loader again"
                )
        return None

    def _stream(self) -> StopReason:
        bound = Deadline(self._settings.duration) if self._settings.duration else None
        # A stop command that was read on the way to the end of its topic comes first.
        if not self._mailbox.empty():
            return self._mailbox.get()
        self._source.start(self._ingest.take, self._on_death)
        while True:
            self._sink.poll(_TURN)
            self._tick()
            with contextlib.suppress(Empty):
                return self._mailbox.get_nowait()
            if bound and bound.passed:
                return StopReason.complete(f"The {self._settings.duration:g} s asked for are over")

    def _tick(self) -> None:
        self._telemetry.poll()
        if self._telemetry.due:
            self._telemetry.send("loading", self._progress(), self._sink.delivered)

    def _progress(self) -> str:
        parts = [f"Loaded and published {self._sink.delivered} trade records", self._source.trouble()]
        missing = []
        with contextlib.suppress(Empty):
            while True:
                missing.append(self._missing.get_nowait())
        if missing:
            parts.append(f"missing trade ids {_listed(missing)}")
        return "; ".join(part for part in parts if part)

    def _finish(self, reason: StopReason) -> int:
        deadline = Deadline(self._settings.shutdown_timeout)
        if reason.status != "error":
            log.info("Stopping: %s", reason.message)
        self._source.close()
        self._control.close()
        undelivered = self._drain(deadline)
        if undelivered:
            message = f"{reason.message}; not delivered: trade ids {_listed(undelivered)}"
            reason = StopReason.failed(message, max(1, reason.exit_code if reason.status == "error" else 1))
        message = f"{reason.message}; {self._progress()}"
        if self._telemetry.is_open:
            self._telemetry.send(reason.status, message, self._sink.delivered, finished=True)
            self._telemetry.flush(deadline)
        self._control.join(deadline.remaining)
        self._source.join(deadline.remaining)
        level = logging.ERROR if reason.status == "error" else logging.INFO
        log.log(level, "%s: %s", reason.status.capitalize(), message, extra=self._counts())
        return reason.exit_code

    def _counts(self) -> dict[str, int]:
        """What happened to the trades, for the last log line."""
        return {
            "received": self._ingest.received,
            "delivered": self._sink.delivered,
            "duplicates": self._ingest.duplicates,
            "refused": self._ingest.refused.total(),
        }

    def _drain(self, deadline: Deadline) -> list[Gap]:
        """Deliver what was received, for as long as there is time; what could not be delivered."""
        tail = Deadline(max(0.0, deadline.remaining - _LAST_EVENT))
        feed_end = Deadline(_FEED_END)
        failed = False
        while not (failed or tail.passed):
            if self._source.join(0) or feed_end.passed:
                self._ingest.close()
                if self._ingest.idle and not self._sink.in_flight:
                    return []
            try:
                self._sink.poll(_TURN)
            except RunError as error:
                log.debug("The drain ends: %s", error)
                failed = True
            self._tick()
            with contextlib.suppress(Empty):
                again = self._mailbox.get_nowait()
                if again.exit_code > 128:
                    log.warning("%s again: no more than %g s for the tail", again.message, _HURRIED)
                    deadline.shorten(_HURRIED)
                    tail.shorten(_HURRIED / 2)
        waiting = self._ingest.abandon()
        return sorted(self._sink.give_up(Deadline(min(0.5, deadline.remaining))) + waiting)


def _listed(gaps: list[Gap]) -> str:
    more = len(gaps) - _RANGES
    return ", ".join(str(gap) for gap in gaps[:_RANGES]) + (f" and {more} more ranges" if more > 0 else "")
