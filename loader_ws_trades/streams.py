"""Standard streams that never block or fail a run, whoever reads them; imported first, so it imports little."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

_STDERR = 2  # the file descriptor
_MOST = 1 << 20  # bytes that are buffered at most
_END = 1.0  # seconds that the process waits at exit for what is not written

LOW, NORMAL, HIGH = range(3)  # ranks of lines: when the buffer is full, the lowest is dropped first


def prepare() -> None:
    """Open standard streams that are closed, and replace `sys.stderr` by a `StandardError`."""
    open_closed()
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    sys.stderr = errors = StandardError(LineQueue(), encoding, _write)
    # At exit, because `sys.excepthook` writes after `main` has ended.
    atexit.register(errors.finish, _END)


def leave(code: int) -> NoReturn:
    """End the process with this code once its log is written, at most 1 s later.

    Python's own way to the end resets the handlers of signals and waits for what libraries do.
    """
    if isinstance(sys.stderr, StandardError):
        sys.stderr.finish(_END)
    os._exit(code)


def open_closed() -> None:
    """Open standard descriptors that are closed, or the first file or socket would get their numbers.

    Standard output is opened read-only, so that writing records to it fails instead of losing them.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        if not _is_open(descriptor):
            os.open(os.devnull, mode)  # takes the lowest free number


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def dropped() -> int:
    """How many lines for standard error were dropped."""
    return sys.stderr.dropped if isinstance(sys.stderr, StandardError) else 0


class LineQueue:
    """A bounded queue of lines; when it is full, lines of a low rank make room for others."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lines: tuple[deque[tuple[int, bytes]], ...] = (deque(), deque(), deque())  # by rank, with their order
        self._size = 0
        self._order = 0
        self.dropped = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def put(self, line: bytes, rank: int) -> None:
        """Queue `line`. If there is no room, the oldest lines of the lowest rank are dropped, possibly this one."""
        while self._size + len(line) > self._most:
            lowest = next((lines for lines in self._lines[: rank + 1] if lines), None)
            self.dropped += 1
            if not lowest:
                return
            self._size -= len(lowest.popleft()[1])
        self._order += 1
        self._lines[rank].append((self._order, line))
        self._size += len(line)

    def take(self) -> bytes:
        """Remove the oldest line."""
        _, line = min((lines for lines in self._lines if lines), key=lambda lines: lines[0]).popleft()
        self._size -= len(line)
        return line


class StandardError(io.TextIOWrapper):
    """Standard error, written by a thread, so that writing to it never blocks and never fails.

    What cannot be written, or is not read in time, is dropped and counted.

    Args:
        queue: the buffer.
        encoding: of the text.
        write: writes some of the data, as `os.write` does.
    """

    def __init__(self, queue: LineQueue, encoding: str, write: Callable[[bytes], int]) -> None:
        super().__init__(
            io.BufferedWriter(_Raw(self)), encoding=encoding, errors="backslashreplace", line_buffering=True
        )
        self._queue = queue
        self._write_some = write
        self._changed = threading.Condition()  # held briefly, never while writing
        self._thread: threading.Thread | None = None
        self._since: float | None = None  # since when the current line is being written
        self._reported = 0  # dropped lines reported so far
        self._ended = False
        self.note: Callable[[int], str] = "{} lines of the log were dropped\n".format
        """Makes the line that reports how many were dropped."""

    @property
    def dropped(self) -> int:
        """How many lines were dropped so far."""
        return self._queue.dropped

    @property
    def waiting(self) -> bool:
        """Whether something is not written yet."""
        return self._since is not None or bool(self._queue)

    def put(self, line: bytes, rank: int) -> None:
        """Queue a line."""
        if self._ended:
            return  # the interpreter may have ended the thread while it held the lock
        with self._changed:
            self._queue.put(line, rank)
            if not self._thread:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def put_text(self, text: str, rank: int) -> None:
        """Queue text, in the encoding of the stream."""
        self.put(text.encode(self.encoding, "backslashreplace"), rank)

    def finish(self, seconds: float) -> None:
        """Wait at most `seconds` until all is written; not at all for a line that has been stuck that long."""
        self.flush()
        end = time.monotonic() + seconds
        with self._changed:
            while self.waiting:
                left = min(end, (self._since or end) + seconds) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._ended = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if self._ended:
                        return
                    self._changed.wait()
                self._since = time.monotonic()
                line, dropped = self._queue.take(), self._queue.dropped
            if dropped > self._reported and self._write_all(self.note(dropped - self._reported).encode()):
                self._reported = dropped
            written = self._write_all(line)
            with self._changed:
                self._since = None
                self._queue.dropped += not written
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> bool:
        """Write all of it, however long that takes; whether it succeeded."""
        with contextlib.suppress(OSError):
            while data:
                data = data[self._write_some(data) :]
        return not data


def _write(data: bytes) -> int:
    """As `os.write`, but blocking even if another process has made the descriptor non-blocking."""
    try:
        return os.write(_STDERR, data)
    except BlockingIOError:
        select.select([], [_STDERR], [])
        return 0


class _Raw(io.RawIOBase):
    """Takes what is written to a `StandardError` as to any stream: progress, errors, tracebacks."""

    def __init__(self, errors: StandardError) -> None:
        super().__init__()
        self._errors = errors

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        line = bytes(data)  # type: ignore[call-overload]
        self._errors.put(line, LOW)
        return len(line)

    def fileno(self) -> int:
        return _STDERR

    def isatty(self) -> bool:
        return os.isatty(_STDERR)
