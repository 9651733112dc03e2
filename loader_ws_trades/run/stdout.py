"""The sink of `--stdout`: records to standard output, one a line."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence

from loader_ws_trades.errors import ConfigurationError, EndOfOutputError, LoaderError, RunError
from loader_ws_trades.lifecycle import Deadline, Startup, Wakeup, spawn
from loader_ws_trades.pipeline.interfaces import Undelivered
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.trade import Trade

_STDOUT = 1  # the file descriptor: a daemon thread could not be trusted with what Python buffers
_QUEUED = 50_000  # maximum records buffered for the reader


class Output:
    """Writes records in a thread: a reader that is stuck must not block the run."""

    def __init__(self) -> None:
        self.accepted = 0  # moved by `put` alone
        self.outages = 0
        self.served_late = 0
        self.delivery_time = 0.0
        self.waiting_since = None
        """Never: a slow reader is not an outage."""
        self._batches: deque[tuple[bytes, Lane, list[int]]] = deque()  # the one that is being written is the first
        self._waiting = threading.Semaphore(0)
        self._moved = Wakeup()
        self._failure: EndOfOutputError | RunError | None = None
        self.delivered = 0  # moved by the writing thread alone

    def __str__(self) -> str:
        return "standard output"

    def open(self, _startup: Startup) -> None:
        """Start the writing thread.

        Raises:
            ConfigurationError: if it cannot be written to.
        """
        try:
            os.write(_STDOUT, b"")  # a closed descriptor was reopened read-only
        except OSError as error:
            raise ConfigurationError(
                f"Cannot write to standard output ({error.strerror}); redirect it to a file or a pipe"
            ) from error
        spawn("output", self._write, self._on_death)

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        """Queue trades, without blocking; how many were accepted, fewer if the queue is full."""
        taken = trades[: _QUEUED - self.in_flight]
        if taken:
            lines = "".join(f"{lane.encode(trade)}\n" for trade in taken)
            self.accepted += len(taken)
            lane.accepted += len(taken)
            self._batches.append((lines.encode(), lane, [trade.trade_id for trade in taken]))
            self._waiting.release()
        return len(taken)

    def _write(self) -> None:
        while True:
            self._waiting.acquire()
            lines, lane, ids = self._batches[0]
            while lines:
                lines = lines[os.write(_STDOUT, lines) :]
            self._batches.popleft()
            self.delivered += len(ids)
            lane.delivered += len(ids)
            self._moved.set()

    def _on_death(self, error: BaseException) -> None:
        if isinstance(error, BrokenPipeError):
            self._failure = EndOfOutputError("The reader of standard output has gone away")
        else:
            self._failure = RunError(f"Cannot write to standard output ({error}); check where it goes")
        self._moved.set()

    def poll(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds, or until something was written.

        Raises:
            EndOfOutputError: once the reader has gone away.
            RunError: if it cannot be written.
        """
        self._moved.wait(timeout)
        if self._failure:
            raise self._failure

    def wake(self) -> None:
        """End the wait of `poll`; safe in any thread and in a signal handler."""
        self._moved.set()

    @property
    def in_flight(self) -> int:
        """Records that are not written yet; none once the reader has gone away."""
        return 0 if isinstance(self._failure, EndOfOutputError) else self.accepted - self.delivered

    def admit(self, _lanes: Sequence[Lane], _startup: Startup) -> dict[Lane, LoaderError]:
        """Every pair can be written."""
        return {}

    def drain(self) -> None:
        """Nothing to do: records are written at once."""

    def give_up(self, _deadline: Deadline) -> list[Undelivered]:
        """The ids of what is queued, some of which may be written; none once the reader has gone away."""
        if isinstance(self._failure, EndOfOutputError):
            return []
        return [(lane.symbol, trade_id) for _, lane, ids in self._batches.copy() for trade_id in ids]
