"""Logs the progress of the repair of a gap."""

from __future__ import annotations

import logging
import time

from loader_ws_trades.logs import Events, Throttle
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.text import format_duration

events = Events(logging.getLogger(__name__))

_EVERY, _AT_MOST = 10.0, 300.0  # seconds between progress lines of a long repair, growing


class RepairProgress:
    """From the moment when trades of a pair are missing until none are."""

    def __init__(self, lane: Lane, lines: Throttle) -> None:
        self._lane = lane
        self._lines = lines
        self._every = _EVERY
        self.begun = False
        """Whether anything was requested."""
        self._done = 0
        self._began = self._logged = time.monotonic()
        self._logged_done = 0
        self._logged_behind = 0

    def begin(self, gap: Gap) -> None:
        """The first request is due."""
        if not self.begun:
            self.begun = True
            line = f"Repairing a gap{self._lane.of} from trade id {gap.first}: about {len(gap)} trades are missing"
            self._lines.info("gap", line, first=gap.first, missing=len(gap))
            self._logged_behind = self._lane.standing().behind

    def note(self, trades: int) -> None:
        """So many trades came out."""
        self._done += trades
        passed = time.monotonic() - self._logged
        if passed < self._every:
            return
        self._every = min(2 * self._every, _AT_MOST)
        behind = self._lane.standing().behind
        rate = (self._done - self._logged_done) / passed
        stream = rate + (behind - self._logged_behind) / passed
        if stream > rate:
            events.warn(
                "repair_behind",
                f"Repair{self._lane.of} is slower than the stream ({rate:.0f} and {stream:.0f} trades/s); the topic is "
                f"in order, {behind} trades behind: raise REST_WEIGHT_LIMIT (--rest-weight-limit), or wait",
                rate=round(rate),
                stream_rate=round(stream),
                behind=behind,
            )
        else:
            share = self._done / (self._done + behind)
            events.info(
                "repair_progress",
                f"Repaired {self._done} trades{self._lane.of}, {100 * share:.0f} % of what is missing, at "
                f"{rate:.0f}/s; about {format_duration(behind / (rate - stream) if rate > stream else 0.0)} left",
                rate=round(rate),
                done=round(share, 4),
                behind=behind,
            )
        self._logged, self._logged_done, self._logged_behind = time.monotonic(), self._done, behind

    def end(self) -> None:
        """Nothing is missing any more."""
        if self.begun:
            published = f"; {self._done} trades published" if self._done else ""
            seconds = time.monotonic() - self._began
            line = f"Gap{self._lane.of} closed after {format_duration(seconds)}{published}"
            self._lines.info("repaired", line, trades=self._done, seconds=round(seconds, 3))
