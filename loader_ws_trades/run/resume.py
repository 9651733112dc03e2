"""Finds where a run resumes: after the newest trade on the topic, or as close to it as can be determined."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import closing

from loader_ws_trades.binance.rest import Rest
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


class Resume:
    """The starting positions of pairs; `positions` may wait long, the rest can be read meanwhile.

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
        self._lines = Throttle(log, *_LINES)

    def positions(self, lanes: Sequence[Lane]) -> dict[Lane, Position]:
        """The last trade of each pair that is not needed again; pairs without one start at the first live one.

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
                    if not self._closed.is_set() and (position := self._position(lane, checkpoints[lane.symbol])):
                        found[lane] = position
        self.waits = None
        if len(lanes) > 1:
            text = f"Resuming {len(found)} of {len(lanes)} pairs after their newest trades on the topic"
            events.info("resume", text, pairs=len(lanes), resumed=len(found))
        return found

    def _position(self, lane: Lane, found: Checkpoint) -> Position | None:
        position = self._first_since(lane, found) if found.doubt else found.last
        if lane.of:
            return position  # one line for all
        if position is not None:
            events.info("resume", f"Resuming after trade id {position.trade_id}", trade_id=position.trade_id)
        elif not found.doubt:
            events.info("resume_new", f"No trade of {lane.symbol} on the topic, starting at the first live one")
        return position

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

    def _first_since(self, lane: Lane, found: Checkpoint) -> Position | None:
        """The trade before the first one since the time that was searched; reports what is unchecked."""
        last = None if found.since is None else self._last_before(lane.symbol, found.since)
        position = None if last is None or found.since is None else Position(last, found.since)
        which = "the first live one"
        if position is not None:
            which = f"id {position.trade_id + 1} (time {format_time(position.timestamp)})"
        lane.unchecked = f"trades before {which} could not be checked; run backfill"
        self._lines.warn("resume_unchecked", f"{found.doubt}: {lane.unchecked}")
        return position

    def _last_before(self, symbol: str, moment: int) -> int | None:
        """The id before the first trade at or after `moment`; None if REST does not return it."""
        patience, backoff = Deadline(self._settings.repair_outage_limit), Backoff(_FIRST_DELAY, _DELAY_CAP)
        while True:
            try:
                first = self._rest.first_id_at(symbol, moment)
                return self._rest.newest_id(symbol) if first is None else first - 1
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                self.waits = f"waiting for REST to find the position: {error}"
                if error.lasting or patience.passed or self._closed.is_set():
                    self._lines.warn("resume_unchecked", f"REST did not return the position to resume from: {error}")
                    return None
                self._closed.wait(min(max(backoff.next(), error.retry_after), patience.remaining + 0.01))
