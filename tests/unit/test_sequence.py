"""Order, gaps and repeats by trade id."""

from __future__ import annotations

import pytest

from loader_ws_trades.sequence import Gap, Position, Reset, Sequence, ranges
from loader_ws_trades.trade import Trade

NOW = 1_700_000_000_000


def trades(*ids: int, at: int = NOW) -> list[Trade]:
    return [Trade(trade_id, "1.0", "1.0", at, True, "BTCUSDT") for trade_id in ids]


def ids(found: object) -> list[int]:
    return [trade.trade_id for trade in found]  # type: ignore[attr-defined]


def test_the_first_trade_is_taken_as_it_comes() -> None:
    out, events = Sequence().push(trades(7, 8, 9))
    assert ids(out) == [7, 8, 9]
    assert not events


def test_the_first_trade_may_have_the_id_0() -> None:
    sequence = Sequence()
    assert ids(sequence.push(trades(0, 1))[0]) == [0, 1]
    assert ids(sequence.push(trades(2))[0]) == [2]


def test_nothing_in_nothing_out() -> None:
    sequence = Sequence()
    assert sequence.push([]) == ([], [])
    assert ids(sequence.push(trades(5))[0]) == [5]


def test_repeats_are_dropped_and_counted() -> None:
    sequence = Sequence()
    sequence.push(trades(1, 2, 3))
    out, events = sequence.push(trades(2, 3, 4, 4, 1, 5))
    assert ids(out) == [4, 5]
    assert not events
    assert sequence.duplicates == 4


def test_gaps_are_named_within_a_read_and_between_reads() -> None:
    sequence = Sequence(window=0)
    out, events = sequence.push(trades(1, 2, 5, 6, 10))
    assert ids(out) == [1, 2, 5, 6, 10]
    assert events == [Gap(3, 4), Gap(7, 9)]
    assert sequence.push(trades(12))[1] == [Gap(11, 11)]


def test_a_low_id_that_is_later_in_time_begins_a_new_sequence() -> None:
    sequence = Sequence()
    sequence.push(trades(1_000_000, 1_000_001))
    out, events = sequence.push(trades(1, 2, at=NOW + 60_000))
    assert ids(out) == [1, 2]
    assert events == [Reset(1_000_001, 1)]
    assert ids(sequence.push(trades(3, at=NOW + 60_000))[0]) == [3]


def test_a_low_id_of_an_earlier_time_is_a_repeat_however_far_below() -> None:
    sequence = Sequence()
    sequence.push(trades(1_000_000))
    assert sequence.push(trades(1, at=NOW - 1)) == ([], [])
    assert sequence.push(trades(999_999, at=NOW + 500)) == ([], [])
    assert sequence.duplicates == 2


def test_a_far_lower_id_that_is_not_earlier_begins_a_new_sequence_at_once() -> None:
    sequence = Sequence()
    sequence.push(trades(1_000_000))
    assert sequence.push(trades(1, 2))[1] == [Reset(1_000_000, 1)]


def test_a_gap_holds_back_what_follows_until_it_is_filled_or_given_up() -> None:
    sequence = Sequence(window=100)
    assert ids(sequence.push(trades(1, 2, 5, 6, 10))[0]) == [1, 2]
    assert sequence.gap() == Gap(3, 4)
    assert (sequence.held, sequence.behind, sequence.in_order) == (3, 8, False)
    assert ids(sequence.fill(trades(3, 4, 5))[0]) == [3, 4, 5, 6]
    assert sequence.gap() == Gap(7, 9)
    out, events = sequence.skip(10)
    assert ids(out) == [10]
    assert events == [Gap(7, 9)]
    assert sequence.in_order


def test_what_is_too_far_ahead_is_let_go_and_only_its_sign_kept() -> None:
    sequence = Sequence(window=3)
    sequence.push(trades(1, 10))
    assert (sequence.held, sequence.gap()) == (0, Gap(2, 10))
    assert ids(sequence.fill(trades(2, 3, 4, 5, 6, 7))[0]) == [2, 3, 4, 5, 6, 7]
    assert sequence.gap() == Gap(8, 10)
    assert ids(sequence.push(trades(11))[0]) == []
    assert sequence.gap() == Gap(8, 10)
    assert ids(sequence.fill(trades(8, 9, 10))[0]) == [8, 9, 10, 11]
    assert sequence.gap() is None


def test_one_wild_id_holds_nothing_back() -> None:
    sequence = Sequence(window=100)
    sequence.push(trades(1, 2**60))
    assert ids(sequence.push(trades(2, 3))[0]) == [2, 3]
    assert sequence.in_order


def test_a_run_goes_on_behind_the_last_trade_of_the_one_before() -> None:
    sequence = Sequence(window=100)
    sequence.resume(Position(41, trades(41)[0].timestamp))
    sequence.expect(44)
    assert sequence.gap() == Gap(42, 44)
    assert ids(sequence.push(trades(40, 41, 43))[0]) == []
    assert ids(sequence.fill(trades(42, 43, 44))[0]) == [42, 43]
    assert sequence.duplicates == 2, "the 43 from REST, which was held already, is no repeat"


def test_gaps_read_like_ranges() -> None:
    assert [str(gap) for gap in (Gap(5, 5), Gap(100, 107))] == ["5", "100-107"]
    assert ranges([5, 3, 4, 9, 3]) == [Gap(3, 5), Gap(9, 9)]


@pytest.mark.parametrize(
    "rows",
    [trades(1, 2, 3), trades(1, 2, 3, at=NOW + 60_000), trades(112, 113), trades(10**9)],
    ids=["below", "below and later", "above the newest seen", "far above"],
)
def test_rows_of_ids_that_are_not_missing_do_not_count(rows: list[Trade]) -> None:
    sequence = Sequence()
    sequence.push(trades(100))
    sequence.push(trades(105, 111))
    assert sequence.fill(rows) == ([], []), "no trade, and no new sequence"
    assert (sequence.gap(), sequence.behind, sequence.held, sequence.duplicates) == (Gap(101, 104), 11, 2, 0)
    out, events = sequence.fill([*trades(100), *rows, *trades(101, 102, 103, 104, 106)])
    assert (ids(out), events) == ([101, 102, 103, 104, 105, 106], [])


def test_rows_without_a_gap_do_not_count() -> None:
    sequence = Sequence()
    assert sequence.fill(trades(1, 2)) == ([], [])
    sequence.push(trades(5))
    assert sequence.fill(trades(4, 5, 6)) == ([], [])
    assert ids(sequence.push(trades(6))[0]) == [6]
