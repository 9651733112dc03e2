"""Recorded frames given out at the pace at which they happened, or a multiple of it."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

_search_event_time = re.compile(rb'"E"\s*:\s*([0-9]{1,18})').search
_search_trade_time = re.compile(rb'"T"\s*:\s*([0-9]{1,18})').search

_MICROSECONDS_FROM = 10**15  # at or above this a time is in microseconds, below it in milliseconds
_NEW_RECORDING_MS = 5000.0  # as far back a time is that of another recording; less is frames that changed places
_TOGETHER = 0.001  # seconds within which frames are given out together
_LONGEST_WAIT = 3600.0  # seconds of one wait; a longer pause has several
_TOLD_FROM = 10.0  # seconds; a pause as long is told in the log


def event_time(frame: bytes) -> float | None:
    """The time of a frame in milliseconds: `E`, when the exchange sent it, else `T`, when the trade was; else none."""
    match = _search_event_time(frame) or _search_trade_time(frame)
    if match is None:
        return None
    when = int(match[1])
    return when / 1000 if when >= _MICROSECONDS_FROM else float(when)


def paced(
    batches: Iterable[list[bytes]], speed: float, stopping: threading.Event, *, start: float | None = None
) -> Iterator[list[bytes]]:
    """Frames when their time has come: what happened `t` seconds after the first comes `t / speed` seconds after it.

    What comes late, because nobody took it, is not waited for: the clock goes on. Frames without a time go with those
    before them. Where times go back, the next frame comes at once and the pace goes on from there. A pause is as
    long as it was.

    Args:
        batches: frames in the order of the recording.
        speed: above 0; `math.inf` waits for nothing.
        stopping: ends it at once.
        start: a monotonic time in seconds to count from; now, if not said.

    Raises:
        ValueError: if `speed` is not above 0.
    """
    if not speed > 0:
        raise ValueError(f"the speed is {speed!r}; give a number above 0")
    return _paced(batches, speed, stopping, time.monotonic() if start is None else start)


def _paced(
    batches: Iterable[list[bytes]], speed: float, stopping: threading.Event, start: float
) -> Iterator[list[bytes]]:
    clock = _Clock()
    due = start
    for batch in batches:
        if stopping.is_set():
            return
        if speed == math.inf:
            yield batch
            continue
        begin, now = 0, time.monotonic()
        for index, frame in enumerate(batch):
            due = start + clock.advance(frame) / speed
            if due <= now + _TOGETHER or due <= (now := time.monotonic()) + _TOGETHER:
                continue
            if index > begin:
                yield batch[begin:index]
                begin = index
            if not _waited(due, stopping):
                return
            now = time.monotonic()
        yield batch[begin:]


class _Clock:
    """The time that has passed in a recording, which never goes back."""

    def __init__(self) -> None:
        self._newest: float | None = None
        self._passed = 0.0

    def advance(self, frame: bytes) -> float:
        """Seconds from the first frame to this one."""
        when = event_time(frame)
        if when is None:
            return self._passed
        if self._newest is None or when < self._newest - _NEW_RECORDING_MS:
            self._newest = when
        elif when > self._newest:
            self._passed += (when - self._newest) / 1000
            self._newest = when
        return self._passed


def _waited(until: float, stopping: threading.Event) -> bool:
    """Wait; whether the time came before the stop."""
    if (left := until - time.monotonic()) >= _TOLD_FROM:
        log.info(
            "The recording pauses here: the next frame comes in %.0f s",
            left,
            extra={"event": "recording_pause", "seconds": round(left)},
        )
    while (left := until - time.monotonic()) > 0:
        if stopping.wait(min(left, _LONGEST_WAIT)):
            return False
    return not stopping.is_set()
