"""What is planted among the records of a topic is found, and nothing else: by example, and in random mixtures."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loader_ws_trades.audit.analysis import Examination
from loader_ws_trades.audit.findings import LISTED, Findings, Stretch
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord
from loader_ws_trades.pipeline.sequencer import Gap

SYMBOL = "POLUSDT"
DAY = 1_700_000_000_000


def time_of(trade_id: int) -> int:
    """Seven trades to the millisecond."""
    return DAY + trade_id // 7


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
    """Records of one partition as they are planted."""

    partition: int = 0
    records: list[AnyRecord] = field(default_factory=list)

    def put(self, *trade_ids: int, time: int | None = None) -> int:
        """Append good records; the offset of the first."""
        offset = len(self.records)
        for trade_id in trade_ids:
            self.put_raw(value_of(trade_id, time), time_of(trade_id) if time is None else time)
        return offset

    def put_raw(self, value: bytes | None, time: int, key: bytes | None = SYMBOL.encode()) -> int:
        """Append a record as it is said; its offset."""
        self.records.append((self.partition, len(self.records), time, value, key))
        return len(self.records) - 1


def examined(*topics: Topic, bounds: Bounds | None = None) -> Findings:
    examination = Examination(SYMBOL, bounds)
    for topic in topics:
        examination.take(topic.records)
    return examination.findings()


def of(*trade_ids: int) -> Findings:
    topic = Topic()
    topic.put(*trade_ids)
    return examined(topic)


def test_nothing_is_found_in_trades_in_order() -> None:
    found = of(*range(100, 5000))
    assert found.faults == []
    assert (found.scanned, found.records, found.partitions) == (4900, 4900, {0: 4900})
    [span] = found.spans.first
    assert (span.first, span.last) == ((100, time_of(100)), (4999, time_of(4999)))
    assert found.missing.count == found.filled_later.count == 0
    assert found.others == {}


def test_an_empty_topic_has_no_faults_and_no_trades() -> None:
    assert examined().faults == []
    assert examined().spans.count == 0


def test_where_the_broker_stamps_records_the_trades_own_times_are_judged() -> None:
    topic = Topic()
    for trade_id in (*range(100, 200), *range(210, 300)):
        topic.put_raw(value_of(trade_id), -1)
    topic.put_raw(b"rubbish", -1)
    found = examined(topic, bounds=Bounds(since=time_of(140), until=time_of(280)))
    assert found.records == 60 + 70
    assert [tuple(gap) for gap in found.missing.first] == [(200, 209)]
    assert found.malformed.count == 1


def test_a_trade_far_ahead_of_the_clock_that_stamped_its_record_is_no_fault() -> None:
    topic = Topic()
    topic.put(*range(100, 110))
    topic.put_raw(value_of(110, DAY + 7_200_000), time_of(110))
    topic.put(*range(111, 120))
    topic.put_raw(value_of(120, DAY + 1_800_000), DAY)
    assert examined(topic).malformed.count == 1
    assert examined(topic).records == 21


def test_missing_ids_are_found() -> None:
    found = of(1, 2, 3, 7, 8, 10)
    assert found.missing.first == found.fillable == [Gap(4, 6), Gap(9, 9)]
    assert (found.missing.count, found.missing.size) == (2, 4)
    assert found.faults == ["missing ids"]


def test_duplicates_are_found_by_stretches() -> None:
    found = of(*range(1, 51), *range(20, 31), 51, 51, 52, 40)
    assert found.duplicates.first == [Stretch(20, 30, 0, 50), Stretch(51, 51, 0, 62), Stretch(40, 40, 0, 64)]
    assert (found.duplicates.count, found.duplicates.size) == (3, 13)
    assert found.faults == ["duplicates"]


def test_two_loaders_at_once_are_one_stretch_of_duplicates() -> None:
    found = of(*(number for number in range(1000) for _ in "ab"))
    assert found.duplicates.first == [Stretch(0, 999, 0, 1)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([2, 1, *range(3, 30)], [(1, 1, 1)]),
        ([*range(20), 21, 20, *range(22, 30)], [(20, 20, 21)]),
        ([*range(20), 23, 22, 21, 20, *range(24, 40)], [(22, 22, 21), (21, 21, 22), (20, 20, 23)]),
        ([*range(20), 29, *range(20, 29), *range(30, 50)], [(20, 28, 21)]),
        ([*range(20), *range(25, 34), 20, *range(34, 50)], [(20, 20, 29)]),
    ],
    ids=["at-the-beginning", "two-swapped", "reversed", "one-too-early", "one-too-late"],
)
def test_disorder_is_found(ids: list[int], expected: list[tuple[int, int, int]]) -> None:
    found = of(*ids)
    assert found.disorder.first == [Stretch(first, last, 0, offset) for first, last, offset in expected]
    assert found.filled_later.count == 0


def test_a_hole_that_is_filled_later_is_no_fault() -> None:
    found = of(*range(1, 10), *range(15, 40), *range(10, 15), 40)
    assert found.faults == []
    assert found.filled_later.first == [Stretch(10, 14, 0, 34)]


def test_a_hole_filled_soon_by_the_records_but_late_by_the_clock_is_no_fault() -> None:
    topic = Topic()
    topic.put(1, 2, 3)
    topic.put(7, time=time_of(6) + 60_000)
    topic.put(4, 5, 6)
    assert examined(topic).filled_later.first == [Stretch(4, 6, 0, 4)]
    assert examined(topic).faults == []


def test_history_filled_in_behind_few_live_trades_is_no_fault() -> None:
    topic = Topic()
    topic.put(1_000_000, 1_000_001, time=time_of(1_000_000) + 58_000)
    topic.put(*range(980_000, 1_000_000))
    found = examined(topic)
    assert found.faults == []
    assert found.filled_later.first == [Stretch(980_000, 999_999, 0, 2)]
    assert found.spans.first[0].first.trade_id == 980_000


def test_filling_beside_a_live_loader_is_one_stretch() -> None:
    hole, live = range(100, 200), range(1000, 1100)
    ids = [*range(100), *range(200, 1000), *(number for pair in zip(live, hole, strict=True) for number in pair)]
    found = of(*ids)
    assert found.faults == []
    assert found.filled_later.first == [Stretch(100, 199, 0, 901)]


BAD: list[tuple[bytes | None, bytes | None, int, str, bool]] = [
    (None, b"POLUSDT", 50, "tombstone", False),
    (b"", b"POLUSDT", 50, "truncated", False),
    (b"rubbish", b"POLUSDT", 50, "malformed", False),
    (b"\xff" * 300, b"POLUSDT", 50, "malformed", False),
    (b"[" * 100_000, b"POLUSDT", 50, "", False),
    (b"[1]", b"POLUSDT", 50, "Expected", False),
    (value_of(50, price="0.25"), b"POLUSDT", 50, "is no plain decimal number", True),
    (value_of(50, price=1e-7), b"POLUSDT", 50, "the price 1e-07 is no plain decimal number", True),
    (value_of(50, quantity=-1), b"POLUSDT", 50, "the quantity -1 is", True),
    (value_of(50, quantity=None), b"POLUSDT", 50, "the quantity null is", True),
    (value_of(50, more=1), b"POLUSDT", 50, "unknown field", True),
    (value_of(50).replace(b', "is_buyer_maker": true', b""), b"POLUSDT", 50, "missing required", True),
    (value_of(50, is_buyer_maker=1), b"POLUSDT", 50, "is_buyer_maker", True),
    (value_of(50, timestamp="1"), b"POLUSDT", 50, "timestamp", True),
    (value_of(50, trade_id="50"), b"POLUSDT", 50, "trade_id", False),
    (value_of(50, trade_id=-1), b"POLUSDT", 50, "trade_id", False),
    (value_of(50, trade_id=2**64), b"POLUSDT", 50, "trade_id", False),
    (value_of(50, trade_id=50.5), b"POLUSDT", 50, "trade_id", False),
    (value_of(50, symbol="BTCUSDT"), b"POLUSDT", 50, "the key is POLUSDT, the symbol BTCUSDT", False),
    (value_of(50), b"BTCUSDT", 50, "the key is BTCUSDT, the symbol POLUSDT", True),
    (value_of(50), None, 50, "the key is none, the symbol POLUSDT", True),
    (b"rubbish", None, 50, "malformed", False),
    (value_of(50), b"POLUSDT", 500, "the record's timestamp is", True),
]


@pytest.mark.parametrize(("value", "key", "time_id", "reason", "readable"), BAD)
def test_malformed_records_are_found(
    value: bytes | None, key: bytes | None, time_id: int, reason: str, readable: bool
) -> None:
    topic = Topic()
    topic.put(*range(50))
    topic.put_raw(value, time_of(time_id), key)
    topic.put(*range(51, 100))
    found = examined(topic)
    [bad] = found.malformed.first
    assert (bad.partition, bad.offset) == (0, 50)
    assert reason in bad.reason
    assert len(bad.reason) <= 300
    assert bad.reason.isprintable()
    # One whose id can be read is there, if not as it should be.
    assert found.missing.size == (0 if readable else 1)
    assert found.others == {}


def test_other_symbols_are_counted_and_not_judged() -> None:
    topic = Topic()
    topic.put(1)
    for number in range(5):
        topic.put_raw(value_of(7 - number, symbol="BTCUSDT"), DAY, b"BTCUSDT")
    topic.put_raw(None, DAY, b"ETHUSDT")
    topic.put_raw(b"rubbish", DAY, b"ETHUSDT")
    topic.put_raw(value_of(9, symbol="BNBBTC"), DAY, None)
    topic.put_raw(b"", DAY, b"\x1b[31m" + b"x" * 100_000)
    topic.put(2)
    found = examined(topic)
    assert found.faults == []
    assert (found.scanned, found.records) == (11, 2)
    assert list(found.others.items())[:3] == [("BTCUSDT", 5), ("ETHUSDT", 2), ("BNBBTC", 1)]
    assert all(name.isprintable() and len(name) < 100 for name in found.others)


def test_a_reset_of_ids_begins_a_new_sequence() -> None:
    topic = Topic()
    topic.put(*range(1_000_000, 1_000_050), *range(1_000_060, 1_000_100))
    for number in (3, 4, 6, 7):
        topic.put(number, time=DAY + 86_400_000 + number)
    found = examined(topic)
    assert [(span.first.trade_id, span.last.trade_id) for span in found.spans.first] == [(1_000_000, 1_000_099), (3, 7)]
    assert found.missing.first == [Gap(1_000_050, 1_000_059), Gap(5, 5)]
    assert found.fillable == [Gap(5, 5)], "the exchange has no more what came before it began anew"
    assert found.faults == ["missing ids"]


def test_what_fills_a_hole_of_the_sequence_before_the_last_is_of_that_one() -> None:
    topic = Topic()
    topic.put(*range(1_000_000, 1_000_050), *range(1_000_060, 1_000_100))
    for number in range(100):
        topic.put(number, time=DAY + 86_400_000 + number)
    topic.put(*range(1_000_050, 1_000_060))
    found = examined(topic)
    assert found.faults == []
    assert found.filled_later.first == [Stretch(1_000_050, 1_000_059, 0, 190)]
    assert found.spans.count == 2


def test_a_symbol_on_several_partitions_is_a_fault_of_its_own() -> None:
    first, second = Topic(), Topic(partition=1)
    first.put(*range(0, 100, 2))
    second.put(*range(1, 100, 2), 98)
    found = examined(first, second)
    assert found.faults == ["duplicates", "several partitions"]
    assert found.partitions == {0: 50, 1: 51}
    assert found.duplicates.first == [Stretch(98, 98, 1, 50)]


def test_many_faults_are_counted_and_the_first_of_them_listed() -> None:
    topic = Topic()
    for number in range(0, 20_000, 2):
        topic.put(number, number)
        topic.put_raw(b"{}", time_of(number))
        topic.put_raw(b"{}", DAY, str(number).encode())
    found = examined(topic)
    for kind in (found.missing, found.duplicates, found.malformed):
        assert kind.count >= 9_999
        assert len(kind.first) == LISTED
    assert len(found.fillable) == LISTED
    assert len(found.others) <= 1001
    assert sum(found.others.values()) == 10_000


def test_ids_that_begin_anew_near_the_old_ones_without_a_pause_are_a_new_sequence() -> None:
    topic = Topic()
    for number in (*range(100, 140), *range(120, 150)):
        topic.put(number, time=DAY + len(topic.records))
    found = examined(topic)
    assert [(span.first.trade_id, span.last.trade_id) for span in found.spans.first] == [(100, 139), (120, 149)]
    assert not found.faults


@pytest.mark.parametrize("again", [(138, 139), (120, 121, 123, 124), (130, 131, 140, 132, 133)])
def test_fewer_than_three_near_ones_in_a_row_are_no_new_sequence(again: tuple[int, ...]) -> None:
    topic = Topic()
    for number in (*range(100, 140), *again, *range(max(140, again[-1] + 1), 150)):
        topic.put(number, time=DAY + len(topic.records))
    found = examined(topic)
    assert found.spans.count == 1
    assert found.duplicates.size >= 2


def test_ids_that_begin_anew_again_and_again_are_counted() -> None:
    topic = Topic()
    for number in range(1000):
        topic.put(1_000_000 - number, 1_000_002 - number, time=DAY + number * 86_400_000)
    found = examined(topic)
    assert found.spans.count == found.missing.count == 1000
    assert len(found.spans.first) == LISTED
    assert found.fillable == [Gap(999_002, 999_002)]


def test_ids_that_are_asked_for_are_judged_alone() -> None:
    ids = [1, 2, 2, *range(5, 60), *range(100, 200), 110, 300]
    topic = Topic()
    topic.put(*ids)
    topic.put_raw(b"rubbish", time_of(300))

    def between(from_id: int | None, to_id: int | None) -> Findings:
        return examined(topic, bounds=Bounds(from_id=from_id, to_id=to_id))

    assert between(5, 59).faults == []
    assert between(5, 59).records == 55
    assert between(50, 110).missing.first == [Gap(60, 99)]
    assert between(50, 110).duplicates.first == [Stretch(110, 110, 0, 158)]
    assert between(150, 210).missing.first == [Gap(200, 210)], "all that was asked for should be there"
    assert between(None, 10).missing.first == [Gap(3, 4)]
    assert between(0, 1).missing.first == [Gap(0, 0)]
    assert between(60, 80).missing.first == between(60, 80).fillable == [Gap(60, 80)]
    assert between(301, None).faults == ["malformed records"], "it stands where 301 should"
    assert between(400, None).faults == []
    assert between(400, None).spans.count == 0


def test_times_that_are_asked_for_are_judged_alone_and_the_ends_with_them() -> None:
    topic = Topic()
    topic.put(*range(10, 70), *range(75, 140), *range(147, 300))
    topic.put_raw(b"rubbish", time_of(250))

    def between(since: int | None, until: int | None) -> Findings:
        return examined(topic, bounds=Bounds(since=since, until=until))

    whole = between(None, None)
    assert (whole.missing.size, whole.malformed.count) == (12, 1)
    within = between(time_of(84), time_of(126))
    assert within.faults == []
    assert (within.spans.first[0].first.trade_id, within.spans.first[0].last.trade_id) == (84, 125)
    assert between(time_of(77), time_of(126)).faults == [], "76 happened before, so all that is missing did"
    assert between(time_of(70), time_of(126)).missing.first == [Gap(70, 74)], "they may have happened within"
    assert between(time_of(84), time_of(147)).missing.first == [Gap(140, 146)]
    assert between(time_of(252), None).faults == []
    assert between(DAY + 1000, None).spans.count == 0
    assert between(None, DAY).spans.count == 0


# -- random mixtures

BLOCK = 40


@dataclass
class Planted:
    """A topic, and what should be found on it."""

    topic: Topic = field(default_factory=Topic)
    missing: list[Gap] = field(default_factory=list)
    duplicates: list[Stretch] = field(default_factory=list)
    disorder: list[Stretch] = field(default_factory=list)
    filled_later: list[Stretch] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)
    others: int = 0
    owed: list[range] = field(default_factory=list)  # to be filled in later

    def plant(self, kind: str, ids: range, rng: random.Random) -> None:
        """Append the trades `ids` with one fault between the 10th and the 20th of them."""
        at, length = ids[rng.randrange(10, 14)], rng.randrange(1, 6)
        hit = range(at, at + length)
        self.topic.put(*range(ids[0], at))
        rest = range(at, ids[-1] + 1)
        if kind in {"hole", "filled later"}:
            rest = range(hit[-1] + 1, ids[-1] + 1)
            if kind == "hole":
                self.missing.append(Gap(hit[0], hit[-1]))
            else:
                self.owed.append(hit)
        elif kind == "duplicate":
            offset = self.topic.put(*range(at - length, at))
            self.duplicates.append(Stretch(at - length, at - 1, 0, offset))
        elif kind == "disorder":
            self.topic.put(at + length)
            self.disorder.append(Stretch(at, at + length - 1, 0, self.topic.put(*hit)))
            rest = range(at + length + 1, ids[-1] + 1)
        elif kind == "malformed":
            self.malformed.append(self.topic.put_raw(rng.choice([b"{}", b"rubbish", None]), time_of(at)))
        elif kind == "foreign":
            self.topic.put_raw(value_of(at, symbol="BTCUSDT"), time_of(at), b"BTCUSDT")
            self.others += 1
        self.topic.put(*rest)

    def settle(self) -> None:
        """Fill in later what is owed."""
        for hit in self.owed:
            self.filled_later.append(Stretch(hit[0], hit[-1], 0, self.topic.put(*hit)))
        self.owed.clear()


KINDS = ["none", "hole", "duplicate", "disorder", "malformed", "foreign", "filled later", "settle"]


@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    kinds=st.lists(st.sampled_from(KINDS), max_size=18),
    first=st.sampled_from([0, 1000, 5_000_000_000]),
    ending=st.sampled_from(["no reset", "reset", "reset, then settled"]),
    piece=st.sampled_from([1, 7, 50, 10_000]),
    seed=st.integers(0, 1000),
)
def test_what_is_planted_is_found_and_nothing_else(
    kinds: list[str], first: int, ending: str, piece: int, seed: int
) -> None:
    planted, rng = Planted(), random.Random(seed)
    topic = planted.topic
    start = first
    for kind in kinds:
        planted.plant(kind, range(start, start + BLOCK), rng)
        start += BLOCK
        if kind == "settle":
            planted.settle()
    topic.put(*range(start, start + BLOCK))
    if ending != "reset, then settled":
        planted.settle()
    is_reset = ending != "no reset" and first > 0
    if is_reset:
        for number in range(BLOCK):
            topic.put(number, time=time_of(start) + 86_400_000)
    planted.settle()

    examination = Examination(SYMBOL)
    for place in range(0, len(topic.records), piece):
        examination.take(topic.records[place : place + piece])
    found = examination.findings()
    assert found.missing.first == planted.missing
    assert found.duplicates.first == planted.duplicates
    assert found.disorder.first == planted.disorder
    assert found.filled_later.first == planted.filled_later
    assert [bad.offset for bad in found.malformed.first] == planted.malformed
    assert found.others == ({"BTCUSDT": planted.others} if planted.others else {})
    assert found.spans.count == 1 + is_reset
    assert found.spans.first[0].first.trade_id == first
    assert found.spans.first[0].last.trade_id == start + BLOCK - 1
    assert found.records == len(topic.records) - len(planted.malformed) - planted.others
    assert found.scanned == len(topic.records)
