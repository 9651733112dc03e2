"""Frames into a file and out of it again: whole lines, whatever ends the process or damages the file."""

from __future__ import annotations

import gzip
import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.run.frame_file import MAX_FRAME, FrameWriter, read_frames
from tests.tools.processes import limited, start

NAMES = ["frames.jsonl", "frames.jsonl.gz"]


def made(count: int, first: int = 0) -> list[bytes]:
    return [b'{"e":"trade","t":%d,"p":"%d.5"}' % (number, number % 97) for number in range(first, first + count)]


def read(path: Path) -> list[bytes]:
    return [frame for batch in read_frames(path) for frame in batch]


def record(path: Path, *flushes: list[bytes]) -> None:
    writer = FrameWriter(path)
    for batch in flushes:
        writer.write(batch)
        writer.flush()
    writer.close()


def plain(path: Path) -> bytes:
    """What the standard library reads, which knows nothing of this package."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def rejected(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        FrameWriter(path)
    assert "\n" not in str(caught.value)
    assert f"Cannot record to {path}" in str(caught.value)
    assert "give --record" in str(caught.value)
    return str(caught.value)


# Writing


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read_again_and_appended_to(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    odd = json.dumps({"s": "币安人生USDT", "x": "a\nb"}, indent=1).encode()
    record(path, made(1), [], made(699, first=1), [odd, b"\xff\xfe"])
    record(path)
    record(path, made(4000, first=700))
    frames = read(path)
    assert plain(path) == b"".join(frame + b"\n" for frame in frames)
    assert json.loads(frames[700]) == json.loads(odd), "newlines between tokens are spaces"
    assert frames[:700] + frames[702:] == made(4700)


def test_a_line_that_a_kill_cut_off_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_bytes(b'{"t":1}\n{"t":2')
    record(path, [b'{"t":3}'])
    assert read(path) == [b'{"t":1}', b'{"t":2', b'{"t":3}']


def test_several_threads_write_while_it_is_flushed(tmp_path: Path) -> None:
    writer = FrameWriter(tmp_path / "frames.jsonl")

    def write(worker: int) -> None:
        for number in range(0, 400, 2):
            writer.write([b"%d %d" % (worker, number), b"%d %d" % (worker, number + 1)])

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write, worker) for worker in range(4)]
        while not all(future.done() for future in running):
            writer.flush()
    writer.close()
    found = [frame.split() for frame in read(tmp_path / "frames.jsonl")]
    for worker in range(4):
        assert [int(number) for by, number in found if int(by) == worker] == list(range(400))


_WRITER = """
import sys
from loader_ws_trades.run.frame_file import FrameWriter
writer = FrameWriter(sys.argv[1])
for number in range(300):
    writer.write([b'{"t":%d}' % number])
    if number % 10 == 9:
        writer.flush()
writer.write([b'{"t":"not flushed"}'])
print("flushed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", NAMES)
def test_after_kill_9_all_that_was_flushed_is_there_and_can_be_appended_to(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    command = [sys.executable, "-c", _WRITER, str(path)]
    with start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process, limited(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"flushed\n"
        assert "another process is recording to it" in rejected(path)
        process.send_signal(signal.SIGKILL)
    record(path, [b'{"t":300}'])
    assert read(path) == plain(path).splitlines() == [b'{"t":%d}' % number for number in range(301)]
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
def test_a_full_disk_ends_the_recording_with_one_line_and_leaves_the_file_whole(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    writer = FrameWriter(path)
    writer.write(made(100))
    writer.flush()
    with full_at(path.stat().st_size + 20):
        for _ in range(3):
            writer.write(made(100, first=100))
            writer.flush()
    writer.write(made(100))
    writer.close()
    [line] = caplog.records
    assert (line.levelno, line.exc_info) == (logging.ERROR, None)
    assert f"Recording to {path} has stopped (File too large)" in line.getMessage()
    record(path, made(5, first=100))
    assert read(path) == made(105)
    assert len(caplog.records) == 1


def test_files_that_cannot_be_recorded_to_are_rejected(tmp_path: Path) -> None:
    assert "(No such file or directory)" in rejected(tmp_path / "none" / "frames.jsonl")
    assert "not a regular file" in rejected(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in rejected(tmp_path / "pipe")
    assert "(invalid file name)" in rejected(Path("a\0b"))
    text, packed = tmp_path / "a.gz", tmp_path / "b.jsonl"
    text.write_bytes(b'{"t":1}\n')
    packed.write_bytes(gzip.compress(b'{"t":1}\n'))
    assert "it exists and is not gzip; give --record a name without .gz" in rejected(text)
    assert "it exists and is gzip; give --record a name that ends in .gz" in rejected(packed)
    assert read(text) == read(packed) == [b'{"t":1}']


# Reading


def test_blank_lines_and_a_last_line_without_newline(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_bytes(b'\n{"t":1}\r\n  \n\n{"t":2}\n\t\n{"t":3')
    assert read(path) == [b'{"t":1}\r', b'{"t":2}', b'{"t":3']
    path.write_bytes(b"")
    assert read(path) == []


@pytest.mark.parametrize("pack", [lambda content: content, gzip.compress])
def test_a_line_that_is_too_long_is_skipped_with_a_warning(
    tmp_path: Path, pack: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames"
    longest = b"y" * MAX_FRAME
    path.write_bytes(pack(b"\n".join([b"first", b"x" * (MAX_FRAME + 1), longest, b"x" * 5_000_000, b"last"])))
    assert read(path) == [b"first", longest, b"last"]
    assert [record.getMessage().split(" has ")[1] for record in caplog.records] == [
        f"a line of more than {MAX_FRAME} bytes, which is skipped"
    ] * 2


@pytest.mark.parametrize("share", [0.0001, 0.2, 0.9999])
def test_a_gzip_that_is_cut_off_gives_its_whole_lines_and_one_warning(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "frames"
    written = made(20_000)
    packed = gzip.compress(b"\n".join(written))
    path.write_bytes(packed[: max(2, int(share * len(packed)))])
    found = read(path)
    assert found == written[: len(found)]
    assert len(found) >= share * 0.8 * len(written) - 2000
    [warning] = caplog.records
    assert "is cut off; its whole frames are used" in warning.getMessage()


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut flush that was appended to"])
def test_damage_costs_one_flush(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    flushes = [made(1000, first=1000 * number) for number in range(20)]
    members = [gzip.compress(b"".join(frame + b"\n" for frame in flush)) for flush in flushes]
    if damage == "a flipped bit":
        member = bytearray(members[9])
        member[len(member) // 2] ^= 0x55
        members[9] = bytes(member)
    else:
        members[9] = members[9][:-500]
    path = tmp_path / "frames.gz"
    path.write_bytes(b"".join(members) + b"\0" * 512)
    found = read(path)
    assert set(found) <= {frame for flush in flushes for frame in flush}, "no line that was put together"
    assert [number for number, flush in enumerate(flushes) if not set(flush) <= set(found)] == [9]
    [warning] = caplog.records
    assert "is damaged" in warning.getMessage()
