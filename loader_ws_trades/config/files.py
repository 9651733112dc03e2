"""Reads files that a user names, which may be pipes or devices, within bounds of size and time."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

from loader_ws_trades.lifecycle import Deadline

_PIECE = 65536


def read(path: str | Path, *, most: int = 1 << 20, seconds: float = 30.0) -> bytes:
    """The contents of a file; a pipe is read until its writer closes it.

    Raises:
        OSError: if it cannot be read, holds more than `most` bytes, or has not ended within `seconds`.
    """
    try:
        # Otherwise opening a FIFO would wait forever for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # with a NUL, or not to be encoded
        raise OSError(errno.EINVAL, "not a file name") from error
    try:
        return _to_the_end(descriptor, most, seconds)
    finally:
        os.close(descriptor)


def _to_the_end(descriptor: int, most: int, seconds: float) -> bytes:
    deadline = Deadline(seconds)
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    found = bytearray()
    # A FIFO without a writer is not ready, although a read would return end-of-file at once.
    while ready.poll(deadline.remaining * 1000):
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            continue
        if not piece:
            return bytes(found)
        found += piece
        if len(found) > most:
            raise OSError(errno.EFBIG, f"more than {most} bytes")
    raise TimeoutError(errno.ETIMEDOUT, f"its writer did not finish within {seconds:g} s")
