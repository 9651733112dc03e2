"""Tells a silent subscription from a quiet pair by asking REST for its newest trade id if the stream is silent."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.text import format_duration

log = logging.getLogger(__name__)

LAG = 15.0  # seconds in which the stream may still bring a trade that REST has; the longest lag measured is 8.3 s
LONGEST_PAUSE = 3600.0  # seconds between replacements of the connection
LINES = (10, 3600.0)  # log lines of each kind, per seconds
SLICES = 5  # turns, of a second each at most, in which each of many pairs is looked at once
_TOGETHER = 20  # pairs that the exchange answers for at the lowest weight, 2
_ALL = 800  # pairs above which asking for all of them (weight 80) is cheaper
_GATHER = 5.0  # seconds for which a pair waits for others that are due, to ask for them together


class Slices:
    """Goes through pairs in a few turns, so that a turn is short however many there are."""

    def __init__(self, lanes: Callable[[], Sequence[Lane]]) -> None:
        self._lanes = lanes
        self._next = 0

    def turn(self) -> Sequence[Lane]:
        """The next of them."""
        lanes = self._lanes()
        begin, size = self._next, -(-len(lanes) // SLICES)
        self._next = begin + size if begin + size < len(lanes) else 0
        return lanes[begin : begin + size]


class _Pauses:
    """The growing pauses between replacements of the connections that carry a group of pairs."""

    def __init__(self, first: float) -> None:
        self._first = first
        self.reset()
        self._at = 0.0

    def reset(self) -> None:
        self._pause = self._first

    def passed(self, now: float) -> bool:
        return now >= self._at

    def begin(self, now: float) -> None:
        self._at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class _Stream:
    """What is known of one pair's stream; times are monotonic."""

    def __init__(self, now: float, interval: float) -> None:
        self.streamed: dict[int, int] = {}  # what each connection brought last
        self.last_trade_at = now
        self.ask_at = now + interval
        self.baseline = -1  # what REST reported before the first trade
        self.suspected: tuple[int, float] | None = None  # the id that REST reported, and until when it may arrive
        self.silent = False


