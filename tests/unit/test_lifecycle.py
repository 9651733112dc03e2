"""Delays, limits, and threads whose death is a value."""

from __future__ import annotations

import random

import pytest

from loader_ws_trades.lifecycle import Backoff, StopReason, spawn


def test_delays_are_drawn_below_a_bound_that_doubles_up_to_the_cap() -> None:
    delays = Backoff(0.5, 30.0, random.Random(1))
    drawn = [[delays.next() for _ in range(12)], [], []]
    for again in drawn[1:]:
        delays.reset()
        again += [delays.next() for _ in range(12)]
    for row in drawn:
        for failures, delay in enumerate(row):
            assert 0 <= delay <= min(30.0, 0.5 * 2**failures)
    assert len({row[8] for row in drawn}) == 3, "jitter"
    assert max(max(row) for row in drawn) > 10


def test_a_thread_that_dies_tells_its_owner_why() -> None:
    deaths: list[BaseException] = []

    def fail() -> None:
        raise KeyError("x")

    task = spawn("short", fail, deaths.append)
    assert task.join(10)
    assert isinstance(task.future.exception(), KeyError)
    assert deaths == [task.future.exception()]
    task = spawn("well", lambda: None, deaths.append)
    assert task.join(10)
    assert task.future.result() is None
    assert len(deaths) == 1


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (StopReason.complete("x"), "finished", 0),
        (StopReason.by_command(), "interrupted", 0),
        (StopReason.by_signal(15), "interrupted", 143),
        (StopReason.by_signal(2), "interrupted", 130),
        (StopReason.failed("x"), "error", 1),
        (StopReason.failed("x", 2), "error", 2),
    ],
)
def test_reasons_to_end_give_status_and_exit_code(reason: StopReason, status: str, code: int) -> None:
    assert (reason.status, reason.exit_code) == (status, code)
