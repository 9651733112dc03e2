"""When a stream is read next."""

from __future__ import annotations

import pytest

from loader_ws_trades.binance.read_pace import READ_PACE, ReadPace
from tests.unit.clock import FakeClock


class Stream:
    """A stream that is read when its pace says so."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.pace = ReadPace()

    def read(self, after: float, frames: int = 1, *, is_long: bool = False) -> float:
        """Read so many frames `after` seconds; the pause that follows, which this does not wait for."""
        self._clock.advance(after)
        self._read_at = self._clock.now
        return self.pace.pause(frames, self._read_at, is_long=is_long)

    def nothing(self) -> float:
        """The pause is over, and nothing has come."""
        return self.pace.pause(0, self._read_at, is_long=False)


@pytest.fixture
def stream(clock: FakeClock) -> Stream:
    return Stream(clock)


def test_trades_that_come_one_by_one_are_read_at_once(stream: Stream) -> None:
    assert [stream.read(READ_PACE) for _ in range(10)] == [0.0] * 10


def test_a_read_soon_after_another_is_followed_by_a_pause(stream: Stream) -> None:
    assert stream.read(1.0) == 0.0
    assert stream.read(0.003) == pytest.approx(READ_PACE)


def test_pauses_go_on_while_a_read_brings_several(stream: Stream) -> None:
    stream.read(1.0)
    assert stream.read(0.001, 2) > 0
    assert [stream.read(READ_PACE, 2) > 0 for _ in range(5)] == [True] * 5
    assert stream.read(READ_PACE, 1) == 0.0
    assert stream.read(READ_PACE, 2) == 0.0, "several at once do not begin it"


def test_a_pause_in_which_nothing_came_ends_them(stream: Stream) -> None:
    stream.read(1.0)
    assert stream.read(0.001) > 0
    assert stream.nothing() == 0.0


def test_no_pause_begins_shortly_after_a_long_read(stream: Stream) -> None:
    stream.read(1.0, 400, is_long=True)
    assert stream.read(0.001, 20) == 0.0
    assert stream.read(0.003, 20) == 0.0
    assert stream.read(0.003, 20) > 0


def test_reads_are_no_closer_than_the_brokers_acknowledge(stream: Stream) -> None:
    stream.pace.note_delivery_time(0.02)
    stream.read(1.0)
    assert stream.read(0.006) == 0.0, "so few are in flight that more can be sent"
    assert stream.read(0.004) == pytest.approx(0.025)
    assert stream.read(0.025, 400, is_long=True) == 0.0
    assert stream.read(0.007, 100) == pytest.approx(0.025), "a long read does not suspend it for longer"
    stream.pace.note_delivery_time(0.0)
    assert stream.read(0.02, 2) == pytest.approx(READ_PACE)
