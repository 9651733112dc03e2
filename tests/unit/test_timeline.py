"""What an audit's report shows over time: counts, gaps and lags in columns, however many trades and whatever times."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from loader_ws_trades.audit.analysis import Analysis
from loader_ws_trades.audit.findings import Findings
from loader_ws_trades.audit.page import page
from loader_ws_trades.audit.timeline import DUPLICATES, FILLED_LATER, MISSING, OUT_OF_ORDER, Timeline, spans
from loader_ws_trades.config.loading import load
from loader_ws_trades.pipeline.id_ranges import Bounds
from tests.unit.test_audit import START, SYMBOL, Topic, time_of, value_of

MINUTE = 60_000


def timed(topic: Topic, bounds: Bounds = Bounds()) -> Findings:  # noqa: B008 - it is a tuple
    timeline = Timeline(SYMBOL, bounds)
    analysis = Analysis(SYMBOL, bounds, timeline)
    for begin in range(0, len(topic.records), 1000):
        batch = topic.records[begin : begin + 1000]
        analysis.take(batch)
        timeline.take(batch)
    return replace(analysis.findings(), timeline=timeline)


def report(found: Findings, **changed: str) -> str:
    given = {"symbol": SYMBOL, "kafka_topic": "trades", **changed}
    return page(found, load(given, needed=("symbol", "kafka_topic")))


def second(number: int) -> int:
    return START + 1000 * number


def a_trade_a_second(*ids: int) -> Topic:
    topic = Topic()
    for trade_id in ids:
        topic.put(trade_id, time=second(trade_id))
    return topic


def test_trades_count_in_the_column_of_their_time() -> None:
    topic = Topic()
    topic.put(*range(0, 70_000, 10))  # 700 a second
    topic.put_raw(b"rubbish", START)
    topic.put_raw(value_of(5, symbol="BTCUSDT"), START, b"BTCUSDT")
    timeline = timed(topic).timeline
    assert timeline
    width, columns = timeline.columns(100)
    assert (width, {start: column.trades for start, column in columns.items()}) == (
        1000,
        {second(number): 700 for number in range(10)},
    )
    width, columns = timeline.columns(3)
    assert (width, [column.trades for column in columns.values()]) == (5000, [3500, 3500])
    assert not timeline.has_lag


def test_only_the_range_asked_for_counts() -> None:
    topic = a_trade_a_second(*range(100))
    for bounds, trades in ((Bounds(10, 19), 10), (Bounds(since=second(5), until=second(8)), 3)):
        timeline = timed(topic, bounds).timeline
        assert timeline
        assert sum(column.trades for column in timeline.columns(1000)[1].values()) == trades


def test_each_finding_is_marked_at_the_time_of_its_trade() -> None:
    timeline = timed(a_trade_a_second(*range(30), 31, 30, *range(32, 50), *range(60, 100), 70, *range(50, 55))).timeline
    assert timeline
    width, columns = timeline.columns(1000)
    marked = {start: dict(column.marks) for start, column in columns.items() if column.marks}
    assert marked == {
        second(30): {OUT_OF_ORDER: 1},
        **{second(number): {FILLED_LATER: 1} for number in range(50, 54)},
        second(54): {FILLED_LATER: 1, MISSING: 5},
        second(70): {DUPLICATES: 1},
    }
    assert list(spans(columns, width)) == [(second(54), second(60))]


def test_a_gap_within_a_column_ends_there_though_the_next_trade_is_an_hour_later() -> None:
    topic = Topic()
    topic.put(1, 2, 5, time=START)
    topic.put(6, time=START + 60 * MINUTE)
    timeline = timed(topic).timeline
    assert timeline
    width, columns = timeline.columns(10_000)
    assert list(spans(columns, width)) == [(START, START + width)]


def test_missing_ids_at_the_ends_of_a_range_are_marked() -> None:
    timeline = timed(a_trade_a_second(*range(10, 20)), Bounds(5, 25)).timeline
    assert timeline
    columns = timeline.columns(1000)[1]
    assert {start: column.marks[MISSING] for start, column in columns.items() if column.marks} == {
        second(10): 5,
        second(19): 6,
    }


def test_memory_is_bounded_over_years_and_no_trade_is_lost() -> None:
    topic = Topic()
    for number in range(6000):
        topic.put(number, time=START + 12 * 3_600_000 * number)  # 8 years
    topic.put(6000, time=2**60)
    found = timed(topic)
    assert found.timeline
    assert len(found.timeline.columns(10**15)[1]) <= 4000
    assert sum(column.trades for column in found.timeline.columns(400)[1].values()) == 6001
    assert len(report(found)) < 200_000


def test_the_lag_is_that_between_trade_and_append() -> None:
    topic = Topic()
    for number in range(100):
        lag = 20_000 if number >= 98 else 100
        topic.put_raw(value_of(number, time_of(number)), -(time_of(number) + lag))
    timeline = timed(topic).timeline
    assert timeline
    assert timeline.has_lag
    [column] = timeline.columns(10)[1].values()
    median, most = column.lag(0.5), column.lag(0.99)
    assert median
    assert most
    assert abs(median - 100) < 15
    assert abs(most - 20_000) < 3000


@pytest.mark.parametrize("lag", [-5000, 0, 1, 10, 70_000, 4 * 10**10, 10**14])
def test_any_lag_can_be_drawn(lag: int) -> None:
    topic = Topic()
    for number in range(10):
        topic.put_raw(value_of(number, time_of(number)), -(time_of(number) + lag))
    text = report(timed(topic))
    [y, *_] = re.findall(r'class="p50" d="M[0-9.]+ ([0-9.]+)H', text)
    assert 12 <= float(y) <= 172


def test_the_page_needs_nothing_from_outside_and_says_what_was_found() -> None:
    found = timed(a_trade_a_second(*range(30), *range(40, 60), 45))
    text = report(found)
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(|\bsrc=", text)
    assert "Faults found<i>missing ids, duplicates</i>" in text
    assert "<td>30-39</td><td>10 ids</td>" in text
    assert "<b>10</b><span>Missing</span>" in text
    assert f"trade ids 0-{59}" in text


def test_what_stands_on_the_topic_is_no_markup() -> None:
    topic = a_trade_a_second(1)
    topic.put_raw(b"<script>alert(1)</script>", START)
    text = report(timed(topic))
    assert "&lt;script&gt;" in text
    assert "<script" not in text


def test_a_topic_without_trades_has_a_page() -> None:
    text = report(timed(Topic(), Bounds(1, 5)))
    assert "The topic has no trades in this range." in text
    assert ">No trades<" in text or "missing ids" in text
