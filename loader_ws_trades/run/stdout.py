"""The sink of `--stdout`: records to standard output, one a line."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable

from loader_ws_trades.errors import ConfigurationError, EndOfOutputError, RunError
from loader_ws_trades.lifecycle import Deadline, Startup, spawn
from loader_ws_trades.pipeline.trade import Trade, record_encoder

_STDOUT = 1  # the file descriptor: what Python buffers above it could not be left to a daemon thread
_QUEUED = 50_000  # records that may wait for the reader


class Output:
    """Writes the records of trades of `symbol`, in a thread: a reader that does not read must not block the run."""

    def __init__(self, symbol: str) -> None:
        self._encode = record_encoder(symbol)
        self.accepted = 0  # moved by `put` alone
        self.outages = 0
        self.waiting_since = None
        """A reader may take its time."""
        self._batches: deque[tuple[bytes, list[int]]] = deque()  # the one that is being written is the first
        self._waiting = threading.Semaphore(0)
        self._moved = threading.Event()
        self._failure: EndOfOutputError | RunError | None = None
        self.delivered = 0  # moved by the writing thread alone

    def __str__(self) -> str:
        return "standard output"

    def open(self, _startup: Startup) -> None:
        """Begin to write what is put.

        Raises:
            ConfigurationError: if nothing can be written there.
        """
        try:
            os.write(_STDOUT, b"")  # a descriptor that was closed is open for reading alone
        except OSError as error:
            raise ConfigurationError(
                f"Standard output cannot be written to ({error.strerror}); run --stdout where something reads it"
            ) from error
        spawn("output", self._write, self._on_death)

    def put(self, trades: Iterable[Trade]) -> int:
        """Hand trades to the writing thread, without blocking; how many it took, fewer when too many wait."""
        taken = list(itertools.islice(trades, _QUEUED - self.in_flight))
        if taken:
            lines = "".join(f"{self._encode(trade)}\n" for trade in taken)
            self.accepted += len(taken)
            self._batches.append((lines.encode(), [trade.trade_id for trade in taken]))
            self._waiting.release()
        return len(taken)

    def _write(self) -> None:
        while True:
            self._waiting.acquire()
            lines, ids = self._batches[0]
            while lines:
                lines = lines[os.write(_STDOUT, lines) :]
            self._batches.popleft()
            self.delivered += len(ids)
            self._moved.set()

    def _on_death(self, error: BaseException) -> None:
        if isinstance(error, BrokenPipeError):
            self._failure = EndOfOutputError("The reader of standard output has had enough")
        else:
            self._failure = RunError(f"Standard output cannot be written to ({error}); check where it leads")
        self._moved.set()

    def poll(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds, or until something was written.

        Raises:
            EndOfOutputError: once nobody reads any more.
            RunError: if it cannot be written.
        """
        self._moved.wait(timeout)
        self._moved.clear()
        if self._failure:
            raise self._failure

    @property
    def in_flight(self) -> int:
        """Records that wait to be written; none where nobody reads any more."""
        return 0 if isinstance(self._failure, EndOfOutputError) else self.accepted - self.delivered

    def drain(self) -> None:
        """Nothing to do: what is put is written at once."""

    def give_up(self, _deadline: Deadline) -> list[int]:
        """The ids of what waits, some of which may be written; none where nobody reads any more."""
        if isinstance(self._failure, EndOfOutputError):
            return []
        return [trade_id for _, ids in self._batches.copy() for trade_id in ids]
