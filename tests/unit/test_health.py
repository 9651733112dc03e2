"""What is called stuck or dead, with times that are given."""

from __future__ import annotations

import math
import time
from unittest.mock import Mock

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.lifecycle import SLACK, Activity
from loader_ws_trades.monitoring.health import STAGES, main_loop, verdict
from loader_ws_trades.monitoring.vitals import Vitals
from tests.unit.test_config import REQUIRED


def test_what_is_within_its_limit_is_no_trouble() -> None:
    activities = [Activity("One", "slept", 100.0, 10.0), Activity("Two", "waited", 0.0, math.inf)]
    assert verdict(activities, now=109.9) is None
    assert verdict([], now=1e9) is None


def test_what_is_beyond_its_limit_is_told_in_a_sentence() -> None:
    activities = [Activity("One", "slept", 100.0, 20.0), Activity("Two", "dozed", 99.0, 10.0)]
    assert verdict(activities, now=109.0) == "Two has dozed for 10 s, more than the 10 s that it may"


def test_what_may_not_be_is_told_at_once() -> None:
    assert verdict([Activity("It", "been dead", 100.0, 0.0)], now=100.0) == "It has been dead for 0 s"


@pytest.mark.parametrize(
    ("stage", "allowed"), [("starting", 40 + 60), ("preparing", 10), ("loading", 10), ("stopping", 20 + SLACK)]
)
def test_the_main_loop_may_stand_still_for_as_long_as_its_stage_waits(stage: str, allowed: float) -> None:
    assert stage in STAGES
    activity = main_loop(stage, turned=1000.0, startup=40, shutdown=20)
    assert verdict([activity], now=1000 + allowed - 0.1) is None
    assert verdict([activity], now=1000 + allowed) == (
        f"The main loop has not turned while {stage} for {allowed:.0f} s, more than the {allowed:.0f} s that it may"
    )


def test_a_stage_begins_with_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    clock = Mock(monotonic=lambda: now)
    monkeypatch.setattr("loader_ws_trades.monitoring.vitals.time", clock)
    source = Mock(activities=list)
    vitals = Vitals(load(REQUIRED), source, Mock(), Mock(full=False), None)
    now += 60  # REST, say, did not answer
    assert vitals.trouble() is None
    vitals.enter("preparing")
    assert vitals.trouble() is None
    now += 60
    assert vitals.trouble() is not None


def test_while_the_sink_is_full_the_feed_may_stand_still_but_not_be_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("loader_ws_trades.monitoring.vitals.time", Mock(monotonic=lambda: now))
    activities = [Activity("It", "heard nothing", now, 60.0)]
    ingest = Mock(full=True)
    vitals = Vitals(load(REQUIRED), Mock(activities=lambda: activities), Mock(), ingest, None)
    vitals.enter("loading")
    now += 1000
    vitals.turn()
    assert vitals.trouble() is None
    ingest.full = False
    now += 59
    vitals.turn()
    assert vitals.trouble() is None
    now += 1
    vitals.turn()
    assert vitals.trouble() == "It has heard nothing for 60 s, more than the 60 s that it may"
    ingest.full = True
    vitals.turn()
    activities[0] = Activity("It", "been dead", now, 0.0)
    assert vitals.trouble() == "It has been dead for 0 s"
