"""The sink of `DELIVERY=transactional`: trades in transactions, committed by time or count, rewritten after an abort.

The transaction lock keeps a transaction closed while it ends: `put` holds it while it produces, the main thread from
when a transaction is due until it has ended. So nothing is produced meanwhile, and `put` takes nothing instead of
blocking.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from confluent_kafka import KafkaException

from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.kafka.errors import AbortableError, FencedError, run_error
from loader_ws_trades.kafka.publisher import Publisher
from loader_ws_trades.kafka.startup import retry_until_ready
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.logs import Throttle
from loader_ws_trades.pipeline.interfaces import Undelivered
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_ATTEMPT = 0.1  # seconds for one call to commit or abort, which is repeated
_RETRIES = 3  # times in a row that a transaction is written again
_PATIENCE = 0.5  # seconds without an acknowledgement after which the commit is postponed
_LINES = (30, 600.0)  # log lines, and the seconds they are counted over
_TIMEOUT_MS = 60_000  # librdkafka's default of `transaction.timeout.ms`


def make_publisher(settings: Settings, kind: str = "") -> Publisher:
    """The Kafka sink for the delivery guarantee that is set."""
    return (TransactionalPublisher if settings.delivery == "transactional" else Publisher)(settings, kind)


class TransactionalPublisher(Publisher):
    """Writes trades in transactions, one after another; a record is delivered once it is committed."""

    def __init__(self, settings: Settings, kind: str = "") -> None:
        super().__init__(settings, kind)
        self._lock = threading.Lock()
        self._uncommitted: list[tuple[Lane, Sequence[Trade]]] = []  # what the open transaction holds
        self._held = 0  # trades in it
        self._opened: float | None = None  # when it was begun, on the monotonic clock
        self._to_rewrite: deque[tuple[Lane, Sequence[Trade]]] = deque()  # of an aborted one
        self._aborting = False
        self._failures = 0  # in a row
        self._throttle = Throttle(log, *_LINES)
        self._seen_acknowledged = 0
        self._patience = Deadline(0)
        self._postponed = False  # whether the commit waits for the next acknowledgement
        self._ending = False  # whether the main thread holds the lock
        self._committed = 0

    def open(self, startup: Startup) -> None:
        """As `Publisher.open`; then fence off an older loader and end what it left open."""
        super().open(startup)
        # Each time the producer of that moment is polled, as it may have been replaced.
        retry_until_ready(self._init_transactions, startup, lambda seconds: self._producer.poll(seconds))  # noqa: PLW0108

    def _init_transactions(self) -> None:
        try:
            self._producer.init_transactions()
        except ConfigurationError:
            self._producer = self._make_producer()  # a rejected one stays rejected, whatever is granted later
            raise

    def put(self, trades: Sequence[Trade], lane: Lane) -> int:
        """As `Publisher.put`; takes nothing while a transaction ends or holds all that can be written again."""
        if self._held >= self._settings.kafka_queue_records or not self._lock.acquire(blocking=False):
            return 0
        try:
            if self._opened is None:
                self._begin()
                self._hurry.set()  # a turn from now on ends when the commit is due
            taken = super().put(trades, lane)
            self._hold(trades[:taken], lane)
            if self._is_urgent:
                self._hurry.set()
        except RunError as error:
            self._put_error = error
            self._hurry.set()
            return 0
        finally:
            self._lock.release()
        return taken

    def _hold(self, trades: Sequence[Trade], lane: Lane) -> None:
        self._uncommitted.append((lane, trades))
        self._held += len(trades)

    def _report_for(self, _lane: Lane) -> None:
        """The default report: what counts is the commit."""

    def _begin(self) -> None:
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise run_error(error, "Beginning a transaction") from error
        self._opened = time.monotonic()

    def _serve(self, timeout: float) -> None:
        try:
            super()._serve(timeout)
            self._advance()
        except FencedError as error:
            raise self._fenced() from error

    def _advance(self) -> None:
        """End the open transaction step by step once it is due."""
        progress, self._seen_acknowledged = self._acknowledged != self._seen_acknowledged, self._acknowledged
        if not self._ending:
            if progress:
                self._postponed = False  # also when it is too early to end: no other acknowledgement may come
            if not self._due or self._postponed:
                return
            self._lock.acquire()
            self._ending, self._patience = True, Deadline(_PATIENCE)
        if self._aborting:
            self._abort()
        elif self._to_rewrite:
            self._rewrite()
        elif not self._unacknowledged:
            self._commit()
        elif progress:
            self._patience = Deadline(_PATIENCE)
        elif self._patience.passed:
            # The brokers are away: let the stream continue into the producer's queue.
            self._postponed = True
            self._reopen()

    @property
    def _is_urgent(self) -> bool:
        return self._ending or self._is_full or super()._is_urgent

    @property
    def _is_full(self) -> bool:
        return self._held >= min(self._settings.transaction_records, self._settings.kafka_queue_records)

    @property
    def _due(self) -> bool:
        if self._opened is None:
            return False
        return self._draining or self._is_full or time.monotonic() - self._opened >= self._settings.transaction_interval

    def _commit(self) -> None:
        try:
            if not self._producer.commit_transaction(_ATTEMPT):
                return
        except AbortableError as error:
            self._failures += 1
            if self._failures > _RETRIES:
                raise RunError(f"Kafka did not commit a transaction after {_RETRIES} retries: {error}") from error
            text = f"A transaction was not committed ({error}); writing its {self._held} records again"
            self._throttle.warn("transaction_aborted", text)
            self._aborting = True
            return
        self._failures = 0
        self._committed += self._held
        for lane, trades in self._uncommitted:
            lane.delivered += len(trades)
        self._uncommitted, self._held = [], 0
        self._opened = None
        self._reopen()

    def _abort(self) -> None:
        try:
            if not self._producer.abort_transaction(_ATTEMPT):
                return
        except AbortableError:
            return
        # The commit was tried when everything was acknowledged, so no report is pending that would count afterwards.
        self._acknowledged = self._committed
        self._aborting = False
        self._begin()
        self._to_rewrite = deque(self._uncommitted)

    def _rewrite(self) -> None:
        while self._to_rewrite:
            lane, trades = self._to_rewrite[0]
            taken = super().put(trades, lane)
            self.accepted -= taken  # they are counted already
            lane.accepted -= taken
            if taken < len(trades):
                self._to_rewrite[0] = lane, trades[taken:]
                return
            self._to_rewrite.popleft()

    def _reopen(self) -> None:
        self._ending = False
        self._lock.release()

    def _fenced(self) -> RunError:
        """Why this producer is fenced: the brokers call it so, too, when a transaction took too long."""
        limit = float(self._producer.properties.get("transaction.timeout.ms", _TIMEOUT_MS)) / 1000
        if self._opened is not None and time.monotonic() - self._opened >= limit:
            return RunError(
                f"Kafka aborted a transaction not committed within transaction.timeout.ms ({limit:g} s), as in "
                f"an outage; check the brokers and {named('transaction_interval')}, then run the loader again"
            )
        return RunError(
            f"Fenced off by a newer loader with the transactional id {self._producer.properties['transactional.id']}; "
            "run one loader at a time for each workflow and symbol"
        )

    @property
    def delivered(self) -> int:
        """Records that are committed."""
        return self._committed

    @property
    def _has_pending(self) -> bool:
        return self._ending or super()._has_pending

    @property
    def served_late(self) -> int:
        """None: a delivery is a commit, which is made here."""
        return 0

    def give_up(self, deadline: Deadline) -> list[Undelivered]:
        """Discard what is not committed, and abort its transaction if there is time; the trades."""
        super().give_up(deadline)
        if self._uncommitted:
            with contextlib.suppress(AbortableError, RunError):
                self._producer.abort_transaction(deadline.remaining)
        return [(lane.symbol, trade.trade_id) for lane, trades in self._uncommitted for trade in trades]
