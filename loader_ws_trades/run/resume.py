"""Finds where a run resumes: after the newest trade on the topic, or as close to it as can be determined."""

from __future__ import annotations

import logging
import threading
from contextlib import closing

from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import RunError, UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint, Search
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.kafka.properties import consumer_credentials
from loader_ws_trades.lifecycle import Backoff, Deadline
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.text import format_time

events = Events(logging.getLogger(__name__))

_LOOK_AGAIN = 1.0  # seconds between two attempts to read the topic, and before a hidden end is reported
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay after a failed REST request


class Resume:
    """The starting position of `settings.symbol`; `position` may wait long, the rest can be read meanwhile.

    Args:
        settings: the topic, and how long to wait for it and for REST.
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
        """Why the position cannot be determined yet, if so."""
        self.unchecked: str | None = None
        """Which trades before the position may be missing on the topic, if any."""

    def position(self) -> Position | None:
        """The last trade that is not needed again; None if the run starts at the first live one, or is closed.

        Raises:
            RunError: if the topic cannot be read for `KAFKA_OUTAGE_LIMIT`.
        """
        found = self._search() if self.possible else None
        if found is None or self._closed.is_set():
            return None
        position = self._first_since(found) if found.doubt else found.last
        self.waits = None
        if position is not None:
            events.info("resume", f"Resuming after trade id {position.trade_id}", trade_id=position.trade_id)
        elif not found.doubt:
            text = f"No trade of {self._settings.symbol} on the topic, starting at the first live one"
            events.info("resume_new", text)
        return position

    def _search(self) -> Checkpoint | None:
        settings = self._settings
        patience = Deadline(settings.kafka_outage_limit)
        with closing(Search(settings, self._closed.wait)) as search:
            while not self._closed.is_set():
                try:
                    return search.run(_LOOK_AGAIN)
                except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                    if error.lasting:
                        self.possible = False
                        advice = f"grant READ, check {consumer_credentials(settings)}, or set {named('resume')} to off"
                        text = f"Cannot read the checkpoint, starting at the first live trade: {error}; {advice}"
                        events.warn("resume_refused", text)
                        return None
                    self._wait(error, patience)
        return None

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

    def _first_since(self, found: Checkpoint) -> Position | None:
        """The trade before the first one since the time that was searched; reports what is unchecked."""
        last = None if found.since is None else self._last_before(found.since)
        position = None if last is None or found.since is None else Position(last, found.since)
        which = "the first live one"
        if position is not None:
            which = f"id {position.trade_id + 1} (time {format_time(position.timestamp)})"
        self.unchecked = f"trades before {which} could not be checked; run backfill"
        events.warn("resume_unchecked", f"{found.doubt}: {self.unchecked}")
        return position

    def _last_before(self, moment: int) -> int | None:
        """The id before the first trade at or after `moment`; None if REST does not return it."""
        symbol = self._settings.symbol
        patience, backoff = Deadline(self._settings.repair_outage_limit), Backoff(_FIRST_DELAY, _DELAY_CAP)
        while True:
            try:
                first = self._rest.first_id_at(symbol, moment)
                return self._rest.newest_id(symbol) if first is None else first - 1
            except UnavailableError as error:  # noqa: PERF203 - it waits for the network
                self.waits = f"waiting for REST to find the position: {error}"
                if error.lasting or patience.passed or self._closed.is_set():
                    events.warn("resume_unchecked", f"REST did not return the position to resume from: {error}")
                    return None
                self._closed.wait(min(max(backoff.next(), error.retry_after), patience.remaining + 0.01))
