"""Loaders whose standard error cannot be written to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.tools.loader import Loader

_REDIRECTIONS = {"a full disk": "2>/dev/full", "closed": "2>&-", "all closed": "0<&- 1>&- 2>&-"}
_LEFT, _FULL = "a reader who left", "a full pipe"

WAYS = (_FULL, _LEFT, *_REDIRECTIONS)
"""What standard error may be."""


def redirected(to: str) -> type[Loader]:
    """A loader that a shell starts with this redirection."""

    class Redirected(Loader):
        interpreter = "/bin/sh"
        launcher = ("-c", f'exec "$0" -m loader_ws_trades "$@" {to}', sys.executable)

    return Redirected


@contextmanager
def unread(way: str) -> Iterator[type[Loader]]:
    """Loaders whose standard error is one of `WAYS`."""
    if way in _REDIRECTIONS:
        yield redirected(_REDIRECTIONS[way])
        return
    with ExitStack() as stack:
        reading, writing = _full_pipe()
        stack.callback(os.close, writing)
        if way == _LEFT:
            os.close(reading)
        else:
            stack.callback(os.close, reading)
        yield type("Unread", (Loader,), {"stderr": writing})


def _full_pipe() -> tuple[int, int]:
    """The ends of a full pipe that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while os.write(writing, bytes(size)):
                pass
    os.set_blocking(writing, True)
    return reading, writing
