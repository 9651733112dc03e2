"""Finds a connection that brings no trades while the others of the set do."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from loader_ws_trades.config.settings import Settings
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.stream_check import LAG, LINES, LONGEST_PAUSE, Slices
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

_MISSED = 3  # ids; a connection may lose a trade, after which a quiet pair has none for hours


class _Last(NamedTuple):
    """What a connection brought last of a pair."""

    trade_id: int
    ahead: int
    """The highest id of all connections then."""
    since: float
    """Since when the others are `_MISSED` ids further; infinite while they are not."""


class ConnectionCheck:
    """The check of several connections against each other, in the thread that repairs gaps.

    Without it a silent one would be noticed only when the others fail, which it is there for. It is replaced once it
    has brought nothing of a pair for `STREAM_CHECK_INTERVAL` and 15 s while others did; if replacements are silent too,
    the pauses between them grow.

    Args:
        settings: the interval.
        lanes: the pairs.
        replace: replaces the connection with that number; whether it could.
    """

    def __init__(
        self, settings: Settings, *, lanes: Callable[[], Sequence[Lane]], replace: Callable[[int], bool]
    ) -> None:
        self._interval = settings.stream_check_interval
        self._slices = Slices(lanes)
        self._replace = replace
        self._lines = Throttle(log, *LINES)
        self._last: dict[Lane, dict[int, _Last]] = {}
        self._pause, self._replace_at = self._interval, -math.inf

    def forget(self, lane: Lane) -> None:
        """A pair has ended."""
        self._last.pop(lane, None)

    def turn(self) -> None:
        """Replace a connection if it is due; called regularly."""
        now = time.monotonic()
        for lane in self._slices.turn():
            self._look(lane, now)

    def _look(self, lane: Lane, now: float) -> None:
        before = self._last.get(lane, {})
        if lane.full:  # no connection is read then
            before.clear()
            return
        newest = lane.standing().newest_streamed
        ahead = max(newest.values(), default=-1)
        lasts = self._last[lane] = {
            connection: self._compare(before.get(connection), trade_id, ahead, now)
            for connection, trade_id in newest.items()
        }
        silent = [number for number, last in lasts.items() if now - last.since >= self._interval + LAG]
        if not any(last.since < math.inf for last in lasts.values()) and now >= self._replace_at + self._pause:
            self._pause = self._interval
        if silent and now >= self._replace_at and self._replace(silent[0]):
            self._replace_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            lasted = format_duration(now - lasts[silent[0]].since)
            text = f"One of the connections brought no trades{lane.of} for {lasted}; replacing it"
            self._lines.warn("connection_silent", text)

    @staticmethod
    def _compare(last: _Last | None, trade_id: int, ahead: int, now: float) -> _Last:
        if last is None or trade_id != last.trade_id:
            return _Last(trade_id, ahead, math.inf)
        if ahead - last.ahead >= _MISSED:
            return last._replace(since=min(last.since, now))
        return last
