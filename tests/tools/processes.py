"""Processes that tests start: each with all that it starts is a group, which ends as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any


def start(command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
    """Start `command` as the leader of a group, and of a session: a Ctrl-C on the terminal is for us to act on."""
    return subprocess.Popen(command, start_new_session=True, **how)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process that `start` gave, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def limited(process: subprocess.Popen[Any], seconds: float = 60.0) -> Iterator[None]:
    """Let something wait for what `process` writes, for at most `seconds`: then all is killed that could write."""
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if late.is_set():
            raise AssertionError(f"not within {seconds:g} s: what {process.args!r} was to write, or its end")
