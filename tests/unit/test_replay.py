"""Recordings: what they contain, in which order, and when each frame is due."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loader_ws_trades.config import parsers
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.run.bounded import TradeRange
from loader_ws_trades.run.replay import RecordingProvider, event_time, paced
from tests.unit.clock import FakeClock

T0 = 1760132450606


def frame(trade_id: int, symbol: str = "POLUSDT") -> bytes:
    fields = {"e": "trade", "s": symbol, "t": trade_id, "p": "1.5", "q": "2", "T": T0 + trade_id, "m": True}
    return json.dumps(fields).encode()


def wrapped(trade_id: int) -> bytes:
    return b'{"stream":"polusdt@trade","data":' + frame(trade_id) + b"}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (frame(1, "ETHUSDT") + b"\n" + frame(2, "ETHUSDT"), "ETHUSDT"),
        (b'{"e":"aggTrade"}\n', "aggTrade"),
        (b"rubbish", "rubbish"),
    ],
)
def test_a_recording_without_a_trade_of_the_pair_is_rejected(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        RecordingProvider(path, "POLUSDT", 1.0).survey()
    text = str(raised.value)
    assert words in text
    assert "SYMBOL (--symbol)" in text
    assert "\n" not in text


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        ([BOM + frame(1), wrapped(2), frame(3), BOM + wrapped(4), wrapped(5)], ["1-5"]),
        ([frame(number ^ 1) for number in range(2000)], ["0-1999"]),
        ([*map(frame, range(50, 60)), *map(frame, range(10)), *map(frame, range(5, 12))], ["0-11", "50-59"]),
    ],
)
def test_a_recording_is_surveyed_in_any_form_and_order(tmp_path: Path, frames: list[bytes], found: list[str]) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_bytes(b"\n".join(frames))
    supply = RecordingProvider(path, "POLUSDT", 1.0)
    first, last = int(found[0].partition("-")[0]), int(found[-1].partition("-")[2])
    assert supply.survey() == TradeRange(first, last, T0 + first)
    assert [str(part) for part in supply._recorded.ranges()] == found


# Pace


def at(*times: int | None, field: str = "E") -> list[bytes]:
    """Frames with these times."""
    return [
        json.dumps({"e": "trade", "n": number} | ({field: when} if when is not None else {})).encode()
        for number, when in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("content", "when"),
    [
        (b'{"e":"trade","E":1760132450606,"T":5,"t":7}', 1760132450606),
        (b'{"e":"trade","E":1760132450606803,"T":5}', 1760132450606.803),
        (b'{"e":"trade", "T" : 1760132450606}', 1760132450606),
        (b'{"stream":"x@trade","data":{"e":"trade","E":1760132450606}}', 1760132450606),
        (b'{"result":null,"id":1}', None),
        (b"rubbish", None),
    ],
)
def test_the_time_of_a_frame(content: bytes, when: float | None) -> None:
    assert event_time(content) == when


@pytest.fixture
def due(clock: FakeClock) -> Callable[..., list[tuple[float, int]]]:
    """When frames are released, in seconds from the start, and how many together."""

    def run(*batches: list[bytes], speed: float = 1.0, busy: float = 0.0) -> list[tuple[float, int]]:
        start, found = time.monotonic(), []
        released: list[bytes] = []
        for batch in paced(batches, speed, clock.event()):
            found.append((round(time.monotonic() - start, 3), len(batch)))
            released += batch
            clock.advance(busy)
        assert released == [frame for batch in batches for frame in batch]
        return found

    return run


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0, 0, 100, 100, 250], [(0.0, 3), (0.1, 2), (0.25, 1)]),
        ([None, 0, None, 200, None], [(0.0, 3), (0.2, 2)]),
        # Another recording starts at once and keeps its own pace; frames out of order add nothing.
        ([0, 100, -3_600_000, -3_599_900], [(0.0, 1), (0.1, 2), (0.2, 1)]),
        ([0, 40, 20, 40, 0, 60], [(0.0, 1), (0.04, 4), (0.06, 1)]),
    ],
)
@pytest.mark.parametrize("form", [(1.0, "E", 1), (10.0, "T", 1000)])
def test_frames_are_released_at_the_recorded_pace(
    due: Callable[..., list[tuple[float, int]]],
    times: list[int | None],
    expected: list[tuple[float, int]],
    form: tuple[float, str, int],
) -> None:
    speed, field, unit = form
    frames = at(*(None if when is None else (T0 + int(when * speed)) * unit for when in times), field=field)
    assert due(frames, speed=speed) == expected


def test_a_slow_reader_does_not_shift_the_pace(due: Callable[..., list[tuple[float, int]]]) -> None:
    assert due(at(T0, *(T0 + 10 * number for number in range(1, 11)), T0 + 5000), busy=1.0) == [
        (0.0, 1),
        (1.0, 10),
        (5.0, 1),
    ]


def test_at_the_highest_speed_nothing_waits(due: Callable[..., list[tuple[float, int]]]) -> None:
    assert due(at(T0, T0 + 10**8), at(T0 + 10**9), speed=math.inf) == [(0.0, 2), (0.0, 1)]


def test_a_pause_is_logged_and_ended_by_the_stop(
    clock: FakeClock,
    logged: pytest.LogCaptureFixture,
) -> None:
    stopping = clock.event()
    clock.after(10_000, stopping.set)
    assert [len(batch) for batch in paced([at(T0, T0 + 10**14)], 1.0, stopping)] == [1]
    assert clock.now == 1000.0 + 10_000
    assert "The recording pauses here" in logged.text


@pytest.mark.parametrize(
    ("text", "speed"), [("1", 1.0), (" 10 ", 10.0), ("0.25", 0.25), ("max", math.inf), ("MAX", math.inf)]
)
def test_a_speed_is_a_number_or_max(text: str, speed: float) -> None:
    assert parsers.speed(text) == speed


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e3", "fast", "1" * 400, "٣"])
def test_other_speeds_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="use a number above 0, such as 1 or 10, or max"):
        parsers.speed(text)
