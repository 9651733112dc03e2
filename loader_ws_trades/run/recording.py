"""Raw frames written into a file, one a line, while a run goes on; `capture` reads them again.

A file whose name ends in `.gz` is a row of gzip members, one for each flush. So it is whole after every flush, whatever
ends the process, and can be appended to. (One stream with sync flushes would be a fifth smaller, but nothing that is
appended to it after a kill could be read by the usual tools.)
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from loader_ws_trades.errors import ConfigurationError

log = logging.getLogger(__name__)

_BUFFER = 1024 * 1024  # bytes of frames that wait for a flush; over it they are written at once

_GZIP = b"\x1f\x8b"


class Recorder:
    """Appends frames to a file. Nobody waits for it, and its failure ends only the recording.

    `write` may be called in any thread, and mostly only remembers; `flush`, about once a second, writes. What was
    flushed is in the file even if the process is killed.

    Invariant: whoever holds `_io` may take `_lock`, never the other way round, so that a slow disk holds up no thread
    that writes, unless `_BUFFER` is full.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: if it cannot be written, or is in use, or does not hold what its name says.
        """
        self._path = Path(path)
        self._is_gzip = self._path.suffix.lower() == ".gz"
        self._lock = threading.Lock()  # of the frames that wait
        self._io = threading.Lock()  # of the file, and of the order in which frames reach it
        self._waiting: list[bytes] = []
        self._size = 0
        self._recorded = 0
        self._file: IO[bytes] | None = self._open()

    @property
    def recorded(self) -> int:
        """Frames that are in the file."""
        return self._recorded

    @property
    def active(self) -> bool:
        """Whether it still records."""
        return self._file is not None

    def write(self, frames: Sequence[bytes]) -> None:
        """Take frames, each JSON.

        A newline in one becomes a space: between JSON's tokens they are the same, and within a string none can stand.
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
        """Write what waits. A disk that is full ends the recording, with one line in the log."""
        with self._io:
            with self._lock:
                frames, self._waiting, self._size = self._waiting, [], 0
            if self._file is None or not frames:
                return
            data = b"".join(frame.replace(b"\n", b" ") + b"\n" for frame in frames)
            self._append(self._file, _member(data) if self._is_gzip else data)
            if self._file is not None:
                self._recorded += len(frames)

    def close(self) -> None:
        """Write what waits, and end. May be called again; frames that come later are let go."""
        self.flush()
        with self._io:
            self._end()

    def _append(self, file: IO[bytes], data: bytes) -> None:
        end = 0
        try:
            end = os.fstat(file.fileno()).st_size
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            log.error(  # noqa: TRY400 (the sentence says it all)
                "Recording into %s has ended with %d frames (%s); the run goes on without it, mend that and start "
                "again to record",
                self._path,
                self._recorded,
                error.strerror,
                extra={"event": "recording_failed", "frames": self._recorded},
            )
            try:
                os.ftruncate(file.fileno(), end)  # no half of a frame or member
            except OSError as second:
                log.debug("The last part of %s cannot be cut off: %s", self._path, second)
            self._end()

    def _end(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            self._waiting, self._size = [], 0
        if file is not None:
            try:
                file.close()
            except OSError as error:
                log.error("%s may lack its end (%s)", self._path, error.strerror, extra={"event": "recording_failed"})  # noqa: TRY400

    def _open(self) -> IO[bytes]:
        try:
            if self._path.exists() and not self._path.is_file():
                raise ConfigurationError(f"--record names {self._path}, which is no regular file; name a file")
            file = self._path.open("a+b", buffering=0)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file name"
            raise ConfigurationError(
                f"--record names {self._path}, which cannot be written ({reason}); name a file in a folder that can"
            ) from error
        try:
            self._prepare(file)
        except BaseException:
            file.close()
            raise
        return file

    def _prepare(self, file: IO[bytes]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"--record names {self._path}, into which another process records; name another file"
            ) from error
        except OSError as error:
            log.debug("%s cannot be locked: %s", self._path, error)
        try:
            self._continue(file)
        except OSError as error:
            raise ConfigurationError(
                f"--record names {self._path}, which cannot be used ({error.strerror}); name another file"
            ) from error

    def _continue(self, file: IO[bytes]) -> None:
        """Make a file that exists ready to be appended to."""
        size = file.seek(0, os.SEEK_END)
        if not size:
            return
        file.seek(0)
        if (file.read(2) == _GZIP) != self._is_gzip:
            held, name = ("no gzip", "without .gz") if self._is_gzip else ("gzip", "that ends in .gz")
            raise ConfigurationError(f"--record names {self._path}, which exists and is {held}; use a name {name}")
        file.seek(size - 1)
        if not self._is_gzip and file.read(1) != b"\n":
            file.write(b"\n")  # what wrote it was killed within a frame


def _member(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=31)
    return deflate.compress(data) + deflate.flush()
