"""A scripted producer of confluent-kafka on the fake clock; nothing is sent anywhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka import producer, publisher
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.kafka.transactions import make_publisher
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline
from tests.unit.test_config import REQUIRED

ABORTABLE = KafkaError(KafkaError.INVALID_TXN_STATE, "refused", txn_requires_abort=True)
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "no answer", retriable=True)
FENCED = KafkaError(KafkaError._FENCED, "fenced", fatal=True)


class Record:
    """A record as a delivery report shows it."""

    def __init__(self, parts: Sequence[Any], report: Callable[..., None], clock: FakeClock) -> None:
        self._clock, self._produced_at = clock, clock.now
        self._topic, value, self.key, _, own_report, _, self.timestamp, *rest = parts
        self.headers: dict[str, str] | None = dict(rest[0]) if rest else None
        self.report = own_report or report
        self._value: bytes = value.encode()

    def value(self) -> bytes:
        return self._value

    def topic(self) -> str:
        return str(self._topic)

    def latency(self) -> float:
        return self._clock.now - self._produced_at

    @property
    def trade_id(self) -> int:
        found: int = msgspec.json.decode(self._value)["trade_id"]
        return found


class ScriptedProducer:
    """Takes what there is `room` for; the test acknowledges, rejects, and decides how transactions end."""

    def __init__(self, properties: dict[str, Any], clock: FakeClock) -> None:
        self.properties = properties
        self.room = 1_000_000
        self.refusing: KafkaError | None = None
        """What `produce` raises."""
        self.errors: deque[KafkaError] = deque()
        """What `poll` raises next, before it serves reports."""
        self.commits: deque[KafkaError] = deque()
        """How the next commits fail."""
        self.aborts: deque[KafkaError] = deque()
        self.begins: deque[KafkaError] = deque()
        self.purge_takes = 0.0
        """Seconds until discarded records are reported."""
        self.on_produce: Callable[[], object] = lambda: None
        self.produced: list[Record] = []
        self.asked_at: list[float] = []
        """When it was asked for metadata."""
        self.log: list[int] = []
        """The ids that a reader sees."""
        self.began = self.aborted = 0
        self._report = properties["on_delivery"]
        self._clock = clock
        self._waiting: deque[Record] = deque()
        self._reports: deque[tuple[KafkaError | None, Record]] = deque()
        self._open: list[int] | None = None  # what is written in the open transaction

    def __len__(self) -> int:
        return len(self._waiting) + len(self._reports)

    def produce(self, *parts: Any) -> None:
        if self.refusing:
            raise KafkaException(self.refusing)
        assert "transactional.id" not in self.properties or self._open is not None, "produced outside of a transaction"
        if len(self) >= self.room:
            raise BufferError
        self.produced.append(Record(parts, self._report, self._clock))
        self._waiting.append(self.produced[-1])
        self.on_produce()

    def poll(self, timeout: float) -> None:
        assert timeout < 0.2, "the client would wait on after it has served reports"
        if not self.errors and not self._reports:
            self._clock.advance(timeout, until=lambda: bool(self.errors or self._reports))
        if self.errors:
            raise KafkaException(self.errors.popleft())
        while self._reports:
            error, record = self._reports.popleft()
            record.report(error, record)

    def acknowledge(self, number: int = 1_000_000) -> None:
        """The brokers have the next records."""
        for _ in range(min(number, len(self._waiting))):
            record = self._waiting.popleft()
            (self.log if self._open is None else self._open).append(record.trade_id)
            self._reports.append((None, record))

    def refuse(self, code: int, number: int = 1_000_000) -> None:
        """The brokers reject the next records."""
        for _ in range(min(number, len(self._waiting))):
            self._reports.append((KafkaError(code), self._waiting.popleft()))

    def purge(self) -> None:
        if self.purge_takes:
            self._clock.after(self.purge_takes, lambda: self.refuse(KafkaError._PURGE_INFLIGHT))
        else:
            self.refuse(KafkaError._PURGE_QUEUE)

    def init_transactions(self, _timeout: float) -> None: ...

    def list_topics(self, *_args: object, **_options: object) -> None:
        self.asked_at.append(self._clock.now)

    def begin_transaction(self) -> None:
        _fail(self.begins)
        assert self._open is None, "begun twice"
        self._open, self.began = [], self.began + 1

    def commit_transaction(self, timeout: float) -> None:
        assert not len(self), "committed before all is acknowledged"
        self._end(self.commits, timeout)
        assert self._open is not None
        self.log += self._open
        self._open = None

    def abort_transaction(self, timeout: float) -> None:
        self._end(self.aborts, timeout)
        assert not len(self), "aborted before all is reported"
        self._open, self.aborted = None, self.aborted + 1

    def _end(self, script: deque[KafkaError], timeout: float) -> None:
        if script and script[0] is TIMED_OUT:
            self._clock.advance(timeout)
        _fail(script)


def _fail(script: deque[KafkaError]) -> None:
    if script:
        raise KafkaException(script.popleft())


class Scripted:
    """A publisher, opened, with the producer that it writes to; `trades` gives the next trades."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        clock: FakeClock,
        *,
        topic_settings: TopicSettings | None = None,
        **settings: Any,
    ) -> None:
        made: list[ScriptedProducer] = []

        def await_topic(*_args: object, check: Callable[[TopicSettings], None], **_options: object) -> bool:
            check(topic_settings or TopicSettings("trades", None))
            return True

        def make(properties: dict[str, Any]) -> ScriptedProducer:
            made.append(ScriptedProducer(properties, clock))
            return made[-1]

        patch.setattr(producer, "ConfluentProducer", make)
        patch.setattr(publisher, "await_topic", await_topic)
        self.clock = clock
        self.publisher = make_publisher(load(REQUIRED | settings))
        self.publisher.open(Startup(Deadline(10), 0, stopped=lambda: False))
        self.producer = made[-1]
        self.publisher._hurry = clock.wakeup()
        self.lane = Pipeline().lane
        self.lane.settings = load(REQUIRED | settings)
        self.taken: list[int] = []
        self._next = 100

    def put(self, number: int) -> int:
        """Put this many new trades; those that are not taken come again the next time."""
        ids = range(self._next, self._next + number)
        taken = self.publisher.put([trade(trade_id) for trade_id in ids], self.lane)
        self.taken += ids[:taken]
        self._next += taken
        return taken

    def poll(self, *timeouts: float) -> None:
        """Let the main thread take its turns."""
        for timeout in timeouts or (0.0,):
            self.publisher.poll(timeout)

    def give_up(self, deadline: Deadline) -> list[int]:
        """The ids of what is not delivered in time."""
        return [trade_id for _, trade_id in self.publisher.give_up(deadline)]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Accepted, delivered, in flight."""
        return self.publisher.accepted, self.publisher.delivered, self.publisher.in_flight


def trade(trade_id: int) -> Trade:
    """A trade."""
    return Trade(trade_id, "1.5", "2", 1_700_000_000_000 + trade_id, True, "BTCUSDT")


def ids(first: int, number: int) -> list[int]:
    """Ids that ascend."""
    return list(range(first, first + number))