class StreamCheck:
    """The check of all pairs' streams, in the thread that repairs gaps.

    States of a pair:
    - *live*: the stream brought a trade within `STREAM_CHECK_INTERVAL`, or REST has no newer one.
    - *suspected*: REST has a newer trade, and the stream has `LAG` seconds to bring one.
    - *silent*: it did not. Repair fetches what REST has, and the connection is replaced. Meanwhile REST is asked every
      interval, and the pauses between replacements grow. The next trade of the stream ends this state.

    This costs a request weight of 2 per interval and 20 pairs, and nothing while trades arrive. No id is given up
    because of what REST reports here.

    Args:
        settings: the limits.
        lanes: the pairs.
        last_ids: REST's newest ids of these pairs, without those that it has none of; raises `UnavailableError`.
        is_open: whether any connection that carries a pair is open.
        replace: replaces a connection that carries a pair; whether it could.
        group: the number of the group of pairs that share their connections.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        lanes: Callable[[], Sequence[Lane]],
        last_ids: Callable[[Sequence[str]], Mapping[str, int]],
        is_open: Callable[[str], bool],
        replace: Callable[[str], bool],
        group: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._interval = settings.stream_check_interval
        self._limit = settings.resume_limit
        self._lanes = lanes
        self._slices = Slices(lanes)
        self._last_ids = last_ids
        self._is_open = is_open
        self._replace = replace
        self._group = group
        self._lines = Throttle(log, *LINES)
        self._streams: dict[Lane, _Stream] = {}
        self._due: dict[Lane, float] = {}  # pairs to ask for, and since when
        self._pauses: defaultdict[int, _Pauses] = defaultdict(lambda: _Pauses(self._interval))

    def forget(self, lane: Lane) -> None:
        """A pair has ended."""
        self._streams.pop(lane, None)
        self._due.pop(lane, None)

    def turn(self) -> None:
        """Do what is due, with one request at most; called regularly."""
        now = time.monotonic()
        for lane in self._slices.turn():
            self._look(lane, now)
        if not self._due:
            return
        if len(self._due) >= len(self._lanes()) or now - next(iter(self._due.values())) >= _GATHER:
            asked = list(self._due) if len(self._due) > _ALL else list(islice(self._due, _TOGETHER))
            for lane in asked:
                del self._due[lane]
            self._ask(asked, now)

    def _look(self, lane: Lane, now: float) -> None:
        stream = self._streams.get(lane)
        if stream is None:
            stream = self._streams[lane] = _Stream(now, self._interval)
        streamed = lane.standing().newest_streamed
        # While the sink is full the stream is not read, so it cannot bring one.
        if not self._is_open(lane.symbol) or lane.full:
            stream.suspected, stream.ask_at = None, now + self._interval
            self._due.pop(lane, None)
        elif any(trade_id not in (-1, stream.streamed.get(number, -1)) for number, trade_id in streamed.items()):
            self._note_trades(lane, stream, now, streamed)
        elif stream.suspected is not None:
            newest, until = stream.suspected
            if now >= until:
                stream.suspected = None
                self._note_silence(lane, stream, now, newest)
        elif now >= stream.ask_at:
            stream.ask_at = now + self._interval
            self._due.setdefault(lane, now)

    def _note_trades(self, lane: Lane, stream: _Stream, now: float, streamed: dict[int, int]) -> None:
        if stream.silent:
            lasted = format_duration(now - stream.last_trade_at)
            self._lines.info("stream_speaks", f"Trades{lane.of} from the stream again after {lasted}")
            self._pauses[self._group(lane.symbol)].reset()
        stream.silent, stream.suspected, lane.trouble = False, None, None
        stream.streamed, stream.last_trade_at, stream.ask_at = streamed, now, now + self._interval
        self._due.pop(lane, None)

    def _ask(self, lanes: Sequence[Lane], now: float) -> None:
        try:
            last_ids = self._last_ids([lane.symbol for lane in lanes])
        except UnavailableError as error:
            # If the location is not served, for instance, gap repair logs that when it matters.
            log.debug("The stream cannot be checked: %s", error)
            return
        for lane in lanes:
            self._judge(lane, self._streams[lane], now, last_ids.get(lane.symbol, -1))

    def _judge(self, lane: Lane, stream: _Stream, now: float, newest: int) -> None:
        seen = max(lane.standing().newest_id, stream.baseline)
        if seen < 0:
            stream.baseline = newest
        elif newest - seen > self._limit:
            self._lines.warn(
                "stream_check_beyond_limit",
                f"No trades{lane.of} from the stream, and REST's newest trade id {newest} is {newest - seen} above the "
                f"last one, more than RESUME_LIMIT ({self._limit}): check {named('binance_rest_url')}",
                newest=newest,
            )
        elif newest > seen and stream.silent:
            self._note_silence(lane, stream, now, newest)
        elif newest > seen:
            stream.suspected = newest, now + LAG

    def _note_silence(self, lane: Lane, stream: _Stream, now: float, newest: int) -> None:
        if stream.baseline >= 0:
            lane.start_after(stream.baseline)
            stream.baseline = -1
        lane.expect(newest, hint=True)
        # A replacement that is still taking over is not replaced yet; the pauses grow with those that are.
        pauses = self._pauses[self._group(lane.symbol)]
        replaced = pauses.passed(now) and self._replace(lane.symbol)
        if replaced:
            pauses.begin(now)
        if replaced or not stream.silent:
            self._lines.warn(
                "stream_silent",
                f"No trade{lane.of} from the stream for {format_duration(now - stream.last_trade_at)}, but REST has "
                f"newer ones up to id {newest}; fetching them{' and replacing the connection' if replaced else ''}",
                newest=newest,
            )
        stream.silent, lane.trouble = True, "the stream is silent, trades are fetched from REST"
