"""Order, gaps and repeats by trade id."""

from __future__ import annotations

from loader_ws_trades.sequence import Gap, Reset, Sequence, ranges
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


def test_a_low_id_of_the_same_time_is_a_repeat_however_far_below() -> None:
    sequence = Sequence()
    sequence.push(trades(1_000_000))
    assert sequence.push(trades(1)) == ([], [])
    assert sequence.duplicates == 1


def test_gaps_read_like_ranges() -> None:
    assert [str(gap) for gap in (Gap(5, 5), Gap(100, 107))] == ["5", "100-107"]
    assert ranges([5, 3, 4, 9, 3]) == [Gap(3, 5), Gap(9, 9)]
