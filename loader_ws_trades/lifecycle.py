"""Threads whose death is a value, deadlines, backoff, and the reasons to end a run. All times are monotonic."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

SLACK = 30.0  # seconds added to each limit, for a machine that is short of CPU


class Task:
    """A named daemon thread that runs one function; its end, with or without an exception, is a `Future`.

    An exception also goes to `on_death`, in that thread.
    """

    def __init__(
        self, name: str, target: Callable[[], None], on_death: Callable[[BaseException], None] = lambda _error: None
    ) -> None:
        self.future: Future[None] = Future()
        self._target = target
        self._on_death = on_death
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._target()
        except BaseException as error:
            self.future.set_exception(error)
            self._on_death(error)
        else:
            self.future.set_result(None)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread's end; whether it has ended."""
        self._thread.join(max(0.0, timeout))
        return not self._thread.is_alive()


def spawn(name: str, target: Callable[[], None], on_death: Callable[[BaseException], None]) -> Task:
    """Run `target` in a thread called `name`; an exception that ends it goes to `on_death`, in that thread."""
    task = Task(name, target, on_death)
    task.start()
    return task


class Deadline:
    """A moment, `seconds` from now, that several steps share."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.remaining == 0.0

    def shorten(self, seconds: float) -> None:
        """Bring the end to at most `seconds` from now."""
        self._end = min(self._end, time.monotonic() + seconds)


class Wakeup:
    """Ends the wait of a thread, from any thread and from a signal handler, where `threading.Event` may deadlock."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """End the wait, or the next one if nothing waits."""
        if self._calls.empty():
            self._calls.put(None)

    def wait(self, timeout: float) -> None:
        """Wait for `set`, for at most `timeout` seconds."""
        with contextlib.suppress(Empty):
            self._calls.get(timeout > 0, timeout)


class Backoff:
    """Delays between attempts: exponential, with full jitter, capped.

    Full jitter draws each delay from 0 to the current bound, so that many clients that are cut off at once do not
    reconnect at once.
    """

    def __init__(self, first: float, cap: float, rng: random.Random | None = None) -> None:
        self._first = first
        self._cap = cap
        self._rng = rng or random.Random()
        self._failures = 0

    def next(self) -> float:
        """The seconds to wait before the next attempt."""
        bound = min(self._cap, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._rng.uniform(0.0, bound)

    def reset(self) -> None:
        """Start over from the first delay, after a success."""
        self._failures = 0


class Startup(NamedTuple):
    """How long the start waits for Kafka."""

    deadline: Deadline  # by when brokers must have answered
    grace: float  # seconds to retry what the cluster rejects
    stopped: Callable[[], bool] = lambda: False  # checked between attempts: whether the start is cancelled


class Activity(NamedTuple):
    """What a thread is doing."""

    who: str
    what: str  # continues a sentence after "has"
    since: float  # seconds, monotonic
    limit: float  # seconds that it may last; 0 if it must not be at all


@dataclass(frozen=True)
class StopReason:
    """Why a run ends: the status and message of its last event, and its exit code."""

    status: str
    message: str
    exit_code: int

    @classmethod
    def complete(cls, message: str) -> StopReason:
        """A bounded run is complete."""
        return cls("finished", message, 0)

    @classmethod
    def by_command(cls) -> StopReason:
        """A stop command for our `queue_id` arrived."""
        return cls("interrupted", "Stopped by command", 0)

    @classmethod
    def by_signal(cls, number: int) -> StopReason:
        """A signal arrived; the exit code is the shell's for it, so that a Job restarts the loader."""
        return cls("interrupted", f"Stopped by {signal.Signals(number).name}", 128 + number)

    @property
    def by_a_signal(self) -> bool:
        """Whether it was a signal."""
        return self.exit_code > 128

    @property
    def severity(self) -> int:
        """An error outranks any other reason, and an error of the configuration any other error."""
        return self.exit_code if self.status == "error" else 0

    @classmethod
    def failed(cls, message: str, exit_code: int = 1) -> StopReason:
        """The run cannot continue."""
        return cls("error", message, exit_code)


class Mailbox(SimpleQueue[StopReason]):
    """Where reasons to stop arrive, from any thread and from signal handlers."""

    on_put: Callable[[], None] | None = None
    """Called after each one; wakes the thread that acts on them."""

    def put(self, item: StopReason, block: bool = True, timeout: float | None = None) -> None:
        """As the queue's; `put_nowait` would wake nobody."""
        super().put(item, block, timeout)
        if self.on_put:
            self.on_put()
