"""When a stream is read next."""

from __future__ import annotations

import pytest

from loader_ws_trades.binance.read_pace import READ_PACE, ReadPace
from tests.unit.clock import FakeClock


class Stream:
    """A stream whose trades come quickly."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.pace = ReadPace()

    def read(self, after: float, *, is_long: bool = False) -> float:
        """Read something `after` seconds; the pause that begins half a millisecond later, without waiting for it."""
        self._clock.advance(after)
        read_at = self._clock.now
        self._clock.advance(0.0005)
        return self.pace.pause(read_at, is_long=is_long)


@pytest.fixture
def stream(clock: FakeClock) -> Stream:
    return Stream(clock)


def test_a_pause_lasts_until_the_pace_has_passed_since_the_read(stream: Stream) -> None:
    assert stream.read(1.0) == pytest.approx(READ_PACE - 0.0005)


def test_no_pause_begins_shortly_after_a_long_read(stream: Stream) -> None:
    assert stream.read(1.0, is_long=True) == 0.0
    assert stream.read(0.001) == 0.0
    assert stream.read(0.003) == 0.0
    assert stream.read(0.003) > 0


def test_reads_are_no_closer_than_the_brokers_acknowledge(stream: Stream) -> None:
    at_first = stream.pace.soon
    assert at_first < READ_PACE, "what comes at the pace comes slowly enough"
    stream.pace.note_delivery_time(0.02)
    assert stream.pace.soon == pytest.approx(0.005), "so few are in flight that more can be sent"
    assert stream.read(1.0) == pytest.approx(0.0245)
    assert stream.read(0.025, is_long=True) == 0.0
    assert stream.read(0.007) == pytest.approx(0.0245), "a long read does not suspend it for longer"
    stream.pace.note_delivery_time(0.0)
    assert stream.read(0.02) == pytest.approx(READ_PACE - 0.0005)
    assert stream.pace.soon == at_first
