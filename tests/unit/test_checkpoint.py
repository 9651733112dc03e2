"""The search for the newest trade of a pair, on a topic that is a list: no broker."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.checkpoint import Checkpoint, Search
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.kafka.reader import Record, TopicScanner
from loader_ws_trades.pipeline.events import Position
from tests.unit.clock import FakeClock

NOW = 1_700_000_000_000
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
PAIR, OTHER = "POLUSDT", "BTCUSDT"

Written = tuple[int, bytes, bytes]  # time of the record, key, value


def trade(trade_id: int, moment: int, symbol: str = PAIR, *, stamped: int | None = None) -> Written:
    """A trade; `stamped` is the record's time where that is not the trade's."""
    value = {"trade_id": trade_id, "price": 1.0, "quantity": 1.0, "timestamp": moment, "is_buyer_maker": True}
    return moment if stamped is None else stamped, symbol.encode(), json.dumps(value | {"symbol": symbol}).encode()


def run_of(first: int, count: int, begin: int, step: int = 1, symbol: str = PAIR) -> list[Written]:
    return [trade(first + number, begin + number * step, symbol) for number in range(count)]


class Topic(TopicScanner):
    """A topic whose partitions are lists of records."""

    def __init__(self, *partitions: list[Written], low: int = 0, look_up: bool = True, appended: bool = False) -> None:
        self.partitions = partitions
        self.low = low
        self.look_up = look_up
        self.appended = appended
        self.append_time = False
        self.open_from: int | None = None
        self.allowed = True
        self.looks: list[int] = []
        self.read_records = 0
        self.reads = 0

    def bounds(self) -> dict[int, tuple[int, int]]:
        return {number: (min(self.low, len(part)), len(part)) for number, part in enumerate(self.partitions)}

    def stable_ends(self) -> dict[int, int]:
        return {
            number: len(part) if self.open_from is None else min(self.open_from, len(part))
            for number, part in enumerate(self.partitions)
        }

    def newest_time(self) -> int | None:
        times = [moment for part in self.partitions for moment, _, _ in part]
        return max(times) if times and self.look_up else None

    def offsets_at(self, moment: int) -> dict[int, int]:
        self.looks.append(moment)
        found = {}
        for number, part in enumerate(self.partitions if self.look_up else ()):
            for offset, (stamped, _, _) in enumerate(part):
                if stamped >= moment and offset >= self.low:
                    found[number] = offset
                    break
        return found

    def read(self, partition: int, start: int, end: int) -> Iterator[Record]:
        assert start >= self.low
        self.reads += 1
        for offset in range(start, end):
            stamped, key, value = self.partitions[partition][offset]
            self.append_time = self.appended
            self.read_records += 1
            yield Record(partition, offset, -1 if self.appended else stamped, value, key)

    def permissions(self) -> set[str]:
        return {"DESCRIBE", "READ"} if self.allowed else {"DESCRIBE"}

    def close(self) -> None:
        pass


def search(topic: Topic, limit: int, now: int = NOW, symbols: Sequence[str] = (PAIR,), **how: Any) -> Search:
    settings = {"kafka_topic": "trades", "symbol": PAIR, "resume_scan_limit": str(limit)}
    return Search(load(settings, needed=settings), symbols, topic, clock=lambda: now / 1000, **how)


def newest(topic: Topic, *, limit: int = 100_000, now: int = NOW) -> Checkpoint:
    return search(topic, limit, now).run(0)[PAIR]


# -- what is found


def test_the_highest_id_is_found_by_reading_one_minute() -> None:
    topic = Topic(run_of(1, 1000, NOW - 1000 * SECOND, SECOND))
    assert newest(topic) == Checkpoint(Position(1000, NOW - SECOND))
    assert topic.read_records == 61


@pytest.mark.parametrize(
    "bad",
    [
        b"hello",
        b"",
        b'{"price":1}',
        b'{"timestamp":1700000000000,"symbol":"POLUSDT"}',
        b'{"trade_id":9999,"timestamp":1700000000000,"symbol":"BTCUSDT"}',
        b'{"trade_id":"9999","timestamp":1700000000000,"symbol":"POLUSDT"}',
        b'{"trade_id":99999999999999999999,"timestamp":1700000000000,"symbol":"POLUSDT"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_record_that_is_not_a_trade_of_the_pair_is_skipped(bad: bytes) -> None:
    ours = run_of(1, 100, NOW - 2 * HOUR)
    topic = Topic([*ours, (NOW, PAIR.encode(), bad)])
    assert newest(topic).last == Position(100, NOW - 2 * HOUR + 99)


def test_a_last_trade_that_is_a_millisecond_older_is_the_newest() -> None:
    topic = Topic([*run_of(1, 100, NOW - 100), trade(101, NOW - 2)])
    assert newest(topic).last == Position(101, NOW - 1)


def test_a_backfill_does_not_send_the_run_back() -> None:
    live, filled = run_of(1000, 100, NOW - 100), run_of(200, 500, NOW - HOUR)
    assert newest(Topic(live + filled)).last == Position(1099, NOW - 1)


def test_with_append_time_the_trades_own_times_count() -> None:
    live = [trade(1000 + number, NOW - HOUR + number, stamped=NOW - HOUR + number) for number in range(100)]
    filled = [trade(200 + number, NOW - 5 * HOUR + number, stamped=NOW - 10 + number // 50) for number in range(500)]
    topic = Topic(live + filled, appended=True)
    assert newest(topic).last == Position(1099, NOW - HOUR + 99)


def test_with_append_time_the_brokers_clock_may_be_behind() -> None:
    behind = 9 * MINUTE
    records = [trade(1 + number, NOW + number, stamped=NOW - behind + number) for number in range(100)]
    late = [trade(5000 + number, NOW - 10 * HOUR, OTHER, stamped=NOW) for number in range(3)]
    topic = Topic(records + late, appended=True)
    assert newest(topic, now=NOW + HOUR).last == Position(100, NOW + 99)
    assert min(topic.looks) >= NOW - MINUTE - 10 * MINUTE


@pytest.mark.parametrize("stamped", [NOW, NOW + 20 * MINUTE, NOW + HOUR])
@pytest.mark.parametrize("later", [0, 30 * MINUTE, 3 * HOUR])
def test_a_trade_far_ahead_does_not_send_the_run_back(stamped: int, later: int) -> None:
    ahead = trade(1000, max(stamped, NOW + 20 * MINUTE), stamped=stamped)
    behind = run_of(1001, 600, NOW + SECOND, SECOND)
    topic = Topic([*run_of(1, 999, NOW - 999 * SECOND, SECOND), ahead, *behind])
    found = newest(topic, now=NOW + 600 * SECOND + later).last
    assert found is not None
    assert found.trade_id == 1600


def test_nonsense_far_ahead_costs_one_more_scan() -> None:
    ours = run_of(1, 5000, NOW - 5000)
    topic = Topic([(NOW + 1000 * HOUR, b"x", b"x"), *run_of(1, 3000, NOW - 10_000, 1, OTHER), *ours])
    assert newest(topic).last == Position(5000, NOW - 1)
    quiet = Topic([*run_of(1, 10, NOW - 5 * HOUR), (NOW + 1000 * HOUR, b"x", b"x"), *run_of(1, 3000, NOW, 1, OTHER)])
    assert newest(quiet).last == Position(10, NOW - 5 * HOUR + 9)
    assert quiet.reads == 2


def test_a_quiet_pair_is_found_further_back() -> None:
    quiet, busy = run_of(1, 10, NOW - 20 * HOUR), run_of(1, 7200, NOW - 2 * HOUR, SECOND, OTHER)
    assert newest(Topic(quiet + busy)).last == Position(10, NOW - 20 * HOUR + 9)


def test_a_trade_at_the_start_of_the_scan_is_found() -> None:
    topic = Topic([trade(1, NOW - 10 * HOUR), trade(7, NOW - MINUTE), trade(1, NOW, OTHER)])
    assert newest(topic).last == Position(7, NOW - MINUTE)
    assert topic.looks == [NOW - MINUTE]


def test_a_trade_written_late_is_found_once_its_time_is_scanned() -> None:
    late = trade(7, NOW - 3 * MINUTE)
    topic = Topic([trade(1, NOW - 10 * HOUR), trade(1, NOW - 50 * SECOND, OTHER), late, trade(2, NOW, OTHER)])
    assert newest(topic).last == Position(7, NOW - 3 * MINUTE)
    assert topic.looks == [NOW - MINUTE, NOW - 4 * MINUTE]


@pytest.mark.parametrize("low", [0, 1])
def test_trades_that_were_all_written_late_are_found(low: int) -> None:
    records = [trade(1 + number, NOW - 10 * HOUR + number, stamped=NOW + number) for number in range(100)]
    assert newest(Topic(records, low=low, appended=True)).last == Position(100, NOW - 10 * HOUR + 99)


def test_all_partitions_are_read() -> None:
    topic = Topic(run_of(1, 10, NOW - 30), run_of(11, 10, NOW - 20), [], run_of(1, 5, NOW, 1, OTHER))
    assert newest(topic).last == Position(20, NOW - 11)


def test_a_reset_is_three_rising_ids_in_a_row_that_are_later() -> None:
    old = run_of(1_000_000, 100, NOW - 1000)
    assert newest(Topic(old + run_of(1, 3, NOW - 500))).last == Position(3, NOW - 498)
    assert newest(Topic(old + run_of(1, 3, NOW - 500) + [trade(4, NOW - 500)])).last == Position(4, NOW - 498)
    assert newest(Topic(old + run_of(1, 2, NOW - 500))).last == Position(1_000_099, NOW - 901)
    assert newest(Topic(old + run_of(1, 3, NOW - 500, 0))).last == Position(3, NOW - 500)
    assert newest(Topic(old + run_of(1, 3, NOW - 901, 0))).last == Position(1_000_099, NOW - 901)
    gapped = [trade(1, NOW - 500), trade(2, NOW - 499), trade(4, NOW - 498)]
    assert newest(Topic(old + gapped)).last == Position(1_000_099, NOW - 901)


def test_backfilled_ids_from_before_a_reset_do_not_count() -> None:
    old, new = run_of(1_000_000, 1000, NOW - 20 * MINUTE), run_of(1, 1000, NOW - 10 * MINUTE, 500)
    filled = run_of(999_000, 100, NOW - 30 * MINUTE) + run_of(1_000_500, 2, NOW - 20 * MINUTE + 500)
    assert newest(Topic(old + new + filled)).last == Position(1000, NOW - 10 * MINUTE + 999 * 500)


# -- what is not found


def test_a_pair_is_new_only_if_every_record_ever_written_was_read() -> None:
    assert newest(Topic([])) == Checkpoint()
    assert newest(Topic([], [])) == Checkpoint()
    assert newest(Topic(run_of(1, 100, NOW - HOUR, 1, OTHER))) == Checkpoint()


def test_deleted_records_may_have_been_the_pairs() -> None:
    found = newest(Topic(run_of(1, 100, NOW - 100, 1, OTHER), low=1))
    assert found.last is None
    assert found.since is not None
    assert found.since <= NOW - MINUTE
    assert found.doubt == f"The topic trades has no trade of {PAIR}, but older records were deleted"


def test_the_scanned_time_is_never_ahead_of_the_clock() -> None:
    nonsense = (NOW + 1000 * HOUR, b"x", b"x")
    found = newest(Topic([nonsense, nonsense, *run_of(1, 100, NOW - 100, 1, OTHER)], low=1))
    assert found.since is not None
    assert found.since <= NOW - MINUTE


def test_the_limit_is_a_number_of_records_that_may_be_read() -> None:
    records = [trade(1, NOW - 10 * HOUR, OTHER), *run_of(2, 300, NOW - 299 * SECOND, SECOND, OTHER)]
    assert newest(Topic(records), limit=61).since == NOW - MINUTE
    assert newest(Topic(records), limit=60).since is None


def test_a_topic_whose_records_were_all_deleted() -> None:
    found = newest(Topic(run_of(1, 100, NOW - 100), low=100))
    assert found == Checkpoint(doubt="The topic trades is empty: all its records were deleted")


def test_the_limit_ends_the_search_at_the_scanned_time() -> None:
    quiet, busy = run_of(1, 10, NOW - 20 * HOUR), run_of(1, 7200, NOW - 2 * HOUR, SECOND, OTHER)
    topic = Topic(quiet + busy)
    found = newest(topic, limit=1000)
    assert (found.last, found.since) == (None, NOW - SECOND - 16 * MINUTE)
    assert "RESUME_SCAN_LIMIT" in (found.doubt or "")
    assert topic.read_records <= 2 * 1000


def test_without_a_look_up_by_time_the_newest_records_are_read() -> None:
    records = run_of(1, 1000, NOW - 100_000) + run_of(1, 3000, NOW - 50_000, 1, OTHER)
    assert newest(Topic(records, look_up=False)).last == Position(1000, NOW - 100_000 + 999)
    assert newest(Topic(run_of(1, 50, NOW, 1, OTHER), look_up=False)) == Checkpoint()
    topic = Topic(records, run_of(5, 10, NOW, 1, OTHER), look_up=False)
    found = newest(topic, limit=2000)
    assert (found.last, found.since) == (None, None)
    assert "among its newest 2000 records" in (found.doubt or "")
    assert topic.read_records == 2000
    assert newest(topic, limit=3500).last == Position(1000, NOW - 100_000 + 999)


def test_a_time_far_ahead_that_makes_the_look_up_useless_leaves_the_newest_records() -> None:
    records = [trade(1, NOW, OTHER, stamped=NOW + 1000 * HOUR), *run_of(1, 5000, NOW - 5000 * SECOND, SECOND)]
    assert newest(Topic(records), limit=1000).last == Position(5000, NOW - SECOND)


# -- the end of the topic


def test_a_hidden_end_is_awaited_and_read_up_to_where_it_was_at_first(clock: FakeClock) -> None:
    topic = Topic(run_of(1, 100, NOW - 100))
    topic.open_from = 99
    looking = search(topic, 1000, pause=clock.event().wait)
    with pytest.raises(HiddenError, match="partition 0, from offset 99 on"):
        looking.run(1.0)
    assert topic.read_records == 0
    topic.partitions = (topic.partitions[0] + run_of(101, 5, NOW),)
    topic.open_from = 100
    assert looking.run(1.0)[PAIR].last == Position(100, NOW - 1)


def test_a_transaction_that_ends_while_the_search_waits(clock: FakeClock) -> None:
    topic = Topic(run_of(1, 100, NOW - 100))
    topic.open_from = 50
    clock.after(0.5, lambda: setattr(topic, "open_from", None))
    looking = search(topic, 1000, pause=clock.event().wait)
    assert looking.run(1.0)[PAIR].last == Position(100, NOW - 1)


def test_an_empty_topic_without_permission_to_read() -> None:
    topic = Topic([])
    topic.allowed = False
    with pytest.raises(UnavailableError, match="denies READ"):
        newest(topic)


# -- several pairs


def test_several_pairs_are_found_in_one_pass_and_the_quiet_ones_further_back() -> None:
    busy, quiet = run_of(1, 600, NOW - 600 * SECOND, SECOND, OTHER), run_of(1, 10, NOW - 500 * SECOND)
    topic = Topic(sorted(busy + quiet))
    found = search(topic, 100_000, symbols=[PAIR, OTHER, "NEWUSDT"]).run(0)
    assert found[OTHER].last == Position(600, NOW - SECOND)
    assert found[PAIR].last == Position(10, NOW - 500 * SECOND + 9)
    assert found["NEWUSDT"] == Checkpoint(), "the topic was read from its first record"
    assert topic.looks[:3] == [NOW - SECOND - MINUTE * 4**number for number in range(3)]


@pytest.mark.parametrize("seed", range(40))
def test_each_of_several_pairs_is_found_as_if_it_were_alone(seed: int) -> None:
    chance = random.Random(seed)
    symbols = [PAIR, OTHER, "AUSDT", "BUSDT"]
    partitions: list[list[Written]] = [[], []]
    for symbol in symbols[: chance.randint(1, 4)]:
        moment, trade_id = NOW - chance.choice([10, 500, 20_000]) * SECOND, chance.randint(1, 1000)
        for _ in range(chance.randint(1, 60)):
            moment += chance.choice([1, 1000, 60_000])
            trade_id = max(1, trade_id + chance.choice([1, 1, 1, 2, -3, -500]))
            late = chance.choice([0, 0, 0, 5 * MINUTE])
            partitions[chance.randrange(2)].append(trade(trade_id, moment - late, symbol, stamped=moment))
    for part in partitions:
        part.sort()
    low, appended = chance.choice([0, 0, 3]), chance.random() < 0.3

    def topic() -> Topic:
        return Topic(*partitions, low=low, appended=appended)

    alone = {symbol: search(topic(), 100_000, symbols=[symbol]).run(0)[symbol] for symbol in symbols}
    assert search(topic(), 100_000, symbols=symbols).run(0) == alone
