"""What is counted of two copies of each trade."""

from __future__ import annotations

import pytest

from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.trade import Trade


def read(copies: Copies, slot: int, now: float, new: int, *ids: int) -> None:
    copies.note(slot, [Trade(trade_id, "1", "1", 1, True, "X") for trade_id in ids], new, now)


def test_first_copies_their_lead_and_skipped_ids() -> None:
    copies = Copies()
    read(copies, 0, 10.0, 2, 1, 2)
    read(copies, 1, 10.5, 1, 1, 2, 3)
    read(copies, 0, 11.0, 1, 3, 6)
    read(copies, 1, 12.0, 2, 4, 5, 6)
    assert copies.first == {0: 3, 1: 3}
    assert copies.lead_seconds == pytest.approx({0: 2 * 0.5 + 1.0, 1: 0.5})
    assert copies.skipped == {0: 2, 1: 0}


def test_a_connection_that_was_away_has_skipped_ids_and_gives_no_lead() -> None:
    copies = Copies()
    read(copies, 0, 1.0, 1, 1)
    read(copies, 1, 1.1, 0, 1)
    copies.restart()
    for trade_id in range(2, 100):
        read(copies, 0, float(trade_id), 1, trade_id)
    copies.restart()
    read(copies, 0, 100.0, 1, 100)
    read(copies, 1, 100.25, 0, 100)
    assert copies.lead_seconds == pytest.approx({0: 0.1 + 0.25})
    assert copies.skipped[1] == 98


def test_memory_is_bounded_while_one_connection_is_alone() -> None:
    copies = Copies()
    for trade_id in range(1, 30_000):
        read(copies, 0, 1.0, 1, trade_id)
    assert len(copies._recent) == 10_000


def test_after_a_reset_of_the_ids_nothing_is_skipped() -> None:
    copies = Copies()
    read(copies, 0, 1.0, 1, 10**9)
    read(copies, 0, 2.0, 1, 1)
    read(copies, 0, 3.0, 1, 2)
    assert copies.skipped == {0: 0}
