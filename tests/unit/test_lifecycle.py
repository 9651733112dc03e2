"""Delays, limits, and threads whose death is a value."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from loader_ws_trades.lifecycle import Backoff, Wakeup, spawn


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


def test_death_of_a_thread_is_reported_to_its_owner() -> None:
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


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no signal to send")
def test_a_signal_handler_ends_a_wait() -> None:
    wakeup, began = Wakeup(), time.monotonic()
    before = signal.signal(signal.SIGUSR1, lambda *_: wakeup.set())
    task = spawn("signals", lambda: os.kill(os.getpid(), signal.SIGUSR1), lambda _: None)
    try:
        wakeup.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 30
    assert task.join(10)
    wakeup.set()
    wakeup.set()
    wakeup.wait(60)
    wakeup.wait(0)
    assert time.monotonic() - began < 30, "however often it was set, it ends one wait"
