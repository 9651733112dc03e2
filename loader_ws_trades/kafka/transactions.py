"""Transactions around what is produced: opened by the first record, committed by time or count, made again if need be.

The door is a lock. A writer holds it while it produces; the main thread holds it from when a transaction is to end
until it has ended. So nothing is produced then, and the writer is told to come again instead of being blocked.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import RunError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_TRY = 0.1  # seconds for one try to end a transaction, after which it is tried again
_AGAIN = 3  # times in a row that a transaction is made again
_PATIENCE = 0.5  # seconds without an acknowledgement after which the end is put off
_LINES = (30, 600.0)  # log lines, and the seconds they are counted over
_TIMEOUT_MS = 60_000  # librdkafka's default of `transaction.timeout.ms`


class Transactions:
    """The transactions of one producer, one after another.

    `enter`, `keep` and `leave` are called by writers, all else by the main thread.

    Args:
        producer: whose transactions they are.
        settings: after which time and how many records a transaction is committed, and how many it may hold.
        write: produces trades again without asking here, without blocking; how many it took.
        on_undone: called when what the brokers acknowledged since the last commit counts no more.
    """

    def __init__(
        self,
        producer: kafka.Producer,
        settings: Settings,
        write: Callable[[Iterable[Trade]], int],
        on_undone: Callable[[], None],
    ) -> None:
        self._producer = producer
        self._settings = settings
        self._write = write
        self._on_undone = on_undone
        self._door = threading.Lock()
        self._kept: list[Trade] = []  # what the open transaction holds
        self._opened: float | None = None  # when it was begun, on the monotonic clock
        self._again: list[Trade] = []  # what of an aborted one is still to be produced again
        self._aborting = False  # whether the open one is being undone
        self._failures = 0  # in a row
        self._told = Throttle(log, *_LINES)
        self._acknowledged = 0
        self._patience = Deadline(0)
        self._put_off = False  # whether the end waits for the next acknowledgement
        self._hurried = False
        self.ending = False
        """Whether the main thread holds the door."""
        self.committed = 0

    def enter(self) -> bool:
        """Begin to produce, within a transaction; False if that must wait, and then `leave` is not to be called.

        Raises:
            RunError: if no transaction can be begun.
        """
        if len(self._kept) >= self._settings.kafka_queue_records or not self._door.acquire(blocking=False):
            return False
        try:
            if self._opened is None:
                self._begin()
        except BaseException:
            self._door.release()
            raise
        return True

    def keep(self, trades: Iterable[Trade]) -> None:
        """Note what was produced, so that it can be produced again."""
        self._kept.extend(trades)

    def leave(self) -> None:
        """Produce no more for now."""
        self._door.release()

    def hurry(self) -> None:
        """From now on commit at once what was produced."""
        self._hurried = True

    def turn(self, acknowledged: int, waiting: Callable[[], int]) -> None:
        """Do what the time has come for.

        Args:
            acknowledged: how many records the brokers have acknowledged so far.
            waiting: how many they have not, asked when nothing more is produced.

        Raises:
            RunError: if transactions cannot go on.
        """
        moved, self._acknowledged = acknowledged != self._acknowledged, acknowledged
        if not self.ending:
            if moved:
                self._put_off = False  # also when it is too early to end: no other acknowledgement may come
            if not self._due or self._put_off:
                return
            self._door.acquire()
            self.ending, self._patience = True, Deadline(_PATIENCE)
        if self._aborting:
            self._undo()
        elif self._again:
            del self._again[: self._write(self._again)]
        elif not waiting():
            self._commit()
        elif moved:
            self._patience = Deadline(_PATIENCE)
        elif self._patience.passed:
            # The brokers are away: the stream goes on into the producer's queue.
            self._put_off = True
            self._open_door()

    def explained(self) -> RunError:
        """Why this producer is fenced off, in words: the brokers say "fenced" also when a transaction took too long."""
        limit = float(self._producer.properties.get("transaction.timeout.ms", _TIMEOUT_MS)) / 1000
        if self._opened is not None and time.monotonic() - self._opened >= limit:
            return RunError(
                f"Kafka ended a transaction that was not committed within transaction.timeout.ms ({limit:g} s), as in "
                f"an outage; check the brokers and {named('transaction_interval')}, then run the loader again"
            )
        return RunError(
            f"Fenced off by a newer loader with the transactional id {self._producer.properties['transactional.id']}; "
            "run one loader at a time for a workflow and its symbol"
        )

    @property
    def _due(self) -> bool:
        if self._opened is None:
            return False
        return (
            self._hurried
            or len(self._kept) >= min(self._settings.transaction_records, self._settings.kafka_queue_records)
            or time.monotonic() - self._opened >= self._settings.transaction_interval
        )

    def _begin(self) -> None:
        try:
            self._producer.begin_transaction()
        except kafka.KafkaException as error:
            raise kafka.failure(error, "Beginning a transaction") from error
        self._opened = time.monotonic()

    def _open_door(self) -> None:
        self.ending = False
        self._door.release()

    def _commit(self) -> None:
        try:
            if not self._producer.commit_transaction(_TRY):
                return
        except kafka.AbortableError as error:
            self._failures += 1
            if self._failures > _AGAIN:
                raise RunError(f"Kafka did not commit a transaction, tried {_AGAIN} times again: {error}") from error
            again = f"writing its {len(self._kept)} records again"
            self._told.warn("transaction_aborted", f"A transaction was not committed ({error}); {again}")
            self._aborting = True
            return
        self._failures = 0
        self.committed += len(self._kept)
        self._kept = []
        self._opened = None
        self._open_door()

    def give_up(self, timeout: float) -> list[int]:
        """Undo the open transaction, if that can be done in `timeout` seconds; the ids that it held."""
        if self._kept:
            with contextlib.suppress(kafka.AbortableError, RunError):
                self._producer.abort_transaction(timeout)
        return [trade.trade_id for trade in self._kept]

    def _undo(self) -> None:
        try:
            if not self._producer.abort_transaction(_TRY):
                return
        except kafka.AbortableError:
            return
        # A commit was tried once all was acknowledged: no report is to come that would be counted afterwards.
        self._on_undone()
        self._aborting = False
        self._begin()
        self._again = list(self._kept)
