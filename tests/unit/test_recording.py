"""Frames into a file and out of it again: whole lines whatever ends the process, and the pace of the recording."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from loader_ws_trades.config import parsers as values
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.trade import FrameDecoder
from loader_ws_trades.run.capture import MAX_FRAME, frames
from loader_ws_trades.run.pacing import event_time, paced
from loader_ws_trades.run.recording import Recorder
from tests.tools import recorded
from tests.tools.processes import limited, start

NAMES = ["frames.jsonl", "frames.jsonl.gz"]


def made(count: int, first: int = 0) -> list[bytes]:
    return [b'{"e":"trade","t":%d,"p":"%d.5"}' % (number, number % 97) for number in range(first, first + count)]


def read(path: Path) -> list[bytes]:
    return [frame for batch in frames(path) for frame in batch]


def record(path: Path, *flushes: list[bytes]) -> None:
    recorder = Recorder(path)
    for batch in flushes:
        recorder.write(batch)
        recorder.flush()
    recorder.close()


def plain(path: Path) -> bytes:
    """What the standard library reads, which knows nothing of this package."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content: bytes = file.read()
    return content


def refused(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Recorder(path)
    assert "\n" not in str(caught.value)
    assert "--record names " in str(caught.value)
    return str(caught.value)


# Writing


@pytest.mark.parametrize("name", NAMES)
def test_what_was_recorded_is_read_again(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    written = made(5000)
    record(path, written[:1], [], written[1:700], written[700:])
    assert plain(path) == b"".join(frame + b"\n" for frame in written)
    assert read(path) == written


@pytest.mark.parametrize("name", NAMES)
def test_real_frames_survive(tmp_path: Path, name: str) -> None:
    source = recorded.frames_file(tmp_path)
    record(tmp_path / name, *frames(source))
    trades, refusals = FrameDecoder("POLUSDT").decode(read(tmp_path / name))
    assert not refusals
    assert [trade.trade_id for trade in trades] == [frame["t"] for frame in recorded.frames(source)]


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_is_one_line_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    frame = json.dumps({"e": "trade", "s": "币安人生USDT", "x": "a\nb"}, indent=1).encode()
    record(tmp_path / name, [frame, b"\xff\xfe", b'{"next":1}'])
    first, *rest = read(tmp_path / name)
    assert b"\n" not in first
    assert json.loads(first) == json.loads(frame)
    assert rest == [b"\xff\xfe", b'{"next":1}']


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_file_is_appended_to(tmp_path: Path, name: str) -> None:
    record(tmp_path / name, made(10))
    record(tmp_path / name)
    record(tmp_path / name, made(10, first=10))
    assert read(tmp_path / name) == made(20)
    assert plain(tmp_path / name).count(b"\n") == 20


def test_a_line_that_a_kill_cut_off_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_bytes(b'{"t":1}\n{"t":2')
    record(path, [b'{"t":3}'])
    assert read(path) == [b'{"t":1}', b'{"t":2', b'{"t":3}']


@pytest.mark.parametrize("name", NAMES)
def test_several_threads_write(tmp_path: Path, name: str) -> None:
    recorder = Recorder(tmp_path / name)

    def write(worker: int) -> None:
        for number in range(500):
            recorder.write([b'{"w":%d,"n":%d}' % (worker, number), b'{"w":%d,"n":%d.5}' % (worker, number)])

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write, worker) for worker in range(4)]
        while not all(future.done() for future in running):
            recorder.flush()
        for future in running:
            future.result()
    recorder.close()
    found = [json.loads(frame) for frame in read(tmp_path / name)]
    assert recorder.recorded == len(found) == 4000
    for worker in range(4):
        assert [entry["n"] for entry in found if entry["w"] == worker] == [half / 2 for half in range(1000)]


def test_what_waits_is_bounded_without_a_flush(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / NAMES[0])
    for _ in range(100):
        recorder.write([b"x" * 99_999])
    assert (tmp_path / NAMES[0]).stat().st_size > 8_000_000
    recorder.close()


@pytest.mark.parametrize("name", NAMES)
def test_after_the_end_frames_are_let_go(tmp_path: Path, name: str) -> None:
    recorder = Recorder(tmp_path / name)
    recorder.write(made(3))
    recorder.close()
    recorder.write(made(3))
    recorder.flush()
    recorder.close()
    assert not recorder.active
    assert read(tmp_path / name) == made(3)


