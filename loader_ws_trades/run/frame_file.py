"""Files of raw frames, one a line, plain or gzip: written while a run goes on, and read again by `replay`.

A file whose name ends in `.gz` is a sequence of gzip members, one for each flush. So what was flushed is readable, also
by the usual tools, whatever ends the process, and the file can be appended to. (One stream with sync flushes would be a
fifth smaller, but nothing that is appended after a kill could be read.)
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import logging
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.logs import Events, Throttle

log = logging.getLogger(__name__)
events = Events(log)

MAX_FRAME = 1024 * 1024  # bytes of a line that is read; as much as a frame of the stream may have

_BUFFER = 1024 * 1024  # bytes of frames that wait for a flush; beyond it they are written at once
_CHUNK = 64 * 1024  # bytes read from a file at once
_DECOMPRESSED = 256 * 1024  # bytes decompressed at once
_LEVEL = 6  # of compression

_GZIP = b"\x1f\x8b"
_MEMBER = b"\x1f\x8b\x08"


class FrameWriter:
    """Appends frames to a file. If that fails, only the recording ends, not the run.

    `write` may be called in any thread, and mostly only remembers; `flush` writes, every one to three seconds. What was
    flushed is in the file even if the process is killed.

    Invariant: whoever holds `_file_lock` may take `_lock`, never the other way round, so that a slow disk blocks no
    thread that calls `write` unless `_BUFFER` is full.

    Raises:
        ConfigurationError: if the file cannot be written, is in use, or does not contain what its name says.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._is_gzip = self._path.suffix.lower() == ".gz"
        self._lock = threading.Lock()  # of the frames that wait
        self._file_lock = threading.Lock()  # of the file, and of the order in which frames reach it
        self._waiting: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = self._open()

    def write(self, frames: Sequence[bytes]) -> None:
        """Take frames, each JSON.

        A newline in one becomes a space: JSON allows it only between tokens, where they mean the same.
        """
        with self._lock:
            if self._file is None:
                return
            self._waiting += frames
            self._size += sum(map(len, frames))
            is_full = self._size > _BUFFER
        if is_full:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A full disk ends the recording, with one line in the log."""
        with self._file_lock:
            with self._lock:
                frames, self._waiting, self._size = self._waiting, [], 0
            if self._file is None or not frames:
                return
            data = b"".join(frame.replace(b"\n", b" ") + b"\n" for frame in frames)
            try:
                _append(self._file, gzip.compress(data, _LEVEL) if self._is_gzip else data)
            except OSError as error:
                events.error(
                    "recording_failed",
                    f"Recording to {self._path} has stopped ({error.strerror}); the run continues without it, restart "
                    "it to record again",
                )
                self._end()

    def close(self) -> None:
        """Write what waits, and end. May be called again; later frames are ignored."""
        self.flush()
        with self._file_lock:
            self._end()

    def _end(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            self._waiting, self._size = [], 0
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _open(self) -> IO[bytes]:
        with contextlib.ExitStack() as stack:
            try:
                if self._path.exists() and not self._path.is_file():
                    raise ConfigurationError(f"Cannot record to {self._path}: not a regular file; give --record a file")
                file = stack.enter_context(self._path.open("a+b", buffering=0))
                self._lock_file(file)
                self._prepare(file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "invalid file name"
                raise ConfigurationError(
                    f"Cannot record to {self._path} ({reason}); give --record a file in a writable directory"
                ) from error
            stack.pop_all()
        return file

    def _lock_file(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"Cannot record to {self._path}: another process is recording to it; give --record another file"
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", self._path, error)

    def _prepare(self, file: IO[bytes]) -> None:
        """Make a file that exists ready to be appended to."""
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(0)
        if (file.read(2) == _GZIP) != self._is_gzip:
            kind, name = ("not gzip", "without .gz") if self._is_gzip else ("gzip", "that ends in .gz")
            raise ConfigurationError(
                f"Cannot record to {self._path}: it exists and is {kind}; give --record a name {name}"
            )
        file.seek(size - 1)
        if not self._is_gzip and file.read(1) != b"\n":
            file.write(b"\n")  # its writer was killed within a frame


def _append(file: IO[bytes], data: bytes) -> None:
    end = os.fstat(file.fileno()).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), end)  # no half of a frame or member
        raise


def read_frames(path: str | Path) -> Iterator[list[bytes]]:
    """The frames of a file, one a line, plain or gzip whatever its name; some hundreds at a time.

    Blank lines are skipped, as are lines longer than `MAX_FRAME`, with a warning. Of a gzip file that was cut off or
    damaged all readable whole lines are returned, with a warning.

    Raises:
        ConfigurationError: if the file cannot be opened.
        RunError: if reading it fails later.
    """
    warnings = Throttle(log, per_kind=3)
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "invalid file name"
        raise ConfigurationError(f"{path} cannot be read ({reason}); give a readable file of frames") from error
    with file:
        try:
            first = file.read(_CHUNK)
            if first.startswith(_GZIP):
                yield from _lines(path, _decompressed(path, file, first, warnings), warnings)
            else:
                yield from _lines(path, chain([first], iter(partial(file.read, _CHUNK), b"")), warnings)
        except OSError as error:
            raise RunError(f"Reading {path} failed ({error.strerror}); check the disk and run again") from error


def _lines(path: str | Path, parts: Iterable[bytes | None], warnings: Throttle) -> Iterator[list[bytes]]:
    """Cut what is read into lines; after None, where some of it is lost, the line that had begun is dropped."""
    rest = b""
    is_skipping = False  # the rest of a line that is too long
    for part in chain(parts, [b"\n"]):
        if part is None:
            rest, is_skipping = b"", False
            continue
        *lines, rest = (rest + part).split(b"\n")
        if lines and is_skipping:
            del lines[0]
            is_skipping = False
        if max(map(len, lines), default=0) > MAX_FRAME or (len(rest) > MAX_FRAME and not is_skipping):
            line = f"{path} has a line of more than {MAX_FRAME} bytes, which is skipped"
            warnings.warn("recording_line_too_long", line)
        is_skipping |= len(rest) > MAX_FRAME
        if is_skipping:
            rest = b""
        if frames := [line for line in lines if line.strip() and len(line) <= MAX_FRAME]:
            yield frames


def _decompressed(path: str | Path, file: IO[bytes], data: bytes, warnings: Throttle) -> Iterator[bytes | None]:
    """The contents of consecutive gzip members; None where some of it is lost."""
    stream = zlib.decompressobj(wbits=31)
    while data:
        try:
            content = stream.decompress(data, _DECOMPRESSED)
        except zlib.error as error:
            warnings.warn("recording_cut", f"{path} is damaged ({error}); its other frames are used")
            yield None
            data, stream = _next_member(file, data[1:]), zlib.decompressobj(wbits=31)
            if not data:
                return
            continue
        yield content
        if stream.eof:
            # Zeros may pad the end.
            data = stream.unused_data.lstrip(b"\0") or file.read(_CHUNK).lstrip(b"\0")
            if data:
                stream = zlib.decompressobj(wbits=31)
        else:
            data = stream.unconsumed_tail or file.read(_CHUNK)
    if not stream.eof:
        yield stream.flush()
        warnings.warn("recording_cut", f"{path} is cut off; its whole frames are used")
        yield None


def _next_member(file: IO[bytes], data: bytes) -> bytes:
    """What is read from the next start of a gzip member on; empty at the end."""
    while (found := data.find(_MEMBER)) < 0:
        more = file.read(_CHUNK)
        if not more:
            return b""
        data = data[-len(_MEMBER) + 1 :] + more
    return data[found:]
