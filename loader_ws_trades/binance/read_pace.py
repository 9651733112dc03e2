"""How far apart a stream is read."""

from __future__ import annotations

import math
import time

READ_PACE = 0.006  # seconds from one read to the next at least, while trades come quickly
_SOON = 0.004  # seconds from one read to the next that show that they do
_IN_FLIGHT = 5  # records of a partition up to which librdkafka (2.16) sends more
_MARGIN = 1.25  # for deliveries, whose times vary


class ReadPace:
    """Says how long to wait before the next read, so that trades that come quickly share reads and requests to Kafka.

    A read costs as much as decoding dozens of trades, and so does a request. So quick reads are `READ_PACE` apart, or
    as far apart as the brokers take to acknowledge a record: before they have, no more records of its partition can be
    sent once several are in flight, and librdkafka's thread spins. A trade that comes alone is read at once.
    """

    def __init__(self) -> None:
        self.note_delivery_time(0.0)
        self._read_at = self._long_at = -math.inf  # the last read, and the last long one
        self._quick = False  # whether trades come quickly

    def note_delivery_time(self, seconds: float) -> None:
        """Take into account how long the brokers take; in any thread."""
        self._interval = max(READ_PACE, seconds * _MARGIN)
        self._soon = max(_SOON, self._interval / _IN_FLIGHT)

    def pause(self, frames: int, read_at: float, *, is_long: bool) -> float:
        """Seconds to wait before the next read; none if not positive.

        Args:
            frames: how many the last read brought; none if it found nothing.
            read_at: when something was read the last time (monotonic).
            is_long: whether that was a long read.
        """
        soon = 0.0 < read_at - self._read_at < self._soon
        self._quick = soon or (self._quick and frames > 1)  # while a pause lets some of them share a read
        self._read_at = read_at
        if is_long:
            self._long_at = read_at
        # Not for a while after a long read: what fits into the socket during a pause would limit the rate.
        if not self._quick or read_at <= self._long_at + READ_PACE:
            return 0.0
        return read_at + self._interval - time.monotonic()
