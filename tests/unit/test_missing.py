"""Missing ids until they are named: each of them, in bounded memory and text."""

from __future__ import annotations

from collections.abc import Iterable

from loader_ws_trades.pipeline.id_ranges import ranges
from loader_ws_trades.pipeline.missing import IN_A_MESSAGE, MissingIds, listed
from loader_ws_trades.pipeline.sequencer import Gap


def named(texts: Iterable[str]) -> list[Gap]:
    found = [part.split("-") for text in texts for part in text.partition(" (")[0].split(", ")]
    return [Gap(int(part[0]), int(part[-1])) for part in found]


def test_what_was_added_is_named_once() -> None:
    missing = MissingIds()
    missing.add([Gap(100, 104), Gap(110, 110)])
    missing.add([Gap(105, 107)])
    assert missing.message() == "100-107, 110"
    assert missing.message() == ""
    assert list(missing.lines()) == []


def test_after_a_reset_the_same_ids_may_be_missing_again() -> None:
    missing = MissingIds()
    missing.add([Gap(0, 5000), Gap(7000, 7000)])
    missing.add([Gap(2, 6000)])
    assert missing.message() == "0-6000, 7000"


def test_more_ranges_than_a_message_names_are_put_together_and_the_text_says_so() -> None:
    missing = MissingIds()
    odd = [Gap(number, number) for number in range(1, 2001, 2)]
    missing.add(odd)
    text = missing.message()
    groups = named([text])
    assert len(groups) <= IN_A_MESSAGE
    assert all(any(group.first <= gap.first <= group.last for group in groups) for gap in odd)
    assert text.endswith(f" (1000 of these {sum(map(len, groups))} ids)")
    assert listed(odd) == text
    assert listed(odd[:IN_A_MESSAGE]) == ", ".join(map(str, odd[:IN_A_MESSAGE]))


def test_at_the_end_each_of_many_is_named_in_few_lines() -> None:
    missing = MissingIds()
    odd = [Gap(number, number) for number in range(1, 60_001, 2)]
    missing.add(odd)
    lines = list(missing.lines())
    assert named(lines) == odd
    assert len(lines) <= 100


def test_however_many_gaps_are_100_lines_of_bounded_length() -> None:
    missing = MissingIds()
    for start in range(0, 120_000, 1000):
        missing.add([Gap(number, number) for number in range(start, start + 1000, 2)])
    lines = list(missing.lines())
    assert len(lines) <= 100
    assert max(map(len, lines)) < 20_000
    assert "60000 of these" in lines[0]
    assert (named(lines)[0].first, named(lines)[-1].last) == (0, 119_998)


def test_ranges_that_are_far_apart_take_no_more_memory_than_others() -> None:
    missing = MissingIds()
    far = [Gap(number * 10_000, number * 10_000 + 5) for number in range(12_000)]
    missing.add(far)
    assert missing._ids.size <= 20_000
    groups = named(missing.lines())
    assert len(groups) <= 50_000
    assert ranges([gap.first for gap in groups if gap.first % 10_000]) == []
    assert (groups[0].first, groups[-1].last) == (0, far[-1].last)


def test_a_range_may_be_as_wide_as_ids_are() -> None:
    missing = MissingIds()
    missing.add([Gap(7, 2**62), Gap(2**62 + 9, 2**62 + 9)])
    assert missing.message() == f"7-{2**62}, {2**62 + 9}"
