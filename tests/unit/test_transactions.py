"""Transactions with a scripted producer: when they are committed, rewritten or abandoned."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loader_ws_trades.errors import RunError
from loader_ws_trades.lifecycle import Deadline
from tests.unit.clock import FakeClock
from tests.unit.lanes import Pipeline
from tests.unit.scripted_producer import ABORTABLE, FENCED, TIMED_OUT, Scripted, ids, trade

GIVEN: dict[str, Any] = {"delivery": "transactional", "transaction_interval": "1", "transaction_records": "100"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Scripted:
    return Scripted(monkeypatch, clock, **GIVEN)


def test_commit_after_the_interval(run: Scripted) -> None:
    run.clock.advance(1)
    run.poll()
    assert run.producer.began == 0, "no transaction without a record"
    run.put(3)
    run.producer.acknowledge()
    run.poll(0, 0.75)
    assert (run.counts, run.producer.log) == ((3, 0, 3), [])
    run.clock.advance(0.25)
    run.poll()
    assert (run.counts, run.producer.log) == ((3, 3, 0), ids(100, 3))
    run.clock.advance(100)
    run.poll()
    run.put(1)
    run.producer.acknowledge()
    run.poll(0.5)
    assert (run.counts, run.producer.began) == ((4, 3, 1), 2), "the interval starts with the first record"


def test_a_transaction_that_begins_within_a_turn_ends_the_wait(run: Scripted) -> None:
    def come(seconds: float) -> None:
        run.clock.after(seconds, lambda: run.put(1))
        run.clock.after(seconds + 0.01, run.producer.acknowledge)

    began = run.clock.now
    come(0.1)
    run.poll(1)
    come(0.7)  # so that the next turn does not follow a pause
    run.poll(1)
    assert (round(run.clock.now - began, 3), run.counts) == (1.1, (2, 2, 0))
    come(0.2)
    run.poll(1)
    assert round(run.clock.now - began, 3) == 1.3
    run.poll(1)
    assert (round(run.clock.now - began, 3), run.counts) == (2.3, (3, 3, 0))


def test_delivery_reports_do_not_gather_while_a_transaction_is_full_or_ends(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    run = Scripted(monkeypatch, clock, delivery="transactional", transaction_records="5", transaction_interval="60")
    run.put(1)
    run.producer.acknowledge()
    run.poll(0.5)
    began = clock.now
    clock.after(0.01, lambda: run.put(4))
    run.poll(0.5)
    assert round(clock.now - began, 3) == 0.01, "it is full"
    clock.after(0.01, run.producer.acknowledge)
    run.poll(0.5)
    assert (round(clock.now - began, 3), run.counts) == (0.02, (5, 5, 0))
    assert run.publisher.served_late == 0, "a delivery is a commit"


@pytest.mark.parametrize(("records", "queue"), [("5", "100000"), ("1000", "5")])
def test_commit_after_a_number_of_records(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock, records: str, queue: str
) -> None:
    given = GIVEN | {"transaction_records": records, "kafka_queue_records": queue}
    run = Scripted(monkeypatch, clock, **given)
    run.put(4)
    run.producer.acknowledge()
    run.poll()
    assert run.counts == (4, 0, 4)
    run.put(1)
    run.producer.acknowledge()
    assert run.put(1) == (0 if queue == "5" else 1), "no more is taken than can be written again"
    run.producer.acknowledge()
    run.poll()
    assert run.publisher.delivered == len(run.taken)


def test_draining_commits_at_once(run: Scripted) -> None:
    run.put(3)
    run.publisher.drain()
    run.poll()
    assert run.publisher.delivered == 0, "but not before everything is acknowledged"
    run.producer.acknowledge()
    run.poll()
    assert run.counts == (3, 3, 0)


def test_the_commit_is_postponed_while_the_brokers_are_away(run: Scripted) -> None:
    run.put(3)
    run.clock.advance(1)
    run.poll(0, *[0.1] * 4)
    assert run.put(1) == 0
    run.producer.acknowledge(1)
    run.poll(0, *[0.1] * 4)
    assert run.put(1) == 0, "an acknowledgement is a reason to keep waiting"
    run.poll(0.1, 0.1)
    assert run.put(2) == 2, "the stream continues into the queue"
    run.poll(10)
    assert run.put(1) == 1
    run.producer.acknowledge()
    run.poll()
    assert run.counts == (6, 6, 0)
    assert run.producer.log == ids(100, 6)


@pytest.mark.parametrize("code", [None, ABORTABLE])
def test_a_commit_that_timed_out_is_repeated_and_counts_once(run: Scripted, code: KafkaError | None) -> None:
    run.put(3)
    run.producer.acknowledge()
    run.producer.commits.extend([TIMED_OUT] * 3 + ([code] if code else []))
    run.clock.advance(1)
    for _ in range(3):
        run.poll()
        assert (run.put(1), run.counts) == (0, (3, 0, 3))
        assert run.publisher.waiting_since is not None, "an outage, although all records are acknowledged"
    for _ in range(5):
        run.producer.acknowledge()
        run.poll()
    assert run.counts == (3, 3, 0)
    assert run.producer.log == ids(100, 3)


def test_a_commit_without_an_answer_ends_the_run_after_the_outage_limit(run: Scripted) -> None:
    run.put(3)
    run.producer.acknowledge()
    run.producer.commits.extend([TIMED_OUT] * 10_000)
    run.clock.advance(1)
    began = run.clock.now
    with pytest.raises(RunError, match="No delivery acknowledged for 600 s"):
        run.poll(*[0.0] * 10_000)
    assert 600 < run.clock.now - began < 601
    assert run.give_up(Deadline(1)) == ids(100, 3)


def test_an_aborted_transaction_is_written_again_before_newer_trades(run: Scripted) -> None:
    run.put(10)
    run.producer.acknowledge()
    run.producer.commits.append(ABORTABLE)
    run.producer.aborts.extend([TIMED_OUT, ABORTABLE])
    run.producer.room = 4
    run.clock.advance(1)
    for turn in range(10):
        run.poll()
        assert run.put(5) == 0
        assert run.counts == (10, 0, 10), f"all of it is still to be delivered in turn {turn}"
    for _ in range(4):
        run.producer.acknowledge()
        run.poll(0, 0)
    assert run.counts == (10, 10, 0)
    run.producer.room = 100
    run.put(5)
    run.producer.acknowledge()
    run.clock.advance(1)
    run.poll()
    assert run.producer.log == ids(100, 15)
    assert (run.producer.aborted, run.counts) == (1, (15, 15, 0))


def test_a_transaction_is_written_again_at_most_three_times_in_a_row(run: Scripted) -> None:
    def last(refused: int) -> None:
        run.put(2)
        run.producer.commits.extend([ABORTABLE] * refused)
        run.clock.advance(1)
        for _ in range(20):
            run.producer.acknowledge()
            run.poll()

    for _ in range(3):
        last(3)
    assert run.producer.log == ids(100, 6)
    with pytest.raises(RunError, match="after 3 retries"):
        last(4)
    assert run.give_up(Deadline(1)) == ids(106, 2)
    assert run.producer.log == ids(100, 6)


@pytest.mark.parametrize("turns", range(6))
def test_give_up_returns_uncommitted_ids_in_every_state(run: Scripted, turns: int) -> None:
    run.put(2)
    run.producer.acknowledge()
    run.clock.advance(1)
    run.poll()
    run.put(5)
    run.producer.acknowledge()
    run.producer.room = 3
    run.producer.commits.append(ABORTABLE)
    run.producer.aborts.append(TIMED_OUT)
    run.clock.advance(1)
    for _ in range(turns):
        run.poll()
    assert run.give_up(Deadline(1)) == ids(102, 5)
    assert run.producer.log == ids(100, 2)


def test_an_acknowledgement_within_the_interval_ends_the_postponement(run: Scripted) -> None:
    run.producer.commits.append(ABORTABLE)
    run.put(1)
    run.producer.acknowledge()
    run.poll(0.0, 1.0, 0.0, 0.0)  # aborted, and written again
    run.poll(0.5)  # no acknowledgement: the commit is postponed
    run.producer.acknowledge()
    run.poll(0.0)
    run.clock.advance(1.0)  # a quiet pair: nothing else comes
    run.poll(0.0)
    assert run.producer.log == [100]


def test_give_up_aborts_the_open_transaction(run: Scripted) -> None:
    run.put(5)
    run.producer.acknowledge(2)
    run.poll()
    assert run.give_up(Deadline(1)) == ids(100, 5)
    assert run.producer.aborted == 1
    run.producer.errors.append(FENCED)
    run.producer.aborts.append(FENCED)
    assert run.give_up(Deadline(1)) == ids(100, 5), "whatever the producer says then"


@pytest.mark.parametrize("where", ["poll", "begin", "commit", "abort", "begin again"])
def test_an_older_loader_is_fenced_off(run: Scripted, where: str) -> None:
    if where == "begin":
        run.producer.begins.append(FENCED)
    assert run.put(2) == (0 if where == "begin" else 2)
    run.producer.acknowledge()
    if where == "poll":
        run.producer.errors.append(FENCED)
    elif where == "commit":
        run.producer.commits.append(FENCED)
    elif where != "begin":
        run.producer.commits.append(ABORTABLE)
        (run.producer.aborts if where == "abort" else run.producer.begins).append(FENCED)
    run.clock.advance(1)
    fenced = r"Fenced off by a newer loader with the transactional id loader-ws-trades\.wf-1\.BTCUSDT; "
    with pytest.raises(RunError, match=fenced):
        run.poll(0, 0, 0, 0)


def test_an_older_loader_says_so_though_put_fails_before_the_producer_does(run: Scripted) -> None:
    run.put(2)
    run.producer.refusing = KafkaError(KafkaError._FATAL, "Fatal error")
    run.put(1)
    run.clock.after(0.5, lambda: run.producer.errors.append(FENCED))
    with pytest.raises(RunError, match="Fenced off by a newer loader"):
        run.poll()


@pytest.mark.parametrize(("seconds", "words"), [(59.9, "Fenced off"), (60.0, "transaction.timeout.ms \\(60 s\\)")])
def test_an_expired_transaction_is_not_reported_as_fenced(run: Scripted, seconds: float, words: str) -> None:
    run.put(2)
    run.clock.advance(seconds)
    run.producer.errors.append(FENCED)
    with pytest.raises(RunError, match=words):
        run.poll()


def test_a_rejected_record_ends_the_run_before_a_commit(run: Scripted) -> None:
    run.put(4)
    run.producer.acknowledge(1)
    run.producer.refuse(KafkaError.MSG_SIZE_TOO_LARGE, 1)
    run.producer.acknowledge()
    run.clock.advance(1)
    with pytest.raises(Exception, match=r"max\.message\.bytes"):
        run.poll()
    assert run.producer.log == []
    assert run.give_up(Deadline(1)) == ids(100, 4)


class Interleaving(RuleBasedStateMachine):
    """Trades come, brokers acknowledge, time passes, commits and aborts fail for a while, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.run = Scripted(self.patch, FakeClock(), **GIVEN, kafka_queue_records="20")
        self.patch.setattr("time.monotonic", lambda: self.run.clock.now)
        self.run.publisher._outage.watch(0, progress=True)
        self.run.producer.room = 9

    def teardown(self) -> None:
        self.run.producer.commits.clear()
        self.run.producer.aborts.clear()
        for _ in range(50):
            self.run.producer.acknowledge()
            self.run.poll()
            self.run.clock.advance(0.2)
        try:
            assert self.run.producer.log == self.run.taken == ids(100, len(self.run.taken))
            assert self.run.counts == (len(self.run.taken), len(self.run.taken), 0)
        finally:
            self.patch.undo()

    @rule(number=st.integers(1, 6))
    def put(self, number: int) -> None:
        self.run.put(number)

    @rule(number=st.integers(1, 6))
    def acknowledge(self, number: int) -> None:
        self.run.producer.acknowledge(number)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def poll(self, seconds: float) -> None:
        self.run.poll(seconds)

    @rule(outcome=st.sampled_from([TIMED_OUT, ABORTABLE]), of_aborts=st.booleans())
    def fail(self, outcome: KafkaError, *, of_aborts: bool) -> None:
        script = self.run.producer.aborts if of_aborts else self.run.producer.commits
        if len(script) < 3:
            script.append(outcome)

    @invariant()
    def counts_are_right(self) -> None:
        written, taken = len(self.run.producer.log), len(self.run.taken)
        assert self.run.producer.log == ids(100, written)
        assert self.run.counts == (taken, written, taken - written)


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(
    max_examples=40, stateful_step_count=30, phases=[Phase.explicit, Phase.generate, Phase.shrink]
)


