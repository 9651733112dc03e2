"""The provider of `replay`: recorded frames, decoded and sequenced like those of the stream, at their own pace."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.events import Gap, Position, Reset
from loader_ws_trades.pipeline.id_ranges import IdSet
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.stamps import StampingDecoder
from loader_ws_trades.pipeline.trade import RejectedFrame, Trade
from loader_ws_trades.run.bounded import TradeProvider, TradeRange, consecutive, give_missing
from loader_ws_trades.run.frame_file import read_frames

events = Events(logging.getLogger(__name__))

_search_event_time = re.compile(rb'"E"\s*:\s*([0-9]{1,18})').search
_search_trade_time = re.compile(rb'"T"\s*:\s*([0-9]{1,18})').search

_MICROSECONDS_FROM = 10**15  # at or above this a time is in microseconds, below it in milliseconds
_NEW_RECORDING_MS = 5000.0  # a time that far back begins another recording; less is frames out of order
_TOGETHER = 0.001  # seconds within which frames are released together
_LONGEST_WAIT = 3600.0  # seconds of one wait; a longer pause takes several
_LOGGED_FROM = 10.0  # seconds of a pause that is logged


class RecordingProvider(TradeProvider):
    """The trades of a file of frames, one a line.

    Args:
        path: the file, plain or gzip.
        symbol: whose trades are taken.
        speed: multiple of the recorded pace; infinite is as fast as they can be taken.
    """

    origin = "recording"

    def __init__(self, path: str | Path, symbol: str, speed: float) -> None:
        super().__init__()
        self._path = path
        self._symbol = symbol
        self._decoder = StampingDecoder({symbol}, self.origin)
        self._speed = speed
        self._recorded = IdSet()
        self._first_id = 0

    def survey(self) -> TradeRange:
        """Read the whole file for the ids that it contains.

        Raises:
            ConfigurationError: if it cannot be read, or contains no trade of the symbol.
        """
        first: Trade | None = None
        other: RejectedFrame | None = None
        last_id = -1
        for batch in read_frames(self._path):
            if self._stopping.is_set():
                raise RunError("The recording was not read to its end; run again")
            trades, rejected = self._decoder.decode(batch)
            other = other or next(iter(rejected), None)
            for run in consecutive(trades):
                begin, end = run[0].trade_id, run[-1].trade_id
                self._recorded.include(begin, end)
                first = run[0] if first is None or begin < first.trade_id else first
                last_id = max(last_id, end)
        if first is None:
            why = f"its first line is {other.detail}" if other else "it is empty"
            raise ConfigurationError(
                f"{self._path} contains no trade of {self._symbol}: {why}; give another file, or change "
                f"{named('symbol')}"
            )
        self._first_id = first.trade_id
        return TradeRange(first.trade_id, last_id, first.timestamp)

    def load(self, missing: list[Gap], receiver: Ingest) -> None:
        """Hand over the trades of the ranges, at the recorded pace."""
        ascending, why = self._ascending(receiver), "the recording does not have them"
        give_missing(ascending, missing, receiver.lane, why, self._stopping)

    def _ascending(self, receiver: Ingest) -> Iterator[list[Trade]]:
        # It waits only for what the file contains further on, so what it holds is bounded by the file's disorder.
        sequence = Sequencer(2**63)
        sequence.resume(Position(self._first_id - 1))
        for batch in paced(read_frames(self._path), self._speed, self._stopping):
            trades, rejected = self._decoder.decode(batch)
            receiver.reject(rejected)
            ready, events = sequence.push(trades)
            out = list(ready)
            while (gap := sequence.gap()) is not None and gap.first not in self._recorded:
                more, _ = sequence.skip(gap.last + 1)
                out += more
            for event in events:
                if isinstance(event, Reset):
                    raise RunError(
                        f"Trade ids were reset within the recording, to {event.first}; split it there and replay the "
                        "parts one after the other"
                    )
            if self._stopping.is_set():
                return
            if out:
                yield out


def paced(batches: Iterable[list[bytes]], speed: float, stopping: threading.Event) -> Iterator[list[bytes]]:
    """Frames as they are due: what happened `t` seconds after the first comes `t / speed` seconds after it.

    The clock does not wait for a slow reader. Frames without a time go with those before them. Where times go back far,
    another recording begins, and its first frame comes at once. A pause is as long as it was.

    Args:
        batches: frames in the order of the recording.
        speed: above 0; `math.inf` waits for nothing.
        stopping: ends it at once.
    """
    start, passed, newest = time.monotonic(), 0.0, -math.inf
    for batch in batches:
        begin = 0
        for index, frame in enumerate(batch) if speed < math.inf else ():
            when = event_time(frame)
            if when is None:
                continue
            if newest < when and newest > -math.inf:
                passed += (when - newest) / 1000
            if newest < when or when < newest - _NEW_RECORDING_MS:
                newest = when
            due = start + passed / speed
            if due <= time.monotonic() + _TOGETHER:
                continue
            if index > begin:
                yield batch[begin:index]
                begin = index
            _wait_until(due, stopping)
            if stopping.is_set():
                return
        yield batch[begin:]


def event_time(frame: bytes) -> float | None:
    """The time of a frame in milliseconds: `E`, when the exchange sent it, else `T`, when the trade was; else none."""
    match = _search_event_time(frame) or _search_trade_time(frame)
    if match is None:
        return None
    when = int(match[1])
    return when / 1000 if when >= _MICROSECONDS_FROM else float(when)


def _wait_until(due: float, stopping: threading.Event) -> None:
    if (left := due - time.monotonic()) >= _LOGGED_FROM:
        text = f"The recording pauses here, the next frame is due in {left:.0f} s"
        events.info("recording_pause", text, seconds=round(left))
    while left > 0 and not stopping.wait(min(left, _LONGEST_WAIT)):
        left = due - time.monotonic()
