"""Transactions with a scripted producer: when they are committed, what is made again, what is named at the end."""

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
from tests.unit.scripted_producer import ABORTABLE, FENCED, TIMED_OUT, Scripted, ids

GIVEN: dict[str, Any] = {"delivery": "transactional", "transaction_interval": "1", "transaction_records": "100"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Scripted:
    return Scripted(monkeypatch, clock, **GIVEN)


def test_one_is_committed_once_its_time_has_come(run: Scripted) -> None:
    run.clock.advance(100)
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
    assert (run.counts, run.producer.began) == ((4, 3, 1), 2), "its time begins with its first record"


@pytest.mark.parametrize(("records", "queue"), [("5", "100000"), ("1000", "5")])
def test_one_is_committed_once_it_holds_so_many_records(
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
    assert run.put(1) == (0 if queue == "5" else 1), "more than can be produced again is not taken"
    run.producer.acknowledge()
    run.poll()
    assert run.publisher.delivered == len(run.taken)


def test_draining_commits_at_once(run: Scripted) -> None:
    run.put(3)
    run.publisher.drain()
    run.poll()
    assert run.publisher.delivered == 0, "and not before all is acknowledged"
    run.producer.acknowledge()
    run.poll()
    assert run.counts == (3, 3, 0)


def test_nothing_is_taken_while_one_ends(run: Scripted) -> None:
    run.put(3)
    run.clock.advance(1)
    run.poll()
    assert run.put(1) == 0
    run.producer.acknowledge()
    run.poll()
    assert run.put(1) == 1


def test_the_end_is_put_off_while_the_brokers_are_away(run: Scripted) -> None:
    run.put(3)
    run.clock.advance(1)
    run.poll(0, 0.4)
    assert run.put(1) == 0
    run.producer.acknowledge(1)
    run.poll(0, 0.4)
    assert run.put(1) == 0, "an acknowledgement is a reason to wait on"
    run.poll(0.2)
    assert run.put(2) == 2, "the stream goes on into the queue"
    run.poll(10)
    assert run.put(1) == 1
    run.producer.acknowledge()
    run.poll()
    assert run.counts == (6, 6, 0)
    assert run.producer.log == ids(100, 6)


@pytest.mark.parametrize("code", [None, ABORTABLE])
def test_a_commit_in_doubt_is_asked_again_and_counts_once(run: Scripted, code: KafkaError | None) -> None:
    run.put(3)
    run.producer.acknowledge()
    run.producer.commits.extend([TIMED_OUT] * 3 + ([code] if code else []))
    run.clock.advance(1)
    for _ in range(3):
        run.poll()
        assert (run.put(1), run.counts) == (0, (3, 0, 3))
        assert run.publisher.waiting_since is not None, "an outage, though all is acknowledged"
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
    assert run.publisher.give_up(Deadline(1)) == ids(100, 3)


def test_what_was_aborted_is_produced_again_in_order_before_anything_newer(run: Scripted) -> None:
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


def test_one_is_made_again_three_times_in_a_row_and_no_more(run: Scripted) -> None:
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
    assert run.publisher.give_up(Deadline(1)) == ids(106, 2)
    assert run.producer.log == ids(100, 6)


@pytest.mark.parametrize("turns", range(6))
def test_giving_up_names_what_is_not_committed_in_every_state(run: Scripted, turns: int) -> None:
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
    assert run.publisher.give_up(Deadline(1)) == ids(102, 5)
    assert run.producer.log == ids(100, 2)


def test_an_acknowledgement_that_comes_before_the_interval_is_over_is_remembered(run: Scripted) -> None:
    run.producer.commits.append(ABORTABLE)
    run.put(1)
    run.producer.acknowledge()
    run.poll(0.0, 1.0, 0.0, 0.0)  # aborted, and written again
    run.poll(0.5)  # nobody acknowledges: the commit is put off
    run.producer.acknowledge()
    run.poll(0.0)
    run.clock.advance(1.0)  # a quiet pair: nothing else comes
    run.poll(0.0)
    assert run.producer.log == [100]


def test_what_a_transaction_holds_is_undone_at_the_end(run: Scripted) -> None:
    run.put(5)
    run.producer.acknowledge(2)
    run.poll()
    assert run.publisher.give_up(Deadline(1)) == ids(100, 5)
    assert run.producer.aborted == 1
    run.producer.errors.append(FENCED)
    run.producer.aborts.append(FENCED)
    assert run.publisher.give_up(Deadline(1)) == ids(100, 5), "whatever the producer says then"


@pytest.mark.parametrize("where", ["poll", "begin", "commit", "abort", "begin again"])
def test_an_older_loader_is_told_that_it_is_fenced_off(run: Scripted, where: str) -> None:
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


@pytest.mark.parametrize(("seconds", "words"), [(59.9, "Fenced off"), (60.0, "transaction.timeout.ms \\(60 s\\)")])
def test_a_transaction_that_took_too_long_is_told_apart(run: Scripted, seconds: float, words: str) -> None:
    run.put(2)
    run.clock.advance(seconds)
    run.producer.errors.append(FENCED)
    with pytest.raises(RunError, match=words):
        run.poll()


def test_a_refused_record_ends_the_run_before_a_commit(run: Scripted) -> None:
    run.put(4)
    run.producer.acknowledge(1)
    run.producer.refuse(KafkaError.MSG_SIZE_TOO_LARGE, 1)
    run.producer.acknowledge()
    run.clock.advance(1)
    with pytest.raises(Exception, match=r"max\.message\.bytes"):
        run.poll()
    assert run.producer.log == []
    assert run.publisher.give_up(Deadline(1)) == ids(100, 4)


class Interleaving(RuleBasedStateMachine):
    """Trades come, brokers acknowledge, time passes, commits and aborts fail for a while, as it may happen."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.run = Scripted(self.patch, FakeClock(), **GIVEN, kafka_queue_records="20")
        self.patch.setattr("time.monotonic", lambda: self.run.clock.now)
        self.run.publisher._watch_outage(progress=True)
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
    max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink]
)