def test_records_count_for_their_pair_once_committed_also_when_written_twice(run: Scripted) -> None:
    other = Pipeline("ETHUSDT").lane
    other.settings = run.lane.settings
    run.put(2)
    assert run.publisher.put([trade(1)], other) == 1
    run.producer.commits.append(ABORTABLE)
    run.clock.advance(1)
    run.producer.acknowledge()
    run.poll(0, 0, 0)
    assert (run.lane.accepted, run.lane.delivered, other.accepted, other.delivered) == (2, 0, 1, 0)
    run.producer.acknowledge()
    run.poll(0, 1, 0)
    run.producer.acknowledge()
    run.poll(0, 1, 0)
    assert run.producer.aborted == 1
    assert (run.lane.accepted, run.lane.delivered, other.accepted, other.delivered) == (2, 2, 1, 1)


def test_a_transaction_that_fills_the_queue_is_written_again(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    run = Scripted(monkeypatch, clock, delivery="transactional", kafka_queue_records="1000")
    run.producer.commits.append(ABORTABLE)
    assert run.put(1000) == 1000
    run.producer.acknowledge()
    run.poll(0, 1.0, 0, 0)
    assert run.producer.aborted == 1
    run.producer.acknowledge()
    run.poll(0, 0, 0)
    assert (run.counts, run.producer.log) == ((1000, 1000, 0), ids(100, 1000))
