"""What is reported as stuck or dead, with given times."""

from __future__ import annotations

import math
from unittest.mock import Mock

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.lifecycle import SLACK, Activity
from loader_ws_trades.monitoring.monitor import Monitor, main_loop, verdict
from loader_ws_trades.monitoring.status import STAGES, RunStatus
from loader_ws_trades.pipeline.interfaces import SourceStatus
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED


@pytest.mark.parametrize(
    ("activities", "now", "says"),
    [
        ([], 1e9, None),
        ([Activity("One", "slept", 100.0, 10.0), Activity("Two", "waited", 0.0, math.inf)], 109.9, None),
        (
            [Activity("One", "slept", 100.0, 20.0), Activity("Two", "dozed", 99.0, 10.0)],
            109.0,
            "Two has dozed for 10 s (limit 10 s)",
        ),
        ([Activity("It", "been dead", 100.0, 0.0)], 100.0, "It has been dead for 0 s"),
    ],
    ids=["nothing", "within limits", "over the limit", "not allowed at all"],
)
def test_verdict(activities: list[Activity], now: float, says: str | None) -> None:
    assert verdict(activities, now) == says


@pytest.mark.parametrize(
    ("stage", "allowed"), [("starting", 40 + 60), ("preparing", 10), ("loading", 10), ("stopping", 20 + SLACK)]
)
def test_main_loop_limit_depends_on_what_its_stage_waits_for(stage: str, allowed: float) -> None:
    assert stage in STAGES
    activity = main_loop(stage, turned=1000.0, startup=40, shutdown=20)
    assert verdict([activity], now=1000 + allowed - 0.1) is None
    assert verdict([activity], now=1000 + allowed) == (
        f"The main loop has been stuck while {stage} for {allowed:.0f} s (limit {allowed:.0f} s)"
    )


def test_entering_a_stage_counts_as_a_turn(clock: FakeClock) -> None:
    monitor = Monitor(load(REQUIRED), RunStatus)
    clock.advance(60)  # REST, say, did not answer
    assert monitor.trouble() is None
    monitor.enter("preparing")
    assert monitor.trouble() is None
    clock.advance(60)
    assert monitor.trouble() is not None


def test_a_full_sink_excuses_a_feed_that_stands_still_but_not_one_that_is_dead(clock: FakeClock) -> None:
    silent = RunStatus(source=SourceStatus(activities=[Activity("It", "heard nothing", clock.now, 60.0)]))
    status = Mock(return_value=silent._replace(blocked=True))
    monitor = Monitor(load(REQUIRED), status)
    monitor.enter("loading")
    clock.advance(1000)
    monitor.turn()
    assert monitor.trouble() is None
    status.return_value = silent
    clock.advance(59)
    monitor.turn()
    assert monitor.trouble() is None
    clock.advance(1)
    monitor.turn()
    assert monitor.trouble() == "It has heard nothing for 60 s (limit 60 s)"
    dead = SourceStatus(activities=[Activity("It", "been dead", clock.now, 0.0)])
    status.return_value = RunStatus(source=dead, blocked=True)
    monitor.turn()
    assert monitor.trouble() == "It has been dead for 0 s"
