"""The sandbox's markets: what they issue, and when."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loader_ws_trades.sandbox import Generated, Market, Recorded, Trade, crowd
from loader_ws_trades.sandbox.market.crowd import rates
from loader_ws_trades.sandbox.market.history import BLOCK, PATTERNS


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def recording(path: Path, *frames: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in frames), encoding="utf-8")
    return path


def frame(trade_id: int, moment: int = 1760132450606, symbol: str = "POLUSDT") -> dict[str, Any]:
    times = {"E": moment, "T": moment}
    return {"e": "trade", "s": symbol, "t": trade_id, "p": "0.1477", "q": "3.0", "m": True, "M": True} | times


def test_generated_trades() -> None:
    past = (PATTERNS + 1) * BLOCK
    trades = Market.generated(first_id=77, past=past, price="0.5", tick="0.0001").trades(0, past)
    assert [trade.id for trade in trades] == list(range(77, 77 + past))
    assert all(earlier.time <= later.time for earlier, later in pairwise(trades))
    shared = sum(earlier.time // 1000 == later.time // 1000 for earlier, later in pairwise(trades))
    assert 0.4 < shared / past < 0.9
    texts = {trade.price for trade in trades} | {trade.quantity for trade in trades}
    assert all(re.fullmatch(r"\d+\.\d{8}", text) for text in texts)
    ticks = [round(float(trade.price) * 10_000) for trade in trades]
    assert {abs(later - earlier) for earlier, later in pairwise(ticks)} == {0, 1}
    assert abs(trades[-1].time / 1_000_000 - time.time()) < 60


@pytest.mark.parametrize("rate", [5.0, 1000.0])
def test_the_clock_issues_trades_one_after_the_other_at_the_mean_rate(rate: float) -> None:
    clock = Clock()
    market = Market(Generated("BTCUSDT", rate=rate), clock=clock)
    for _ in range(200):
        issued = market.issued
        assert market.wait(issued - 1) == 0 < market.wait(issued)
        clock.now += market.wait(issued) + 1e-6
        assert market.issued > issued
    clock.now += 100_000 / rate
    assert market.issued == pytest.approx(100_000, rel=0.02)
    assert market.last_id == market.first_id + market.issued - 1


def test_recorded_trades_keep_their_pace_times_a_factor(tmp_path: Path) -> None:
    ack, shutdown = {"result": None, "id": 1}, {"e": "serverShutdown", "E": 1}
    start = 1760132450606
    # From 1e15 on a time is in microseconds; what is not a newer trade is skipped.
    wrapped = {"stream": "polusdt@trade", "data": frame(12, (start + 2000) * 1000 + 123)}
    frames = [ack, frame(10), frame(11, start + 1000), frame(10), shutdown, wrapped, frame(15, start + 10_000)]
    path = recording(tmp_path / "frames.jsonl", *frames)
    clock = Clock()
    market = Market(Recorded(path), speed=10.0, clock=clock)
    clock.now += 0.1001
    assert (market.symbol, market.issued) == ("POLUSDT", 2)
    clock.now += 0.9
    assert market.trades(0, 99) == [
        Trade(trade_id, "0.1477", "3.0", moment, True)
        for trade_id, moment in zip(
            (10, 11, 12, 15),
            (start * 1000, start * 1000 + 10**6, start * 1000 + 2_000_123, start * 1000 + 10**7),
            strict=True,
        )
    ]
    assert [market.position(trade_id) for trade_id in (1, 12, 13, 15, 16)] == [0, 2, 3, 3, 4]
    assert Market.recorded(path, rate=4.0).wait(3) == pytest.approx(1.0, abs=0.7)


@pytest.mark.parametrize("frames", [(), ({"result": None},), (frame(1), frame(2, symbol="BTCUSDT"))])
def test_a_recording_without_trades_or_of_two_symbols_is_rejected(tmp_path: Path, frames: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="symbols"):
        Market.recorded(recording(tmp_path / "frames.jsonl", *frames))


def test_many_markets_are_as_uneven_as_the_real_ones() -> None:
    spread = rates(1600, 3000.0)
    assert sum(spread) == pytest.approx(3000.0)
    assert sum(spread[:10]) == pytest.approx(1500.0, rel=0.01)
    assert 700 < sum(rate < 1 / 60 for rate in spread) < 800
    markets = crowd(200, 3000.0)
    assert len({market.symbol for market in markets}) == len({market.first_id for market in markets}) == 200
    assert [market.symbol for market in markets[:2]] == ["BTCUSDT", "ETHUSDT"]
    prices = {tuple(market.history.block(0).shape.prices[:50]) for market in markets[:100]}
    assert len(prices) > 20
