"""Tells a silent subscription from a quiet pair by asking REST for its newest trade id if the stream is silent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

LAG = 15.0  # seconds in which the stream may still bring a trade that REST has; the longest lag measured is 8.3 s
LONGEST_PAUSE = 3600.0  # seconds between replacements of the connection
LINES = (10, 3600.0)  # log lines of each kind, per seconds


class StreamCheck:
    """The check of one pair's stream, in the thread that repairs gaps.

    States:
    - *live*: the stream brought a trade within `STREAM_CHECK_INTERVAL`, or REST has no newer one.
    - *suspected*: REST has a newer trade, and the stream has `LAG` seconds to bring one.
    - *silent*: it did not. Repair fetches what REST has, and the connection is replaced. Meanwhile REST is asked every
      interval, and the pauses between replacements grow. The next trade of the stream ends this state.

    This costs a request weight of 2 per interval, and nothing while trades arrive. No id is given up because of what
    REST reports here.

    Args:
        settings: the limits.
        newest_id: REST's newest trade id, -1 if it has none; raises `UnavailableError`.
        lane: has the trades of the stream.
        is_open: whether any connection is open.
        replace: replaces a connection; whether it could.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        newest_id: Callable[[], int],
        lane: Lane,
        is_open: Callable[[], bool],
        replace: Callable[[], bool],
    ) -> None:
        self._interval = settings.stream_check_interval
        self._limit = settings.resume_limit
        self._newest_id = newest_id
        self._lane = lane
        self._is_open = is_open
        self._replace = replace
        self._lines = Throttle(log, *LINES)
        self._streamed: dict[int, int] = {}  # what each connection brought last
        self._spoke_at = time.monotonic()
        self._ask_at = self._spoke_at + self._interval
        self._baseline = -1  # what REST reported before the first trade
        self._suspected: tuple[int, float] | None = None  # the id that REST reported, and until when it may arrive
        self._pause, self._replace_at = self._interval, 0.0
        self.silent = False
        """Whether the stream is silent, so that trades come from REST."""

    def turn(self) -> None:
        """Do what is due; called regularly."""
        now, streamed = time.monotonic(), self._lane.standing().newest_streamed
        # While the sink is full the stream is not read, so it cannot speak.
        if not self._is_open() or self._lane.full:
            self._suspected, self._ask_at = None, now + self._interval
        elif any(trade_id not in (-1, self._streamed.get(number, -1)) for number, trade_id in streamed.items()):
            self._speaks(now, streamed)
        elif self._suspected is not None:
            newest, until = self._suspected
            if now >= until:
                self._suspected = None
                self._is_silent(now, newest)
        elif now >= self._ask_at:
            self._ask_at = now + self._interval
            self._ask(now)

    def _speaks(self, now: float, streamed: dict[int, int]) -> None:
        if self.silent:
            lasted = format_duration(now - self._spoke_at)
            self._lines.info("stream_speaks", f"Trades from the stream again after {lasted}")
        self.silent, self._suspected = False, None
        self._streamed, self._spoke_at, self._ask_at = streamed, now, now + self._interval
        self._pause = self._interval

    def _ask(self, now: float) -> None:
        try:
            newest = self._newest_id()
        except UnavailableError as error:
            # If the location is not served, for instance, gap repair logs that when it matters.
            log.debug("The stream cannot be checked: %s", error)
            return
        seen = max(self._lane.standing().newest_id, self._baseline)
        if seen < 0:
            self._baseline = newest
        elif newest - seen > self._limit:
            self._lines.warn(
                "stream_check_beyond_limit",
                f"No trades from the stream, and REST's newest trade id {newest} is {newest - seen} above the last "
                f"one, more than RESUME_LIMIT ({self._limit}): check {named('binance_rest_url')}",
                newest=newest,
            )
        elif newest > seen and self.silent:
            self._is_silent(now, newest)
        elif newest > seen:
            self._suspected = newest, now + LAG

    def _is_silent(self, now: float, newest: int) -> None:
        if self._baseline >= 0:
            self._lane.start_after(self._baseline)
            self._baseline = -1
        self._lane.expect(newest, hint=True)
        # A replacement that is still taking over is not replaced yet; the pauses grow with those that are.
        replaced = now >= self._replace_at and self._replace()
        if replaced:
            self._replace_at = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if replaced or not self.silent:
            self._lines.warn(
                "stream_silent",
                f"No trade from the stream for {format_duration(now - self._spoke_at)}, but REST has newer ones up to "
                f"id {newest}; fetching them{' and replacing the connection' if replaced else ''}",
                newest=newest,
            )
        self.silent = True
