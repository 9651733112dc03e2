"""Signals as reasons to stop a run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from types import FrameType

from loader_ws_trades.lifecycle import StopReason, Task

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_LAST_MOMENT = 1.9  # seconds after a second signal at which the process is ended if it still runs
_THREAD_END = 0.5  # seconds to wait for the watching thread


@contextlib.contextmanager
def signals_to(mailbox: SimpleQueue[StopReason]) -> Iterator[None]:
    """Put a reason into the mailbox for each SIGTERM or SIGINT; a second one limits the life of the process to 2 s.

    Once the block has ended, they are ignored: the exit code is decided, and the process about to end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        mailbox.put(StopReason.by_signal(number))

    with _exit_after_second_signal():
        for number in _NUMBERS:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number in _NUMBERS:
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _exit_after_second_signal() -> Iterator[None]:
    """End the process `_LAST_MOMENT` after a second signal, whatever its threads are doing.

    A handler runs only once the main thread is back in Python, and a library may hold it for long; the wake-up
    descriptor is written to at once.
    """
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while seen < 2 and (numbers := woken.recv(64)):
            seen += len(numbers)
        if seen >= 2 and not ended.wait(_LAST_MOMENT):
            os._exit(1)

    woken, wake = socket.socketpair()
    wake.setblocking(False)
    with woken, wake:
        before = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        watcher = Task("signals", watch)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            ended.set()
            wake.close()
            watcher.join(_THREAD_END)
