"""The histogram from read to delivery, with times that are given."""

from __future__ import annotations

from loader_ws_trades.monitoring.metrics import BOUNDS, Latencies


def of(latencies: Latencies) -> dict[float, int]:
    """How many took how long, without the empty ones."""
    return {bound: count for bound, count in zip((*BOUNDS, float("inf")), latencies.counts, strict=True) if count}


def test_a_read_counts_once_its_last_trade_is_delivered() -> None:
    latencies = Latencies()
    latencies.note(10, received=100.0)
    latencies.note(15, received=100.5)
    latencies.settle(9, now=101.0)
    assert of(latencies) == {}
    latencies.settle(14, now=100.05)
    assert of(latencies) == {0.05: 1}
    latencies.settle(15, now=1000.0)
    assert of(latencies) == {0.05: 1, float("inf"): 1}
    assert round(latencies.sum, 6) == 0.05 + 899.5


def test_a_read_that_brought_nothing_out_does_not_count() -> None:
    latencies = Latencies()
    latencies.note(0, received=1.0)
    latencies.note(7, received=2.0)
    latencies.note(7, received=3.0)
    latencies.settle(7, now=4.0)
    assert sum(latencies.counts) == 1


def test_a_read_whose_delivery_was_noticed_late_does_not_count() -> None:
    latencies = Latencies()
    for taken in (10, 15, 20):
        latencies.note(taken, received=1.0)
    latencies.settle(18, now=1.0015, late=12)
    assert of(latencies) == {0.002: 1}
    latencies.settle(20, now=1.1, late=20)
    assert of(latencies) == {0.002: 1}


def test_in_a_long_outage_the_first_reads_are_kept_and_the_memory_is_bounded() -> None:
    latencies = Latencies()
    for taken in range(1, 100_001):
        latencies.note(taken, received=0.0)
    latencies.settle(100_000, now=400.0)
    assert of(latencies) == {float("inf"): 10_000}
    latencies.note(100_001, received=500.0)
    latencies.settle(100_001, now=500.0)
    assert sum(latencies.counts) == 10_001
