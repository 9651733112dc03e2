"""Sets of ids in ranges: any ranges, added in any order, are what a set of numbers says."""

from __future__ import annotations

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import IdSet, ranges

SPAN = 4000  # ids: some chunks in a row, so that they get full, meet and are crossed


def test_it_holds_what_was_added() -> None:
    ids = IdSet()
    ids.add(5, 5)
    ids.add(1000, 9000)
    assert [number for number in range(10_000) if number in ids] == [5, *range(1000, 9001)]
    assert list(ids.ranges()) == [Gap(5, 5), Gap(1000, 9000)]
    assert list(ids.holes(0, 10_000)) == [Gap(0, 4), Gap(6, 999), Gap(9001, 10_000)]
    assert list(ids.holes(5, 5)) == []
    assert list(IdSet().holes(3, 4)) == [Gap(3, 4)]


def test_ids_in_any_order_are_the_fewest_ranges() -> None:
    assert ranges([5, 3, 4, 9, 3]) == [Gap(3, 5), Gap(9, 9)]


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(
    parts=st.lists(st.tuples(st.integers(0, SPAN), st.sampled_from([0, 1, 30, 1023, 1024, 2100])), max_size=12),
    first=st.integers(0, SPAN),
    last=st.integers(0, SPAN),
)
def test_any_ranges_in_any_order(parts: list[tuple[int, int]], first: int, last: int) -> None:
    ids, model = IdSet(), set[int]()
    for start, length in parts:
        for part in ranges(set(range(start, start + length + 1)) - model):
            ids.add(part.first, part.last)
            model |= set(range(part.first, part.last + 1))
    assert list(ids.ranges()) == ranges(model)
    assert {number for number in range(2 * SPAN) if number in ids} == {number for number in model if number < 2 * SPAN}
    assert list(ids.holes(first, last)) == ranges(set(range(first, last + 1)) - model)
