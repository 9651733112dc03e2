"""What is called stuck or dead, with times that are given."""

from __future__ import annotations

import math

import pytest

from loader_ws_trades.health import SLACK, STAGES, Activity, main_loop, verdict


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
