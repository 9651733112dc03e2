"""The analysis of an audit finds each planted fault and nothing else: by example, and in random mixtures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from loader_ws_trades.audit.analysis import Analysis
from loader_ws_trades.audit.findings import LISTED, Findings, RecordRange, RecordRanges
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord

SYMBOL = "POLUSDT"
START = 1_700_000_000_000
DAY = 86_400_000
ALL = Bounds()

Ranges = list[tuple[int, int, int]]  # first id, last id, offset of the first


def time_of(trade_id: int) -> int:
    """Seven trades per millisecond."""
    return START + trade_id // 7


def value_of(trade_id: int, time: int | None = None, /, **changed: object) -> bytes:
    fields: dict[str, object] = {
        "trade_id": trade_id,
        "price": 0.25,
        "quantity": 10,
        "timestamp": time_of(trade_id) if time is None else time,
        "is_buyer_maker": True,
        "symbol": SYMBOL,
    }
    return json.dumps(fields | changed).encode()


@dataclass
class Topic:
    """The records of one partition."""

    partition: int = 0
    records: list[AnyRecord] = field(default_factory=list)

    def put(self, *trade_ids: int, time: int | None = None) -> int:
        """Append well-formed records; returns the offset of the first."""
        offset = len(self.records)
        for trade_id in trade_ids:
            self.put_raw(value_of(trade_id, time), time_of(trade_id) if time is None else time)
        return offset

    def put_raw(self, value: bytes | None, time: int, key: bytes | None = SYMBOL.encode()) -> int:
        """Append any record; returns its offset."""
        self.records.append((self.partition, len(self.records), time, value, key))
        return len(self.records) - 1


def analysed(*topics: Topic, bounds: Bounds = ALL) -> Findings:
    analysis = Analysis(SYMBOL, bounds)
    for topic in topics:
        analysis.take(topic.records)
    return analysis.findings()


def topic_of(*trade_ids: int) -> Topic:
    topic = Topic()
    topic.put(*trade_ids)
    return topic


def located(found: RecordRanges) -> Ranges:
    return [(part.first, part.last, part.offset) for part in found.first]


def spans(found: Findings) -> list[tuple[int, int]]:
    return [(span.first.trade_id, span.last.trade_id) for span in found.spans.first]


def test_trades_in_order_have_no_faults() -> None:
    found = analysed(topic_of(*range(100, 5000)))
    assert found.faults == []
    assert (found.scanned, found.records, found.partitions) == (4900, 4900, {0: 4900})
    [span] = found.spans.first
    assert (span.first, span.last) == ((100, time_of(100)), (4999, time_of(4999)))
    assert found.missing.count == found.filled_later.count == len(found.others) == 0


LIVE_AND_FILL = [number for pair in zip(range(500, 600), range(100, 200), strict=True) for number in pair]

ORDER: dict[str, tuple[list[int], dict[str, Ranges]]] = {
    "duplicates": ([1, 2, 3, 2, 3, 4, 4, 5, 1], {"duplicates": [(2, 4, 3), (1, 1, 8)]}),
    "two loaders at once": ([n for n in range(1000) for _ in "ab"], {"duplicates": [(0, 999, 1)]}),
    "swapped at the beginning": ([2, 1, 3, 4], {"out_of_order": [(1, 1, 1)]}),
    "reversed": ([*range(20), 22, 21, 20, 23], {"out_of_order": [(21, 21, 21), (20, 20, 22)]}),
    "too early": ([*range(20), 29, *range(20, 29), 30], {"out_of_order": [(20, 28, 21)]}),
    "after 9 higher ids": ([*range(20), *range(21, 30), 20, 30], {"out_of_order": [(20, 20, 29)]}),
    "after 10 higher ids": ([*range(20), *range(21, 31), 20, 31], {"filled_later": [(20, 20, 30)]}),
    "after 11, with gaps": (
        [1, *range(3, 13), 14, 2, 13, 15],
        {"filled_later": [(2, 2, 12)], "out_of_order": [(13, 13, 13)]},
    ),
    "after 11 and fewer runs": (
        [1, *range(3, 25, 2), *range(2, 25, 2)],
        {"filled_later": [(2, 2, 12), (4, 4, 13)], "out_of_order": [(n, n, 11 + n // 2) for n in range(6, 23, 2)]},
    ),
    "filled later": ([*range(1, 10), *range(15, 40), *range(10, 15), 40], {"filled_later": [(10, 14, 34)]}),
    "backfill beside live": ([*range(100), *range(200, 500), *LIVE_AND_FILL], {"filled_later": [(100, 199, 401)]}),
}


@pytest.mark.parametrize(("ids", "expected"), ORDER.values(), ids=ORDER)
def test_order(ids: list[int], expected: dict[str, Ranges]) -> None:
    found = analysed(topic_of(*ids))
    kinds = {"duplicates": found.duplicates, "out_of_order": found.out_of_order, "filled_later": found.filled_later}
    assert {name: located(kind) for name, kind in kinds.items() if kind.count} == expected
    assert found.faults == [name.replace("_", " ") for name in kinds if name in expected and name != "filled_later"]


def test_missing_ids() -> None:
    found = analysed(topic_of(1, 2, 3, 7, 8, 10))
    assert found.missing.first == found.fillable == [Gap(4, 6), Gap(9, 9)]
    assert (found.missing.count, found.missing.size) == (2, 4)
    assert found.faults == ["missing ids"]


def test_a_gap_filled_by_the_next_records_but_a_minute_later_is_not_out_of_order() -> None:
    topic = topic_of(1, 2, 3)
    topic.put(7, time=time_of(6) + 60_000)
    topic.put(4, 5, 6)
    found = analysed(topic)
    assert (found.faults, located(found.filled_later)) == ([], [(4, 6, 4)])


def test_history_backfilled_after_a_few_live_trades_is_not_out_of_order() -> None:
    topic = Topic()
    topic.put(1_000_000, 1_000_001, time=time_of(1_000_000) + 59_900)
    topic.put(*range(998_000, 1_000_000))
    found = analysed(topic)
    assert (found.faults, located(found.filled_later)) == ([], [(998_000, 999_999, 2)])
    assert spans(found) == [(998_000, 1_000_001)]


@pytest.mark.parametrize(
    ("value", "key", "time_id", "reason", "has_id"),
    [
        (None, b"POLUSDT", 50, "tombstone", False),
        (b"", b"POLUSDT", 50, "truncated", False),
        (b"rubbish", b"POLUSDT", 50, "malformed", False),
        (b"[" * 100_000, b"POLUSDT", 50, "", False),
        (value_of(50, price="0.25"), b"POLUSDT", 50, "plain decimal number", True),
        (value_of(50, price=1e-7), b"POLUSDT", 50, "price 1e-07", True),
        (value_of(50, more=1), b"POLUSDT", 50, "unknown field", True),
        (value_of(50).replace(b', "is_buyer_maker": true', b""), b"POLUSDT", 50, "missing required", True),
        (value_of(50, trade_id=2**64), b"POLUSDT", 50, "trade_id", False),
        (value_of(50, symbol="BTCUSDT"), b"POLUSDT", 50, "the key is POLUSDT, the symbol BTCUSDT", False),
        (value_of(50), b"BTCUSDT", 50, "the key is BTCUSDT, the symbol POLUSDT", True),
        (value_of(50), None, 50, "the key is none, the symbol POLUSDT", True),
        (value_of(50), b"POLUSDT", 500, "the record's timestamp is", True),
    ],
)
def test_a_malformed_record(value: bytes | None, key: bytes | None, time_id: int, reason: str, has_id: bool) -> None:
    topic = topic_of(*range(50))
    topic.put_raw(value, time_of(time_id), key)
    topic.put(*range(51, 100))
    found = analysed(topic)
    [bad] = found.malformed.first
    assert (bad.partition, bad.offset) == (0, 50)
    assert reason in bad.reason
    assert len(bad.reason) <= 300
    assert bad.reason.isprintable()
    assert found.missing.size == (not has_id), "with a readable id it is malformed, but not missing"
    assert not found.others


def test_a_trade_far_ahead_of_the_clock_that_stamped_its_record_is_well_formed() -> None:
    topic = topic_of(*range(100, 110))
    topic.put_raw(value_of(110, START + 7_200_000), time_of(110))
    topic.put(*range(111, 120))
    topic.put_raw(value_of(120, START + 1_800_000), START)
    assert analysed(topic).malformed.count == 1
    assert analysed(topic).records == 21


def test_other_symbols_are_only_counted() -> None:
    topic = topic_of(1)
    for number in range(5):
        topic.put_raw(value_of(7 - number, symbol="BTCUSDT"), START, b"BTCUSDT")
    topic.put_raw(None, START, b"ETHUSDT")
    topic.put_raw(b"rubbish", START, b"ETHUSDT")
    topic.put_raw(value_of(9, symbol="BNBBTC"), START, None)
    topic.put_raw(b"", START, b"\x1b[31m" + b"x" * 100_000)
    topic.put(2)
    found = analysed(topic)
    assert (found.faults, found.scanned, found.records) == ([], 11, 2)
    assert found.others.most_common(3) == [("BTCUSDT", 5), ("ETHUSDT", 2), ("BNBBTC", 1)]
    assert all(name.isprintable() and len(name) < 100 for name in found.others)


@pytest.mark.parametrize(
    ("first", "later_by", "is_reset"),
    [
        pytest.param(3, 0, True, id="far-below"),
        pytest.param(999_000, 1000, True, id="close-and-a-second-later"),
        pytest.param(999_000, 999, False, id="close-and-less-than-a-second-later"),
        pytest.param(3, -1, False, id="far-below-and-older"),
    ],
)
def test_a_lower_id_with_a_later_time_is_an_id_reset(first: int, later_by: int, is_reset: bool) -> None:
    topic = topic_of(*range(1_000_000, 1_000_050), *range(1_000_060, 1_000_100))
    newest = time_of(1_000_099)
    for number in (first, first + 1, first + 3):
        topic.put(number, time=newest + later_by)
    found = analysed(topic)
    assert found.spans.count == 1 + is_reset
    if is_reset:
        assert spans(found) == [(1_000_000, 1_000_099), (first, first + 3)]
        assert found.missing.first == [Gap(1_000_050, 1_000_059), Gap(first + 2, first + 2)]
        assert found.fillable == [Gap(first + 2, first + 2)], "the exchange no longer has trades from before the reset"
        assert found.faults == ["missing ids"]
    else:
        assert located(found.filled_later) == [(first, first + 1, 90), (first + 3, first + 3, 92)]


def test_a_trade_from_before_the_last_reset_is_filled_later_whatever_its_id() -> None:
    topic = topic_of(*range(1_000_000, 1_000_050))
    for number in range(100, 200):
        topic.put(number, time=START + DAY + number)
    topic.put(50, 150, 1_000_050)
    for number in range(200, 210):
        topic.put(number, time=START + DAY + number)
    found = analysed(topic)
    assert found.faults == []
    assert located(found.filled_later) == [(50, 50, 150), (150, 150, 151), (1_000_050, 1_000_050, 152)]
    assert spans(found) == [(1_000_000, 1_000_049), (100, 209)]


def test_several_partitions_are_a_fault() -> None:
    first, second = Topic(), Topic(partition=1)
    first.put(*range(0, 100, 2))
    second.put(*range(1, 100, 2), 98)
    found = analysed(first, second)
    assert found.faults == ["duplicates", "several partitions"]
    assert found.partitions == {0: 50, 1: 51}
    assert found.duplicates.first == [RecordRange(98, 98, 1, 50)]


def test_the_lists_of_findings_are_bounded() -> None:
    topic = Topic()
    for number in range(0, 2400, 2):
        topic.put(number, number)
        topic.put_raw(b"{}", time_of(number))
        topic.put_raw(b"{}", START, str(number).encode())
    for number in range(100):
        topic.put(-number % 100, time=START + (number + 1) * DAY)
    found = analysed(topic)
    counts = ((found.missing, 1199), (found.duplicates, 1199), (found.malformed, 1199), (found.spans, 99))
    for kind, count in counts:
        assert kind.count >= count
        assert len(kind.first) == LISTED
    assert len(found.fillable) <= LISTED
    assert len(found.others) <= 1001
    assert sum(found.others.values()) == 1200


def test_a_range_of_ids() -> None:
    topic = topic_of(1, 2, 2, *range(5, 60), *range(100, 200), 110, 300)
    topic.put_raw(b"rubbish", time_of(300))

    def between(from_id: int | None, to_id: int | None) -> Findings:
        return analysed(topic, bounds=Bounds(from_id=from_id, to_id=to_id))

    assert (between(5, 59).faults, between(5, 59).records) == ([], 55)
    assert between(50, 110).missing.first == [Gap(60, 99)]
    assert located(between(50, 110).duplicates) == [(110, 110, 158)]
    assert between(150, 210).missing.first == [Gap(200, 210)], "the whole range should be there"
    assert between(None, 10).missing.first == [Gap(3, 4)]
    assert between(0, 1).missing.first == [Gap(0, 0)]
    assert between(60, 80).missing.first == between(60, 80).fillable == [Gap(60, 80)]
    assert between(301, None).faults == ["malformed records"], "it is in the place of 301"
    assert (between(400, None).faults, between(400, None).spans.count) == ([], 0)


def test_a_range_of_times() -> None:
    topic = topic_of(*range(10, 70), *range(75, 140), *range(147, 300))
    topic.put_raw(b"rubbish", time_of(250))

    def between(since: int | None, until: int | None) -> Findings:
        return analysed(topic, bounds=Bounds(since=since, until=until))

    whole = between(None, None)
    assert (whole.missing.size, whole.malformed.count) == (12, 1)
    within = between(time_of(84), time_of(126))
    assert (within.faults, spans(within)) == ([], [(84, 125)])
    assert between(time_of(77), time_of(126)).faults == [], "76 is older, and so is all that is missing"
    assert between(time_of(70), time_of(126)).missing.first == [Gap(70, 74)], "they may be in the range"
    assert between(time_of(84), time_of(147)).missing.first == [Gap(140, 146)]
    assert between(time_of(252), None).faults == []
    assert between(START + 1000, None).spans.count == 0
    assert between(None, START).spans.count == 0


def test_a_range_of_times_uses_the_time_of_the_trade_where_the_broker_stamps_records() -> None:
    topic = Topic()
    for trade_id in (*range(100, 200), *range(210, 300)):
        topic.put_raw(value_of(trade_id), -1)
    topic.put_raw(b"rubbish", -1)
    found = analysed(topic, bounds=Bounds(since=time_of(140), until=time_of(280)))
    assert found.records == 60 + 70
    assert found.missing.first == [Gap(200, 209)]
    assert found.malformed.count == 1


# -- random mixtures
