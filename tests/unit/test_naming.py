"""Missing ids are named in the log and in the next event, each of them, in bounded text."""

from __future__ import annotations

import re

import pytest

from loader_ws_trades.pipeline.trade import Trade
from tests.unit.clock import FakeClock
from tests.unit.test_shutdown import Run, Sink, Source, log, run, trades

__all__ = ["log", "run"]


def named(messages: list[str]) -> list[int]:
    texts = [re.split(r" and | \(", message)[0] for message in messages if message.startswith("Missing trade ids ")]
    return [int(part) for text in texts for part in text.removeprefix("Missing trade ids ").split(", ")]


def test_a_reset_names_the_gap_before_it_and_closes_other_connections(
    clock: FakeClock, log: pytest.LogCaptureFixture, run: Run
) -> None:
    new = [Trade(number, "1", "1", 1_800_000_000_000 + number, True, "BTCUSDT") for number in (1, 2, 3)]
    source, sink = Source(*trades(100, 103), *new), Sink(clock)
    ended = run(source, sink, signals=(1.0,))
    assert sink.delivered_ids == [100, 103, 1, 2, 3]
    assert source.kept == 0
    assert "Missing trade ids 101-102 (before the reset of trade ids)" in log.messages
    assert "missing trade ids 101-102" in ended.message


def test_late_trades_are_logged_and_counted(clock: FakeClock, log: pytest.LogCaptureFixture, run: Run) -> None:
    source, sink = Source(*trades(1, 4, 2, 3)), Sink(clock)
    run(source, sink, signals=(1.0,), gap_repair="off")
    assert any(message.startswith("Trade ids 2-3 came after they had been given up") for message in log.messages)
    assert any("late 2" in message for message in log.messages)


@pytest.mark.parametrize("resume", ["on", "off"])
def test_trades_too_few_to_prove_a_reset_are_named_at_the_end(
    clock: FakeClock, log: pytest.LogCaptureFixture, run: Run, resume: str
) -> None:
    new = [Trade(number, "1", "1", 1_800_000_000_000 + number, True, "BTCUSDT") for number in (1, 2)]
    source, sink = Source(*trades(100, 101), *new), Sink(clock)
    ended = run(source, sink, signals=(1.0,), resume=resume)
    assert sink.delivered_ids == [100, 101]
    assert "missing trade ids 1-2" in ended.message
    assert sorted(named(log.messages)) == [1, 2]
