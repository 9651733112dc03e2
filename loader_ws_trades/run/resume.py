"""Finds where a run resumes: after the newest trade on the topic, or as close to it as can be determined."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from loader_ws_trades.binance.rest import STATISTICS, TICKERS, Rest, Ticker
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint, Search
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.kafka.properties import consumer_credentials
from loader_ws_trades.kafka.reader import TopicScanner
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.text import format_time

log = logging.getLogger(__name__)
events = Events(log)

_LINES = (20, 600.0)  # log lines of each kind, per seconds: there may be many pairs

_LOOK_AGAIN = 1.0  # seconds between two attempts to read the topic, and before a hidden end is reported
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed REST request
_SETTLING = 0.5  # seconds that `settle` may take, as gaps are repaired in the same thread

NO_TRADE = -1  # in place of an id, as in the exchange's answers


class Start(NamedTuple):
    """Where a pair starts whose newest trade was not found on the topic."""

    last: int | None = None
    """The id before its first trade; None for the first live one; `NO_TRADE` if it was not traded since, nor today."""
    newest: int = NO_TRADE
    """REST's newest id, where known."""


class Resume:
    """The starting positions of pairs; `positions` may wait long, the rest can be read meanwhile.

    A pair whose newest trade is not found, although it may be on the topic, resumes with its first trade since the time
    that was searched. REST knows it. That holds up a single pair; of several, `settle` asks for a few at a time while
    the others are loaded.

    Args:
        settings: how long to wait for the topics and for REST.
        rest: finds the first trade at a time.
        closed: ends every wait.
    """

    def __init__(self, settings: Settings, rest: Rest, closed: threading.Event) -> None:
        self._settings = settings
        self._rest = rest
        self._closed = closed
        self.possible = settings.resume == "on"
        """Whether a later run resumes after this one."""
        self.waits: str | None = None
        """Why the positions cannot be determined yet, if so."""
        self.unsettled: dict[Lane, Checkpoint] = {}
        """The pairs that REST must be asked for."""
        self._newest: Mapping[str, Ticker] = {}
        self._ask_at = 0.0
        self._patience: Deadline | None = None  # with REST, since it failed
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._lines = Throttle(log, *_LINES)

    def positions(self, lanes: Sequence[Lane]) -> dict[Lane, Position]:
        """The last trade of each pair that is not needed again; the others start live, or are `unsettled`.

        Raises:
            RunError: if a topic cannot be read for `KAFKA_OUTAGE_LIMIT`.
        """
        found: dict[Lane, Position] = {}
        by_topic: dict[str, list[Lane]] = {}
        for lane in lanes if self.possible else ():
            by_topic.setdefault(lane.settings.kafka_topic, []).append(lane)
        if not by_topic:
            return found
        with closing(TopicScanner(lanes[0].settings)) as scanner:
            for topic, its_lanes in by_topic.items():
                scanner.turn_to(topic)
                checkpoints = self._search(its_lanes, scanner)
                for lane in its_lanes if checkpoints else ():
                    self._note(lane, checkpoints[lane.symbol], found)
        if not self._settings.many:
            found |= self._settle_now()
        self.waits = None
        if len(lanes) > 1:
            text = f"Resuming {len(found)} of {len(lanes)} pairs after their newest trades on the topic"
            more = f", and {len(self.unsettled)} once REST has reported where" if self.unsettled else ""
            events.info("resume", text + more, pairs=len(lanes), resumed=len(found))
        return found

    def _note(self, lane: Lane, checkpoint: Checkpoint, found: dict[Lane, Position]) -> None:
        last = checkpoint.last
        if last:
            found[lane] = last
        elif checkpoint.since is not None:
            self.unsettled[lane] = checkpoint
        elif checkpoint.doubt:
            self._report_unchecked(lane, checkpoint, None)
        if lane.of:
            return  # one line for all
        if last:
            events.info("resume", f"Resuming after trade id {last.trade_id}", trade_id=last.trade_id)
        elif not checkpoint.doubt:
            events.info("resume_new", f"No trade of {lane.symbol} on the topic, starting at the first live one")

    def _settle_now(self) -> dict[Lane, Position]:
        found: dict[Lane, Position] = {}
        while self.unsettled and not self._closed.is_set():
            self._closed.wait(max(0.0, self._ask_at - time.monotonic()))
            found |= {lane: Position(start.last) for lane, start in self.settle().items() if start.last is not None}
        return found

    def settle(self) -> dict[Lane, Start]:
        """Ask REST where some of the unsettled pairs start, if it is time to."""
        settled: dict[Lane, Start] = {}
        turn = Deadline(_SETTLING)
        while self.unsettled and time.monotonic() >= self._ask_at and not turn.passed:
            lane, checkpoint = next(iter(self.unsettled.items()))
            try:
                start = settled[lane] = self._find(lane, checkpoint.since or 0)
            except UnavailableError as error:
                settled |= self._wait_or_give_up(lane, error)
            else:
                self._patience = None
                self._backoff.reset()
                self._report_unchecked(lane, checkpoint, start.last)
                del self.unsettled[lane]
        return settled

    def _find(self, lane: Lane, since: int) -> Start:
        newest = self._newest_id(lane)  # before asking whether there are trades since, as one may come
        if newest == NO_TRADE and since / 1000 > time.time() - STATISTICS:
            return Start(NO_TRADE)
        first = self._rest.first_id_at(lane.symbol, since)
        return Start(newest if first is None else first - 1, newest)

    def _newest_id(self, lane: Lane) -> int:
        """Of several pairs, the statistics of 24 hours name the newest ids of some at once."""
        if not lane.of:
            return self._rest.newest_id(lane.symbol)
        if lane.symbol not in self._newest:
            symbols = [each.symbol for each in islice(self.unsettled, TICKERS)]
            self._newest = dict.fromkeys(symbols, Ticker(NO_TRADE, NO_TRADE)) | self._rest.tickers(symbols)
        return self._newest[lane.symbol].last_id

    def _wait_or_give_up(self, lane: Lane, error: UnavailableError) -> dict[Lane, Start]:
        """Wait before REST is asked again, for another pair first; or let this pair start live, or all of them."""
        self._patience = self._patience or Deadline(self._settings.repair_outage_limit)
        if not (error.lasting or self._patience.passed):
            self.unsettled[lane] = self.unsettled.pop(lane)
            delay = max(self._backoff.next(), error.retry_after)
            self._ask_at = time.monotonic() + min(delay, self._patience.remaining + 0.01)
            if self._settings.many:
                text = f"Cannot look up yet where {len(self.unsettled)} pairs resume: {error}; retrying"
                self._lines.warn("resume_unknown", text)
            else:
                self.waits = f"waiting for REST to report where to resume: {error}"
            return {}
        self._lines.warn("resume_unchecked", f"REST did not return the position to resume from: {error}")
        given_up = [lane] if error.lasting else list(self.unsettled)
        for each in given_up:
            self._report_unchecked(each, self.unsettled.pop(each), None)
        return dict.fromkeys(given_up, Start())

    def _report_unchecked(self, lane: Lane, checkpoint: Checkpoint, last: int | None) -> None:
        which = "the first live one"
        if last is not None and last != NO_TRADE and checkpoint.since is not None:
            which = f"id {last + 1} (time {format_time(checkpoint.since)})"
        lane.unchecked = f"trades before {which} could not be checked; run backfill"
        self._lines.warn("resume_unchecked", f"{checkpoint.doubt}: {lane.unchecked}")

    def _search(self, lanes: Sequence[Lane], scanner: TopicScanner) -> dict[str, Checkpoint]:
        settings = self._settings
        patience = Deadline(settings.kafka_outage_limit)
        search = Search(lanes[0].settings, [lane.symbol for lane in lanes], scanner, pause=self._closed.wait)
        while not self._closed.is_set():
            try:
                return search.run(_LOOK_AGAIN)
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                if error.lasting:
                    self.possible = False
                    advice = f"grant READ, check {consumer_credentials(settings)}, or set {named('resume')} to off"
                    text = f"Cannot read the checkpoint, starting at the first live trade: {error}; {advice}"
                    events.warn("resume_refused", text)
                    return {}
                self._wait(error, patience)
        return {}

    def _wait(self, error: UnavailableError, patience: Deadline) -> None:
        # Starting without the checkpoint would leave a gap that is never reported.
        if patience.passed:
            advice = f"raise {named('kafka_outage_limit')}" if isinstance(error, HiddenError) else "check the brokers"
            raise RunError(f"Cannot read the checkpoint: {error}; {advice}") from error
        if self.waits is None:
            left = f"retrying for {patience.remaining:.0f} s"
            events.warn("resume_waiting", f"Cannot read the checkpoint yet: {error} ({left})")
        self.waits = f"waiting to read the checkpoint: {error}"
        if not isinstance(error, HiddenError):
            self._closed.wait(_LOOK_AGAIN)
