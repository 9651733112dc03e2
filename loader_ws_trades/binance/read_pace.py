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

    The caller asks for a `pause` only if the last read brought several frames, or came within `soon` of the one before:
    the call would cost a lone trade one percent.
    """

    def __init__(self) -> None:
        self.note_delivery_time(0.0)
        self._long_at = -math.inf  # when the last long read ended

    def note_delivery_time(self, seconds: float) -> None:
        """Take into account how long the brokers take; in any thread."""
        self._interval = max(READ_PACE, seconds * _MARGIN)
        self.soon = max(_SOON, self._interval / _IN_FLIGHT)
        """Seconds from one read to the next below which trades come quickly."""

    def pause(self, read_at: float, *, is_long: bool) -> float:
        """Seconds to wait before the next read, as trades come quickly; none if not positive.

        Args:
            read_at: when something was read the last time (monotonic).
            is_long: whether that was a long read.
        """
        if is_long:
            self._long_at = read_at
        # Not for a while after a long read: what fits into the socket during a pause would limit the rate.
        if read_at <= self._long_at + READ_PACE:
            return 0.0
        return read_at + self._interval - time.monotonic()
