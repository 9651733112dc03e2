"""Notices that Kafka acknowledges nothing although records wait for it, and ends the run when that lasts too long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import RunError
from loader_ws_trades.logs import Events
from loader_ws_trades.text import format_duration

events = Events(logging.getLogger(__name__))

_STALL = 0.5  # seconds without an acknowledgement that are more than a slow broker
_OUTAGE = 5.0  # seconds without an acknowledgement after which an outage is logged


class DeliveryOutage:
    """Used by the main thread only.

    Args:
        limit: seconds without an acknowledgement after which the run ends.
        reason: says why there is none.
        on_stall: called early in an outage, and again each time it has lasted twice as long.
    """

    def __init__(self, limit: float, reason: Callable[[], str], on_stall: Callable[[], None]) -> None:
        self._limit = limit
        self._reason = reason
        self._on_stall = on_stall
        self._next_stall = _STALL  # seconds
        self.last_progress = time.monotonic()
        """When something was acknowledged last, or nothing was to be (monotonic)."""
        self._logged = False
        self.count = 0
        """How many outages were logged."""

    def watch(self, in_flight: int, *, progress: bool) -> None:
        """Log the beginning and the end of an outage.

        Args:
            in_flight: records that are queued.
            progress: whether something was acknowledged, or nothing is to be.

        Raises:
            RunError: if it lasts longer than the limit.
        """
        now = time.monotonic()
        seconds, limit = now - self.last_progress, self._limit
        if progress:
            if self._logged:
                text = f"Kafka acknowledges records again after {format_duration(seconds)}"
                events.info("kafka_back", f"{text}; {in_flight} records queued", seconds=round(seconds, 3))
            self.last_progress, self._logged, self._next_stall = now, False, _STALL
            return
        if seconds > self._next_stall:
            self._next_stall = 2 * seconds
            self._on_stall()
        reason = self._reason()
        if not self._logged and seconds > _OUTAGE:
            self._logged = True
            self.count += 1
            events.warn(
                "kafka_outage",
                f"No delivery acknowledged for {seconds:.0f} s ({reason}); {in_flight} records queued; the run "
                f"ends after {limit:g} s, set by {named('kafka_outage_limit')}",
                in_flight=in_flight,
            )
        if seconds > limit:
            raise RunError(
                f"No delivery acknowledged for {limit:g} s ({reason}); check the brokers, then run the loader again"
            )
