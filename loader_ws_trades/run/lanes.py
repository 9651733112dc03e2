"""The pairs of a run: how each of them begins, reports and ends, as if it had a loader of its own."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.config.symbols import filled, is_pattern
from loader_ws_trades.errors import ConfigurationError, LoaderError, RunError
from loader_ws_trades.kafka.telemetry import Telemetry
from loader_ws_trades.lifecycle import Deadline, Startup, StopReason
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.id_ranges import ranges
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import Sink, Source, Undelivered
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.missing import listed
from loader_ws_trades.run.reporting import GAP_LINES, Reporter, log

events = Events(log)


class Lanes:
    """Makes the lanes of a run and sends their events. `add` and `end` may be called in any thread.

    Args:
        settings: those of the process.
        source: notified of resets.
        sink: where the trades go.
        ingest: where they come from.
        telemetry: sends the events, if the run does.
        make: makes the lane of a pair, which reports to the function given.
        stop: ends the run.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        source: Source,
        sink: Sink,
        ingest: Ingest,
        telemetry: Telemetry | None,
        make: Callable[[Settings, Reporter], Lane],
        stop: Callable[[StopReason], None],
    ) -> None:
        self._settings = settings
        self._source = source
        self._sink = sink
        self._ingest = ingest
        self._telemetry = telemetry
        self._make = make
        self._stop = stop
        self._lines = Throttle(log, *GAP_LINES)
        self._reporters: dict[Lane, Reporter] = {}
        self._has_begun = False
        self._started: SimpleQueue[list[Lane]] = SimpleQueue()
        self._ending: SimpleQueue[dict[Lane, StopReason]] = SimpleQueue()
        self._ended: dict[Lane, StopReason] = {}  # whose last event is still to be sent
        self._due: list[tuple[float, int, Lane]] = []  # a heap: when the next event is due
        self._order = count()
        self._failure: StopReason | None = None  # the most serious one of the pairs that have ended
        self.all: list[Lane] = []
        """All that there have been."""
        if not settings.many:
            self._ingest.add(self._new(settings))

    @property
    def pairs(self) -> str:
        """What is loaded, for messages."""
        return self._settings.symbol or ",".join(self._settings.symbols or ())

    def _new(self, settings: Settings) -> Lane:
        reporter = Reporter(settings, self._source, self._lines)
        lane = self._make(settings, reporter)
        self._reporters[lane] = reporter
        self.all.append(lane)
        return lane

    def add(self, symbols: Sequence[str]) -> list[Lane]:
        """As `LaneKeeper.add`."""
        lanes, refused = [], dict[Lane, LoaderError]()
        for symbol in symbols:
            try:
                lanes.append(self._new(self._settings.for_symbol(symbol)))
            except ValueError as error:  # noqa: PERF203 - once a pair
                producer = filled(self._settings.telemetry_producer_id, symbol, is_topic=False)
                without_topic = replace(self._settings, symbol=symbol, telemetry_producer_id=producer)
                refused[self._new(without_topic)] = ConfigurationError(f"{error}")
        settings, joins = self._settings, self._has_begun
        self._has_begun = True
        # Pairs that join a run wait for nobody.
        startup = Startup(Deadline(0 if joins else settings.startup_timeout), 0 if joins else settings.startup_grace)
        try:
            refused |= self._sink.admit(lanes, startup)
        except RunError as error:
            if not joins:
                raise
            # They will not be listed as new again.
            events.warn("topics_unchecked", f"Loading new pairs without looking up their topics: {error}")
        admitted = [lane for lane in lanes if lane not in refused]
        for lane in admitted:
            self._ingest.add(lane)
        self._started.put(admitted)
        for lane, why in refused.items():
            lane.ended = True
            events.error("pair_ended", f"Cannot load {lane.symbol}: {why}", pair=lane.symbol)
        # All at once: the run may end with the last of them.
        self._ending.put({lane: StopReason.failed(str(why), why.exit_code) for lane, why in refused.items()})
        return admitted

    def end(self, lane: Lane, status: str, message: str) -> None:
        """As `LaneKeeper.end`."""
        self._ingest.remove(lane)
        lane.give_up(message)
        lane.end("the pair")
        if status == "error":
            events.error("pair_ended", f"Ending {lane.symbol}: {message}", pair=lane.symbol)
        self._ending.put({lane: StopReason.failed(message) if status == "error" else StopReason.complete(message)})

    # -- in the main thread

    def start(self, lanes: Iterable[Lane]) -> None:
        """Send the first events of pairs; the next ones are spread over the interval."""
        lanes, now = list(lanes), time.monotonic()
        for place, lane in enumerate(lanes, 1):
            text = f"Started loading trades of {lane.symbol} into {lane.settings.kafka_topic}"
            self._send(lane, "started", text)
            self._expect(lane, now + self._settings.telemetry_interval * place / len(lanes))

    def _send(self, lane: Lane, status: str, message: str, *, finished: bool = False) -> None:
        if self._telemetry and self._telemetry.is_open:
            self._telemetry.send(status, message, lane.delivered, lane.settings, finished=finished)

    def _expect(self, lane: Lane, moment: float) -> None:
        heappush(self._due, (moment, next(self._order), lane))

    @property
    def due_in(self) -> float:
        """Seconds until the next event of a pair is due."""
        return self._due[0][0] - time.monotonic() if self._due else math.inf

    def tick(self, trouble: str | None) -> None:
        """Send what is due; `trouble` is what concerns all pairs."""
        while not self._started.empty():
            self.start(self._started.get())
        while not self._ending.empty():
            self._ended |= self._ending.get()
        for lane in [lane for lane in self._ended if lane.all_delivered]:
            self._send_last(lane, self._ended.pop(lane), trouble)
            self._stop_without_pairs()
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            moment, _, lane = heappop(self._due)
            if lane.ended:
                continue
            interval = self._settings.telemetry_interval
            self._expect(lane, max(moment, now - interval) + interval)  # without adding up how late turns are
            if self._telemetry and not self._telemetry.congested:
                self._send(lane, "loading", self._reporters[lane].message(lane, trouble))

    def _send_last(self, lane: Lane, reason: StopReason, trouble: str | None) -> str:
        message = f"{reason.message}; {self._reporters[lane].message(lane, trouble, reason.message)}"
        self._send(lane, reason.status, message, finished=True)
        if reason.status == "error" and (self._failure is None or reason.exit_code > self._failure.exit_code):
            self._failure = reason
        return message

    def _stop_without_pairs(self) -> None:
        """End the run if no pair is left, and none may join; if one has failed, with the most serious failure."""
        if self._ingest.lanes or self._ended:
            return
        if self._failure:
            self._stop(self._failure)
        elif not any(map(is_pattern, self._settings.symbols or ())):
            self._stop(StopReason.complete("All pairs have ended"))

    def finish(
        self, reason: StopReason, undelivered: Iterable[Undelivered], in_flight: int, trouble: str | None
    ) -> tuple[StopReason, str]:
        """Send the last event of each pair, as the run ends for `reason`; how the run itself ends, and its last words.

        Args:
            reason: why.
            undelivered: trades that were received, but could not be delivered.
            in_flight: how many others may be on the topic or not.
            trouble: what concerns all pairs.
        """
        ids = defaultdict[str, list[int]](list)
        for symbol, trade_id in undelivered:
            ids[symbol].append(trade_id)
        while not self._ending.empty():
            self._ended |= self._ending.get()
        message = ""
        for lane in [*self._ingest.lanes.values(), *self._ended]:
            left = in_flight if not self._settings.many else max(0, lane.accepted - lane.delivered)
            own = _with_undelivered(self._ended.get(lane, reason), ids[lane.symbol], left)
            message = self._send_last(lane, own, trouble)
            if self._settings.many and ids[lane.symbol]:
                text = listed(ranges(ids[lane.symbol]))
                events.error("missing", f"Not delivered: trade ids of {lane.symbol} {text}", pair=lane.symbol, ids=text)
            elif not self._settings.many:
                return own, message
        if number := sum(map(len, ids.values())) or in_flight:
            reason = _failed(reason, f"{number} trades, listed in the events of their pairs")
        message = f"{reason.message}; loaded {len(self.all)} pairs"
        if not self.all and self._telemetry and self._telemetry.is_open:
            # No pair is known yet, so the event is about what was to be loaded.
            settings = self._settings
            unknown = replace(settings, symbol=self.pairs, telemetry_producer_id=settings.client_id)
            self._telemetry.send(reason.status, reason.message, 0, unknown, finished=True)
        return reason, message

    def log_remaining(self) -> None:
        """Log the missing ids that were not logged, at the end of the run."""
        for reporter in self._reporters.values():
            reporter.log_remaining()


def _with_undelivered(reason: StopReason, ids: list[int], in_flight: int) -> StopReason:
    """The reason, which is an error if something was not delivered."""
    if not ids and not in_flight:
        return reason
    return _failed(reason, f"trade ids {listed(ranges(ids))}" if ids else f"{in_flight} trades")


def _failed(reason: StopReason, undelivered: str) -> StopReason:
    exit_code = reason.exit_code if reason.status == "error" else 1
    return StopReason.failed(f"{reason.message}; not delivered: {undelivered}", exit_code)
