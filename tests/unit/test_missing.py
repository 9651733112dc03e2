"""Missing ids until they are named: each of them, in bounded memory and text."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from loader_ws_trades.pipeline import missing as module
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.missing import IN_A_MESSAGE, MissingIds, listed


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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of memory and of the lines at the end are a twentieth of what they are."""
    monkeypatch.setattr(module, "_SIZE", 1000)
    monkeypatch.setattr(module, "_LINES", 5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("count", [1500, 6000])
def test_many_gaps_are_named_in_few_lines_of_bounded_length(count: int) -> None:
    missing = MissingIds()
    odd = [Gap(number, number) for number in range(1, 2 * count, 2)]
    for start in range(0, count, 500):
        missing.add(odd[start : start + 500])
    lines = list(missing.lines())
    assert len(lines) <= 5
    assert max(map(len, lines)) < 20_000
    if count == 1500:
        assert named(lines) == odd
    else:
        assert f"{count} of these" in lines[0]
        assert (named(lines)[0].first, named(lines)[-1].last) == (1, 2 * count - 1)
