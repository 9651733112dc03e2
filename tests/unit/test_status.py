"""The line at the bottom of a terminal, and the log lines where there is none."""

from __future__ import annotations

import logging

import pytest

from loader_ws_trades.monitoring.status import Facts, StatusLog, line
from tests.unit.clock import FakeClock


def test_what_is_usual_is_shown_with_all_digits() -> None:
    facts = Facts("live", 123_456, 12, lag=0.04, missing=0, reconnects=2)
    assert line(facts, 812.3) == "live  812/s  delivered 123,456  queued 12  lag 0.0 s  missing 0  reconnects 2"
    bounded = Facts("backfill", 500_000, 12, total=1_000_000)
    assert line(bounded, 2000) == "##########----------  50%  500,000 of 1,000,000  2,000/s  4:10 left"


@pytest.mark.parametrize("total", [None, 987_654_321_000])
@pytest.mark.parametrize("size", [10**power + more for power in range(12) for more in (-1, 0)] + [999_499, 999_500])
def test_large_numbers_stay_on_one_line(size: int, total: int | None) -> None:
    facts = Facts("connecting", size, size, lag=size / 1000, missing=size, reconnects=size, total=total)
    assert len(line(facts, size)) <= 79
    assert "1000k" not in line(facts, size)


def test_a_long_run_keeps_its_meaning() -> None:
    facts = Facts("connecting", 1_234_567_890, 399_999, lag=7384.0, missing=1_234_567, reconnects=144)
    assert line(facts, 104_321.0) == "connecting 104k/s delivered 1.2G queued 400k lag 2:03:04 missing 1.2M"


def told_by(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, facts: Facts, seconds: int, *, steady: bool
) -> dict[int, logging.LogRecord]:
    """What is logged in so many seconds of turns, by the second."""
    told = StatusLog(logging.getLogger("a-test"))
    found = {}
    with caplog.at_level(logging.INFO, "a-test"):
        for second in range(1, seconds + 1):
            clock.advance(1)
            told.turn(lambda second=second: facts._replace(delivered=100 * second), steady=steady)  # type: ignore[misc]
            if caplog.records:
                found[second] = caplog.records.pop()
    return found


def test_a_healthy_stream_logs_a_line_every_five_minutes(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    found = told_by(clock, caplog, Facts("live", 0, 12, lag=0.04, missing=3, reconnects=2), 900, steady=True)
    assert list(found) == [300, 600, 900]
    assert found[600].getMessage() == ("Live: delivered 60000, queued 12, lag 0.0 s, missing 3, reconnects 2, 100/s")
    fields = {name: vars(found[600])[name] for name in ("event", "rate", "lag", "delivered", "missing")}
    assert fields == {"event": "status", "rate": 100, "lag": 0.04, "delivered": 60000, "missing": 3}


def test_bounded_work_logs_soon_and_then_more_rarely(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    found = told_by(clock, caplog, Facts("loading", 0, 0, total=1_000_000), 1300, steady=False)
    assert list(found) == [10, 30, 70, 150, 310, 610, 910, 1210]
    assert found[310].getMessage() == "Loading: 3% of 1000000, delivered 31000, missing 0, 100/s"
    assert "lag" not in vars(found[310])
