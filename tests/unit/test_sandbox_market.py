"""The sandbox's markets: what they issue, and when."""

import gzip
import json
import math
import re
import time
from itertools import islice, pairwise
from pathlib import Path

import pytest

from loader_ws_trades.sandbox.market.history import BLOCK, PATTERNS, Generated, Recorded, Trade
from loader_ws_trades.sandbox.market.market import Market
from tests.tools.recorded import frames, frames_file

COUNT = 4000  # recorded frames


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of the recorded frames."""
    folder = tmp_path_factory.mktemp("recorded")
    path = folder / "first.jsonl.gz"
    with gzip.open(frames_file(folder), "rt") as whole, gzip.open(path, "wt") as first:
        first.writelines(islice(whole, COUNT))
    return path


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def frame(trade_id: int, moment: int = 1760132450606, symbol: str = "POLUSDT") -> dict[str, object]:
    times = {"E": moment, "T": moment}
    return {
        "e": "trade",
        "s": symbol,
        "t": trade_id,
        "p": "0.14770000",
        "q": "3.00000000",
        "m": True,
        "M": True,
    } | times


def recording(path: Path, *frames: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in frames), encoding="utf-8")
    return path


def generated(clock: Clock, **options: float) -> Market:
    return Market(Generated("BTCUSDT", rate=options.pop("rate", 100.0)), clock=clock, **options)  # type: ignore[arg-type]


def without_times(trades: list[Trade]) -> list[Trade]:
    return [trade._replace(time=0) for trade in trades]


def test_generated_trades_follow_from_the_seed() -> None:
    one, same, other = (Market.generated(seed=seed, past=3000) for seed in (7, 7, 8))
    assert without_times(one.trades(0, 3000)) == without_times(same.trades(0, 3000))
    assert without_times(one.trades(0, 3000)) != without_times(other.trades(0, 3000))


def test_generated_trades_are_contiguous_and_in_order_of_time() -> None:
    past = (PATTERNS + 2) * BLOCK
    trades = Market.generated(first_id=77, past=past).trades(0, past)
    assert [trade.id for trade in trades] == list(range(77, 77 + past))
    assert all(earlier.time <= later.time for earlier, later in pairwise(trades))
    shared = sum(earlier.time // 1000 == later.time // 1000 for earlier, later in pairwise(trades))
    assert 0.4 < shared / past < 0.9
    assert all(re.fullmatch(r"\d+\.\d{8}", text) for trade in trades for text in (trade.price, trade.quantity))
    assert len({trade.price for trade in trades}) > 10
    assert abs(trades[-1].time / 1_000_000 - time.time()) < 60


def test_any_trade_can_be_had_alone() -> None:
    market = Market.generated(past=10_000_000)
    part = market.trades(9_000_000, 9_000_010)
    assert part == [market.trades(position, position + 1)[0] for position in range(9_000_000, 9_000_010)]
    assert market.position(part[0].id) == 9_000_000
    assert market.trades(9_999_999_999, 10_000_000_000) == []


def test_prices_walk_on_their_tick() -> None:
    trades = Market.generated(price="0.5", tick="0.0001", past=20_000).trades(0, 20_000)
    ticks = [round(float(trade.price) * 10_000) for trade in trades]
    assert {abs(later - earlier) for earlier, later in pairwise(ticks)} == {0, 1}


@pytest.mark.parametrize("rate", [5.0, 1000.0])
def test_the_clock_issues_trades_at_the_mean_rate(rate: float) -> None:
    clock = Clock()
    market = generated(clock, rate=rate)
    clock.now += 100_000 / rate
    assert market.issued == pytest.approx(100_000, rel=0.02)
    assert market.last_id == market.first_id + market.issued - 1


def test_trades_are_issued_one_after_the_other() -> None:
    clock = Clock()
    market = generated(clock, rate=50.0)
    seen = market.issued
    for _ in range(5000):
        clock.now += 0.02
        issued = market.issued
        assert issued >= seen
        if issued > seen:
            assert market.wait(issued - 1) == 0
        assert market.wait(issued) > 0
        seen = issued


def test_waiting_as_told_brings_the_next_trade() -> None:
    clock = Clock()
    market = generated(clock)
    for _ in range(100):
        issued = market.issued
        clock.now += market.wait(issued) + 1e-6
        assert market.issued > issued


def test_a_market_may_wait_for_its_first_subscriber() -> None:
    clock = Clock()
    market = Market(Generated("BTCUSDT"), start="subscriber", clock=clock)
    clock.now += 100
    assert (market.issued, market.last_id, market.wait(0)) == (0, None, math.inf)
    market.begin()
    assert 0 < market.issued < 100
    clock.now += 1
    begun = market.issued
    market.begin()
    assert market.issued == begun


def test_a_market_may_have_a_past_and_an_end() -> None:
    clock = Clock()
    market = generated(clock, past=2000, count=2500)
    assert 2000 <= market.issued < 2200
    assert market.trades(1999, 2000)[0].time / 1_000_000 <= time.time()
    clock.now += 1000
    assert (market.issued, market.last_id, market.wait(2500)) == (2500, 1_002_499, math.inf)
    ended = generated(clock, past=100, count=100)
    assert ended.issued == 100


def test_flat_out_there_is_no_clock() -> None:
    market = Market.generated(rate=math.inf)
    assert (market.flat_out, market.issued) == (True, 0)
    market.issue(5000)
    market.issue(3000)
    assert (market.issued, market.last_id) == (5000, 1_004_999)


def test_trades_are_found_by_time() -> None:
    market = Market.generated(past=5000)
    trades = market.trades(0, 5000)
    for trade in trades[::500]:
        found = market.position_at(trade.time)
        assert trades[found].time == trade.time
        assert found == 0 or trades[found - 1].time < trade.time
    assert market.position_at(trades[-1].time + 10**9) == market.issued
    assert market.position_at(0) == 0


@pytest.mark.parametrize("rate", [7.0, 0.3, 333_333.0])
def test_where_a_block_begins_its_first_trade_is_due(rate: float) -> None:
    history = Generated("BTCUSDT", rate=rate)
    for number in range(1, 100):
        begin = history.block(number).times[0]
        assert history.due(begin) > number * BLOCK
        assert history.due(begin - 1) <= number * BLOCK


def test_recorded_trades_are_kept_as_recorded(recorded: Path) -> None:
    market = Market.recorded(recorded, past=COUNT)
    wanted = [(one["t"], one["p"], one["q"], one["T"] * 1000, one["m"]) for one in frames(recorded)]
    assert [tuple(trade) for trade in market.trades(0, COUNT)] == wanted
    assert (market.symbol, market.first_id, market.last_id) == ("POLUSDT", wanted[0][0], wanted[-1][0])


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_recorded_pace_times_a_factor(recorded: Path, speed: float) -> None:
    clock = Clock()
    market = Market(Recorded(recorded), speed=speed, clock=clock)
    times = market.history.block(0).times
    clock.now += times[500] / 1_000_000 / speed + 1e-5
    assert 501 <= market.issued <= 1000
    clock.now += market.wait(COUNT - 1) + 1e-5
    assert market.issued == COUNT


def test_recorded_trades_at_a_mean_rate(recorded: Path) -> None:
    market = Market.recorded(recorded, rate=2000.0)
    assert market.wait(COUNT - 1) == pytest.approx(COUNT / 2000, rel=0.05)
    assert Market.recorded(recorded, rate=math.inf).flat_out


def test_what_is_no_newer_trade_is_passed_over(tmp_path: Path) -> None:
    ack, shutdown = {"result": None, "id": 1}, {"e": "serverShutdown", "E": 1}
    wrapped = {"stream": "polusdt@trade", "data": frame(12)}
    path = recording(tmp_path / "frames.jsonl", ack, frame(10), frame(11), frame(10), shutdown, wrapped, frame(15))
    market = Market.recorded(path, past=4)
    assert [trade.id for trade in market.trades(0, 99)] == [10, 11, 12, 15]
    assert [market.position(trade_id) for trade_id in (1, 12, 13, 15, 16)] == [0, 2, 3, 3, 4]


def test_recorded_microseconds_are_known_by_their_size(tmp_path: Path) -> None:
    path = recording(tmp_path / "frames.jsonl", frame(1, 1760132450606), frame(2, 1760132450606123))
    trades = Market.recorded(path, past=2).trades(0, 2)
    assert [trade.time for trade in trades] == [1760132450606000, 1760132450606123]


@pytest.mark.parametrize("frames", [(), ({"result": None},), (frame(1), frame(2, symbol="BTCUSDT"))])
def test_a_recording_is_of_one_symbol(tmp_path: Path, frames: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="symbols"):
        Market.recorded(recording(tmp_path / "frames.jsonl", *frames))