_WRITER = """
import sys
from loader_ws_trades.run.recording import Recorder
recorder = Recorder(sys.argv[1])
first = int(sys.argv[2])
for number in range(first, first + 300):
    recorder.write([b'{"t":%d}' % number])
    if number % 10 == 9:
        recorder.flush()
recorder.write([b'{"t":"not flushed"}'])
print("flushed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", NAMES)
def test_after_kill_9_all_that_was_flushed_is_there_and_recording_goes_on(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    for first in (0, 300):
        command = [sys.executable, "-c", _WRITER, str(path), str(first)]
        with start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process, limited(process):
            assert process.stdout is not None
            assert process.stdout.readline() == b"flushed\n"
            assert "into which another process records" in refused(path)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        expected = [b'{"t":%d}' % number for number in range(first + 300)]
        assert read(path) == expected
        assert plain(path).splitlines() == expected
    assert not caplog.records


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file of this process may grow over `size` bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    recorder = Recorder(path)
    recorder.write(made(100))
    recorder.flush()
    with full_at(path.stat().st_size + 20):
        for _ in range(3):
            recorder.write(made(100, first=100))
            recorder.flush()
    assert not recorder.active
    recorder.write(made(100))
    recorder.close()
    [line] = caplog.records
    assert line.levelno == logging.ERROR
    assert line.exc_info is None
    assert f"Recording into {path} has ended with 100 frames (File too large)" in line.getMessage()
    caplog.clear()
    assert read(path) == made(100)
    record(path, made(5, first=100))
    assert read(path) == made(105)
    assert not caplog.records


def test_files_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    assert "cannot be written (No such file or directory)" in refused(tmp_path / "none" / "frames.jsonl")
    assert "is no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in refused(tmp_path / "pipe")
    assert "cannot be written (no file name)" in refused(Path("a\0b"))
    assert "cannot be written (File name too long)" in refused(tmp_path / ("x" * 300))
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o500)
    if not os.access(sealed, os.W_OK):  # root may write anywhere
        assert "cannot be written (Permission denied)" in refused(sealed / "frames.jsonl")


def test_a_file_that_does_not_hold_what_its_name_says_is_not_spoiled(tmp_path: Path) -> None:
    text, packed = tmp_path / "a.gz", tmp_path / "b.jsonl"
    text.write_bytes(b'{"t":1}\n')
    packed.write_bytes(gzip.compress(b'{"t":1}\n'))
    assert "exists and is no gzip; use a name without .gz" in refused(text)
    assert "exists and is gzip; use a name that ends in .gz" in refused(packed)
    assert read(text) == read(packed) == [b'{"t":1}']


# Reading


def test_blank_lines_and_a_last_line_without_newline(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b'\n{"t":1}\r\n  \n\n{"t":2}\n\t\n{"t":3')
    assert read(path) == [b'{"t":1}\r', b'{"t":2}', b'{"t":3']
    path.write_bytes(b"")
    assert read(path) == []


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_a_line_that_is_too_long_is_passed_over_with_a_warning(
    tmp_path: Path, pack: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames"
    longest = b"y" * MAX_FRAME
    lines = [b"first", b"x" * (MAX_FRAME + 1), longest, b"x" * 5_000_000, b"last"]
    path.write_bytes(pack(b"\n".join(lines)))
    assert read(path) == [b"first", longest, b"last"]
    assert [record.getMessage().split(" has ")[1] for record in caplog.records] == [
        f"a line of more than {MAX_FRAME} bytes, which is passed over"
    ] * 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=f"cannot be read .{why}.; give a readable file") as caught:
            next(frames(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.77, 0.9999])
def test_a_gzip_that_ends_abruptly_gives_its_whole_lines_and_one_warning(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames"
    written = made(50_000)
    packed = gzip.compress(b"\n".join(written))
    path.write_bytes(packed[: max(2, int(share * len(packed)))])
    found = read(path)
    assert found == written[: len(found)]
    assert len(found) >= share * 0.8 * len(written) - 2000
    [warning] = caplog.records
    assert "ends abruptly; its whole frames are used" in warning.getMessage()


def test_a_stream_that_was_cut_after_a_sync_flush_and_appended_to_is_read_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames"
    deflate = zlib.compressobj(wbits=31)
    cut = deflate.compress(b"\n".join(made(2000)) + b'\n{"half') + deflate.flush(zlib.Z_SYNC_FLUSH)
    path.write_bytes(cut + gzip.compress(b"\n".join(made(3000, first=2000)) + b"\n"))
    assert read(path) == made(5000)
    [warning] = caplog.records
    assert "is damaged" in warning.getMessage()


def test_damage_within_a_recording_costs_no_more_than_its_flush(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames.gz"
    flushes = [made(4000, first=4000 * number) for number in range(20)]
    record(path, *flushes)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content + b"\0" * 512)
    found = read(path)
    lost = {frame for flush in flushes for frame in flush} - set(found)
    hurt = [number for number, flush in enumerate(flushes) if lost & set(flush)]
    assert len(hurt) <= 1
    assert len(found) >= 19 * 4000
    assert len(caplog.records) == 1


# Pace


def at(*times: int | None, field: str = "E") -> list[bytes]:
    """Frames that bear these times."""
    return [
        json.dumps({"e": "trade", "n": number} | ({field: when} if when is not None else {})).encode()
        for number, when in enumerate(times)
    ]


T0 = 1760132450606


@pytest.mark.parametrize(
    ("frame", "when"),
    [
        (b'{"e":"trade","E":1760132450606,"T":5,"t":7}', 1760132450606),
        (b'{"e":"trade","E":1760132450606803,"T":5}', 1760132450606.803),
        (b'{"e":"trade", "T" : 1760132450606}', 1760132450606),
        (b'{"stream":"x@trade","data":{"e":"trade","E":1760132450606}}', 1760132450606),
        (b'{"e":"serverShutdown","E":1760132450606}', 1760132450606),
        (b'{"result":null,"id":1}', None),
        (b"rubbish", None),
    ],
)
def test_the_time_of_a_frame(frame: bytes, when: float | None) -> None:
    assert event_time(frame) == when


def delays(batches: Iterable[list[bytes]], speed: float) -> tuple[list[float], list[bytes]]:
    """When each frame came, in seconds since the start, and the frames."""
    came: list[float] = []
    got: list[bytes] = []
    start = time.monotonic()
    for batch in paced(batches, speed, threading.Event(), start=start):
        assert batch
        came += [time.monotonic() - start] * len(batch)
        got += batch
    return came, got


@pytest.mark.parametrize(("unit", "field"), [(1, "E"), (1000, "E"), (1, "T"), (1000, "T")])
@pytest.mark.parametrize("speed", [1.0, 10.0, 2.5])
def test_frames_come_at_the_recorded_pace(speed: float, unit: int, field: str) -> None:
    offsets = [0, 0, 0, 100, 100, 250, 400]
    written = at(*((T0 + int(offset * speed)) * unit for offset in offsets), field=field)
    came, got = delays([written[:2], written[2:4], written[4:]], speed)
    assert got == written
    for when, offset in zip(came, offsets, strict=True):
        assert offset / 1000 - 0.01 <= when < offset / 1000 + 0.5
    assert came[0] == came[1]


def test_a_burst_stays_together() -> None:
    written = at(T0, *[T0 + 100] * 500)
    batches = list(paced([written], 1.0, threading.Event()))
    assert [len(batch) for batch in batches] == [1, 500]


def test_at_the_highest_speed_nothing_is_waited_for() -> None:
    batches = [at(T0, T0 + 10**8), at(T0 + 10**9)]
    assert list(paced(batches, math.inf, threading.Event())) == batches


def test_frames_without_a_time_go_with_those_before_them() -> None:
    written = at(None, T0, None, T0 + 200, None)
    assert list(paced([written], 1.0, threading.Event())) == [written[:3], written[3:]]


def test_times_that_go_back_neither_stall_nor_rush() -> None:
    written = at(T0, T0 + 100, T0 - 3_600_000, T0 - 3_600_000 + 100, T0 + 100 - 3_600_000)
    came, got = delays([written], 1.0)
    assert got == written
    assert came[2] - came[1] < 0.05
    assert 0.19 <= came[3] < 0.6
    # Frames that changed places add nothing.
    came, _ = delays([at(*(T0 + offset for _ in range(50) for offset in (0, 40, 20)))], 1.0)
    assert came[-1] < 0.5


def test_what_comes_late_is_not_waited_for() -> None:
    written = at(*(T0 + 10 * number for number in range(100)))
    assert list(paced([written], 1.0, threading.Event(), start=time.monotonic() - 5)) == [written]


def test_a_pause_is_told_and_ends_with_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    stopping = threading.Event()
    batches = paced([at(T0, T0 + 10**14 // 1000), at(T0 + 10**15)], 1.0, stopping)
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        assert len(next(batches)) == 1
        threading.Timer(0.2, stopping.set).start()
        began = time.monotonic()
        assert list(batches) == []
    assert 0.15 < time.monotonic() - began < 2
    assert "The recording pauses here" in caplog.text


@pytest.mark.parametrize(
    ("text", "speed"), [("1", 1.0), (" 10 ", 10.0), ("0.25", 0.25), ("max", math.inf), ("MAX", math.inf)]
)
def test_a_speed_is_a_number_or_max(text: str, speed: float) -> None:
    assert values.speed(text) == speed


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "nan", "inf", "1e3", "fast", "1" * 400, "٣"])
def test_what_is_no_speed(text: str) -> None:
    with pytest.raises(ValueError, match="is no speed; give a number above 0, such as 1 or 10, or max"):
        values.speed(text)


@pytest.mark.parametrize("speed", [0.0, -1.0, math.nan])
def test_a_speed_is_above_0(speed: float) -> None:
    with pytest.raises(ValueError, match="give a number above 0"):
        paced([], speed, threading.Event())
