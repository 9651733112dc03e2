"""The sequencer: order, gaps, duplicates and resets by trade id."""

from __future__ import annotations

import pytest

from loader_ws_trades.pipeline.events import Event, Gap, Late, Position, Reset
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock

NOW = 1_700_000_000_000


def trades(*ids: int, at: int = NOW) -> list[Trade]:
    return [Trade(trade_id, "1.0", "1.0", at, True, "BTCUSDT") for trade_id in ids]


def ids(found: object) -> list[int]:
    return [trade.trade_id for trade in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", [0, 7])
def test_push_takes_the_first_trade_whatever_its_id(first: int) -> None:
    sequence = Sequencer()
    assert sequence.push([]) == ([], [])
    out, events = sequence.push(trades(first, first + 1))
    assert (ids(out), events) == ([first, first + 1], [])
    assert ids(sequence.push(trades(first + 2))[0]) == [first + 2]


def test_push_drops_and_counts_duplicates() -> None:
    sequence = Sequencer()
    sequence.push(trades(1, 2, 3))
    out, events = sequence.push(trades(2, 3, 4, 4, 1, 5))
    assert ids(out) == [4, 5]
    assert not events
    assert sequence.duplicates == 4


def test_push_without_a_window_reports_gaps_within_and_between_reads() -> None:
    sequence = Sequencer(window=0)
    out, events = sequence.push(trades(1, 2, 5, 6, 10))
    assert ids(out) == [1, 2, 5, 6, 10]
    assert events == [Gap(3, 4), Gap(7, 9)]
    assert sequence.push(trades(12))[1] == [Gap(11, 11)]


def later(*ids: int, by: int = 1) -> list[Trade]:
    """Trades of the milliseconds after `NOW`, in this order."""
    return [trade for place, number in enumerate(ids) for trade in trades(number, at=NOW + by + place)]


def begun(first: int = 1_000_000) -> Sequencer:
    sequence = Sequencer()
    sequence.push(trades(*range(first, first + 100)))
    return sequence


@pytest.mark.parametrize("first", [1, 999_000, 1_000_050, 1_000_097])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_reset_is_three_later_consecutive_trades_with_lower_ids(first: int, size: int) -> None:
    sequence, out, events = begun(), list[Trade](), list[Event]()
    new = later(*range(first, first + 5))
    for start in range(0, 5, size):
        found, more = sequence.push(new[start : start + size], 7)
        out += found
        events += more
    assert ids(out) == list(range(first, first + 5)), "those that were undecided come out with the one that decided"
    assert events == [Reset(1_000_099, first, 7)]
    assert (sequence.duplicates, sequence.in_order) == (0, True)
    assert ids(sequence.push(later(first + 5, by=9))[0]) == [first + 5]


@pytest.mark.parametrize(
    "rest",
    [
        (),
        (1,),
        (1, 2),
        (1, 2, 4, 5),
        (1, 1, 1),
        (3, 2, 1),
        (1, 2, 1_000_100, 3, 4),
        (1, 2, 1_000_200, 3, 4),
        (5, 6, 5, 6),
        (1_000_098, 1_000_099, 1_000_100),
    ],
    ids=str,
)
def test_fewer_than_three_consecutive_trades_are_no_reset(rest: tuple[int, ...]) -> None:
    sequence = begun()
    for reads in (rest[:1], rest[1:]):
        out, events = sequence.push(later(*reads))
        assert not events
        assert set(ids(out)) <= {1_000_100}
    sequence.push(trades(1_000_100 + (1_000_100 in rest), at=NOW + 999))
    assert sequence.duplicates == sum(number < 1_000_100 for number in rest), (
        "an undecided start of a reset is duplicates"
    )


def test_lower_ids_that_are_not_later_are_duplicates() -> None:
    sequence = begun()
    for at in (NOW, NOW - 1):
        assert sequence.push(trades(1, 2, 3, 4, at=at)) == ([], [])
        assert sequence.push(trades(1_000_000, 1_000_001, 1_000_002, at=at)) == ([], [])
    assert sequence.duplicates == 14


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reset_may_come_within_the_last_millisecond_of_the_old_sequence(size: int) -> None:
    old = [*trades(*range(100, 108)), *trades(*range(108, 113), at=NOW + 1)]
    for first, begins in ((1, True), (105, True), (106, False), (108, False)):
        sequence = Sequencer()
        for start in range(0, len(old), size):
            sequence.push(old[start : start + size])
        events = sequence.push(trades(first, first + 1, first + 2, at=NOW + 1))[1]
        assert events == ([Reset(112, first)] if begins else []), first


def test_ids_below_the_first_trade_within_its_millisecond_are_no_reset() -> None:
    for sequence in (Sequencer(), Sequencer(0)):
        assert sequence.push(trades(10, 7, 8, 9, 11))[1] == []
    sequence = Sequencer()
    sequence.resume(Position(10, NOW))
    assert sequence.push(trades(7, 8, 9, 11))[1] == []
    sequence = begun()
    sequence.push(trades(10, 11, 12, at=NOW + 1))
    sequence.push(trades(7, 8, 9, at=NOW + 1))
    assert sequence.duplicates == 3


@pytest.mark.parametrize("size", [1, 3])
def test_duplicates_are_no_reset_where_trade_times_run_backwards(size: int) -> None:
    sequence = Sequencer()
    old = [*trades(10, 11, 12, at=NOW + 5), *trades(13, at=NOW)]
    for start in range(0, 4, size):
        sequence.push(old[start : start + size])
    assert sequence.push(old[:3]) == ([], [])
    assert sequence.duplicates == 3


def test_reset_needs_three_consecutive_trades_of_one_connection() -> None:
    sequence = begun()
    new = later(1, 2, 3)
    for connection, trade in enumerate(new):
        assert sequence.push([trade], connection) == ([], [])
    out, events = sequence.push(later(4, 5, by=4), 2)
    assert ids(out) == [1, 2, 3, 4, 5], "what other connections delivered of it is not lost"
    assert events == [Reset(1_000_099, 1, 2)]


def test_start_of_a_reset_on_a_closed_connection_is_dropped() -> None:
    sequence = begun()
    sequence.push(later(1, 2), 1)
    assert ids(sequence.push(trades(1_000_100, at=NOW + 50), 2)[0]) == [1_000_100]
    assert sequence.duplicates == 2
    assert sequence.push(later(3, by=60), 1) == ([], [])


def test_ids_given_up_are_late_and_no_reset() -> None:
    sequence = begun(0)
    sequence.expect(110)
    sequence.skip(111)
    assert sequence.push(later(101, 102, 103, 104)) == ([], [Late(101, 104)])
    assert ids(sequence.push(later(111, by=9))[0]) == [111]
    assert (sequence.late, sequence.duplicates) == (4, 0)


def test_skip_does_not_drop_the_start_of_a_reset() -> None:
    sequence = begun(0)
    sequence.push(later(105))
    sequence.skip(105)
    assert ids(sequence.push(later(98, 99, 100, by=9))[0]) == [98, 99, 100]


def test_ids_given_up_are_late_for_ten_minutes_then_duplicates(clock: FakeClock) -> None:
    sequence = begun(0)
    sequence.push(later(105, 106))
    assert sequence.skip(105)[1] == [Gap(100, 104)]
    clock.advance(599)
    assert sequence.push(later(100, 102, 103, by=-1)) == ([], [Late(100, 100), Late(102, 103)])
    clock.advance(2)
    assert sequence.push(later(104, by=-1)) == ([], [])
    assert (sequence.late, sequence.duplicates) == (3, 1)


@pytest.mark.parametrize("skips", [(111,), (103, 106, 111)], ids=["at once", "step by step"])
def test_ids_given_up_last_stay_late_while_nothing_newer_comes_out(clock: FakeClock, skips: tuple[int, ...]) -> None:
    sequence = begun(0)
    sequence.expect(110)
    for before in skips:
        sequence.skip(before)
        clock.advance(10_000)
    assert sequence.push(later(101, 102, 103)) == ([], [Late(101, 103)]), "and no new sequence"


def test_reset_forgets_ids_given_up_before() -> None:
    sequence = Sequencer(window=0)
    sequence.push(trades(1000, 1010))
    sequence.push(later(900, 901, 902))
    sequence.push(later(2000, by=9))
    assert sequence.push(later(1005, by=5)) == ([], [Late(1005, 1005)]), "it is of the new gap"
    sequence = begun(0)
    sequence.push(later(105))
    sequence.skip(105)
    sequence.push(later(1, 2, 3, by=5))
    assert ids(sequence.push(later(*range(4, 105), by=9))[0]) == list(range(4, 105))


def test_reset_releases_held_trades_and_reports_gaps_in_order() -> None:
    sequence = begun(0)
    sequence.push(later(102, 103, 106))
    out, events = sequence.push(later(1, 2, 3, by=9), 4)
    assert ids(out) == [102, 103, 106, 1, 2, 3]
    assert events == [Gap(100, 101), Gap(104, 105), Reset(106, 1, 4)]
    assert (sequence.held, sequence.behind, sequence.in_order) == (0, 0, True)


@pytest.mark.parametrize(
    ("left", "out", "events"),
    [
        (1, [102], [Gap(100, 101)]),
        (3, [102, 103, 106], [Gap(100, 101), Gap(104, 105)]),
        (4, [102, 103, 106, 1], [Gap(100, 101), Gap(104, 105), Reset(106, 1)]),
        (9, [102, 103, 106, 1, 2, 3], [Gap(100, 101), Gap(104, 105), Reset(106, 1)]),
    ],
)
def test_limit_within_a_reset_reports_only_gaps_before_it(left: int, out: list[int], events: list[Event]) -> None:
    sequence = begun(0)
    sequence.push(later(102, 103, 106))
    sequence.left = left
    found, said = sequence.push(later(1, 2, 3, by=9))
    assert (ids(found), said) == (out, events)


def test_reset_after_25000_alternating_holes_is_linear() -> None:
    sequence = Sequencer()
    sequence.push(trades(100))
    sequence.push(later(*range(102, 50_101, 2)))
    looked_at = sum(sequence.gap() == Gap(101, 101) for _ in range(25_000))
    assert (looked_at, sequence.behind) == (25_000, 50_000)
    out, events = sequence.push(later(0, 1, 2, by=10**6))
    assert len(out) == 25_003
    assert events[:2] == [Gap(101, 101), Gap(103, 103)]
    assert len(events) == 25_001


def test_gap_holds_what_follows_until_filled_or_skipped() -> None:
    sequence = Sequencer(window=100)
    assert ids(sequence.push(trades(1, 2, 5, 6, 10))[0]) == [1, 2]
    assert sequence.gap() == Gap(3, 4)
    assert (str(Gap(3, 4)), str(Gap(5, 5))) == ("3-4", "5")
    assert (sequence.held, sequence.behind, sequence.in_order) == (3, 8, False)
    assert ids(sequence.fill(trades(3, 4, 5))[0]) == [3, 4, 5, 6]
    assert sequence.gap() == Gap(7, 9)
    out, events = sequence.skip(10)
    assert ids(out) == [10]
    assert events == [Gap(7, 9)]
    assert sequence.in_order


def test_trades_beyond_the_window_are_dropped_and_requested_again() -> None:
    sequence = Sequencer(window=3)
    sequence.push(trades(1, 10))
    assert (sequence.held, sequence.gap()) == (0, Gap(2, 10))
    assert ids(sequence.fill(trades(2, 3, 4, 5, 6, 7))[0]) == [2, 3, 4, 5, 6, 7]
    assert sequence.gap() == Gap(8, 10)
    assert ids(sequence.push(trades(11))[0]) == []
    assert sequence.gap() == Gap(8, 10)
    assert ids(sequence.fill(trades(8, 9, 10))[0]) == [8, 9, 10, 11]
    assert sequence.gap() is None


def test_one_wild_id_holds_nothing_back() -> None:
    sequence = Sequencer(window=100)
    sequence.push(trades(1, 2**60))
    assert ids(sequence.push(trades(2, 3))[0]) == [2, 3]
    assert sequence.in_order


def test_resume_continues_after_the_checkpoint() -> None:
    sequence = Sequencer(window=100)
    sequence.resume(Position(41, trades(41)[0].timestamp))
    sequence.expect(44)
    assert sequence.gap() == Gap(42, 44)
    assert ids(sequence.push(trades(40, 41, 43))[0]) == []
    assert ids(sequence.fill(trades(42, 43, 44))[0]) == [42, 43]
    assert sequence.duplicates == 2, "the 43 from REST, which was held already, is no duplicate"


@pytest.mark.parametrize(
    "rows",
    [trades(1, 2, 3), trades(1, 2, 3, at=NOW + 60_000), trades(112, 113), trades(10**9)],
    ids=["below", "below and later", "above the newest seen", "far above"],
)
def test_fill_ignores_rows_that_are_not_missing(rows: list[Trade]) -> None:
    sequence = Sequencer()
    sequence.push(trades(100))
    sequence.push(trades(105, 111))
    assert sequence.fill(rows) == ([], []), "no trade, and no new sequence"
    assert (sequence.gap(), sequence.behind, sequence.held, sequence.duplicates) == (Gap(101, 104), 11, 2, 0)
    out, events = sequence.fill([*trades(100), *rows, *trades(101, 102, 103, 104, 106)])
    assert (ids(out), events) == ([101, 102, 103, 104, 105, 106], [])


def test_fill_without_a_gap_ignores_all_rows() -> None:
    sequence = Sequencer()
    assert sequence.fill(trades(1, 2)) == ([], [])
    sequence.push(trades(5))
    assert sequence.fill(trades(4, 5, 6)) == ([], [])
    assert ids(sequence.push(trades(6))[0]) == [6]
