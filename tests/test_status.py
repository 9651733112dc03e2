"""The line at the bottom of a terminal."""

from __future__ import annotations

import pytest

from loader_ws_trades.status import Facts, line


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
