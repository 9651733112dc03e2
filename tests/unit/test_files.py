"""Files that a user names are read, whatever they are, within bounds."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from loader_ws_trades.config import files


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 200_000)
    assert files.read(file) == b"x" * 200_000
    with pytest.raises(OSError, match="more than 199999 bytes"):
        files.read(file, most=199_999)


def test_fifo_is_read_until_its_writer_closes_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(b"x" * 100_000,))
    writer.start()
    try:
        assert files.read(fifo) == b"x" * 100_000
    finally:
        writer.join()


def test_fifo_without_a_writer_times_out(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(TimeoutError, match=r"its writer did not finish within 0\.01 s"):
        files.read(fifo, seconds=0.01)
    writing = os.open(fifo, os.O_RDWR)  # there is a writer, who writes and does not end
    try:
        os.write(writing, b"A=1\n")
        with pytest.raises(TimeoutError):
            files.read(fifo, seconds=0.01)
    finally:
        os.close(writing)


def test_an_endless_device_is_read_up_to_the_bound() -> None:
    with pytest.raises(OSError, match="more than 1048576 bytes"):
        files.read("/dev/zero")


@pytest.mark.parametrize("path", ["missing", ".", "file/below", "a\0b", "x" * 5000, "\udcff"])
def test_an_unreadable_path_is_an_oserror(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - of whichever kind
        files.read(f"{tmp_path}/{path}")
    assert caught.value.strerror
