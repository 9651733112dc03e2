"""Tells a silent subscription from a quiet pair: asks REST for its newest trade id when the stream brings no trade."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.interfaces import Intake
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

_LAG = 15.0  # seconds for which the stream may still bring a trade that REST has; the worst lag on record is 8.3 s
_LONGEST_PAUSE = 3600.0  # seconds between two replacements of the connection
_LINES = (10, 3600.0)  # log lines of a kind, and the seconds they are counted over


class StreamCheck:
    """The check of one pair's stream, in the thread that repairs gaps.

    States:
    - *live*: the stream brought a trade within `STREAM_CHECK_INTERVAL`, or REST has none that is newer.
    - *suspected*: REST named a newer trade, and the stream has `_LAG` seconds to bring one.
    - *silent*: it did not. What REST has is expected, so that repair fetches it, and the connection is replaced. While
      this lasts REST is asked every interval, and the pauses between replacements grow. The stream's next trade ends
      it.

    REST costs a weight of 2 an interval, and nothing while trades come. What it names is a hint: no id is given up for
    it.

    Args:
        settings: the limits.
        newest_id: REST's newest trade id, -1 if it has none; raises `UnavailableError`.
        ingest: what the stream has brought.
        is_open: whether there is a connection at all.
        replace: replaces a connection.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        newest_id: Callable[[], int],
        ingest: Intake,
        is_open: Callable[[], bool],
        replace: Callable[[], None],
    ) -> None:
        self._interval = settings.stream_check_interval
        self._limit = settings.resume_limit
        self._newest_id = newest_id
        self._ingest = ingest
        self._is_open = is_open
        self._replace = replace
        self._lines = Throttle(log, *_LINES)
        self._streamed = -1
        self._spoke_at = time.monotonic()
        self._ask_at = self._spoke_at + self._interval
        self._baseline = -1  # what REST named before the first trade of all
        self._suspected: tuple[int, float] | None = None  # the id that REST named, and until when it may come
        self._pause, self._replace_at = self._interval, 0.0
        self.silent = False
        """Whether the stream is silent, so that REST carries the pair."""

    def turn(self) -> None:
        """Do what is due; called again and again."""
        now, streamed = time.monotonic(), self._ingest.newest_streamed
        if not self._is_open():
            self._suspected, self._ask_at = None, now + self._interval
        elif streamed not in (-1, self._streamed):
            self._speaks(now, streamed)
        elif self._suspected is not None:
            newest, until = self._suspected
            if now >= until:
                self._suspected = None
                self._is_silent(now, newest)
        elif now >= self._ask_at:
            self._ask_at = now + self._interval
            self._ask(now)

    def _speaks(self, now: float, streamed: int) -> None:
        if self.silent:
            lasted = format_duration(now - self._spoke_at)
            self._lines.info("stream_speaks", f"The stream brings trades again, after {lasted}")
        self.silent, self._suspected = False, None
        self._streamed, self._spoke_at, self._ask_at = streamed, now, now + self._interval
        self._pause = self._interval

    def _ask(self, now: float) -> None:
        try:
            newest = self._newest_id()
        except UnavailableError as error:
            # A location that is not served, say: gap repair says so where it matters.
            log.debug("The stream cannot be checked: %s", error)
            return
        seen = max(self._ingest.newest_id, self._baseline)
        if seen < 0:
            self._baseline = newest
        elif newest - seen > self._limit:
            self._lines.warn(
                "stream_check_beyond_limit",
                f"The stream brings no trades, and REST's newest trade id {newest} is {newest - seen} above the last "
                f"one, more than RESUME_LIMIT ({self._limit}): check {named('binance_rest_url')}",
                newest=newest,
            )
        elif newest > seen and self.silent:
            self._is_silent(now, newest)
        elif newest > seen:
            self._suspected = newest, now + _LAG

    def _is_silent(self, now: float, newest: int) -> None:
        if not self.silent or now >= self._replace_at:
            self._lines.warn(
                "stream_silent",
                f"The stream has brought no trade for {format_duration(now - self._spoke_at)}, and REST has newer ones "
                f"up to id {newest}: they are fetched from REST, and the connection is replaced",
                newest=newest,
            )
        if self._baseline >= 0:
            self._ingest.begin_after(self._baseline)
            self._baseline = -1
        self.silent = True
        self._ingest.expect(newest, hint=True)
        if now >= self._replace_at:
            self._replace_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._replace()
