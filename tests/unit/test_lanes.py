"""Several pairs in one process: each behaves as if it were alone, and none holds back another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest

from loader_ws_trades.pipeline.events import Event, Gap, Reset
from loader_ws_trades.pipeline.trade import Trade
from tests.unit.lanes import Pipeline

SYMBOLS = ("BTCUSDT", "ETHUSDT", "POLUSDT")
NOW = 1_700_000_000_000  # ms
SLOTS = (0, 1)


def frame(symbol: str, trade_id: int, at: int = 0) -> bytes:
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","s":"{symbol}","t":{trade_id},"p":"1","q":"1",'
        f'"T":{NOW + at},"m":true}}}}'
    ).encode()


def row(symbol: str, trade_id: int) -> Trade:
    return Trade(trade_id, "1", "1", NOW, True, symbol)


def of(pipeline: Pipeline, symbol: str) -> list[int]:
    return [trade.trade_id for trade in pipeline.sink.trades if trade.symbol == symbol]


def steps(chance: Random) -> Iterator[tuple[str, Any, Any]]:
    """Reads of a connection (symbol, id and time of each trade), and steps of repair or of the feed."""
    for _ in range(chance.randint(1, 40)):
        symbol, slot, one = chance.choice(SYMBOLS), chance.choice(SLOTS), chance.randint(1, 12)
        read = [
            (chance.choice(SYMBOLS), chance.randint(1, 12), chance.randint(0, 3)) for _ in range(chance.randint(1, 8))
        ]
        rows = sorted(chance.choices(range(1, 13), k=chance.randint(0, 5)))
        yield chance.choice(
            [
                ("read", slot, read),
                ("fill", symbol, rows),
                ("skip", symbol, one),
                ("expect", symbol, one),
                ("reconnect", slot, None),
            ]
        )


class Told(NamedTuple):
    """What a lane has come to."""

    out: list[int]
    events: list[tuple[Event, str]]
    counts: tuple[int, ...]
    standing: Any
    gap: Gap | None
    old: int


class Stage:
    """A pipeline and its connections, which plays steps."""

    def __init__(self, *symbols: str, window: int) -> None:
        self.symbols = symbols
        self.events: defaultdict[str, list[tuple[Event, str]]] = defaultdict(list)
        self.pipeline = Pipeline(*symbols, window=window, copies=True)
        for symbol, lane in self.pipeline.ingest.lanes.items():
            lane._on_events = partial(self.note, symbol)
        self.open = [self.pipeline.ingest.connect(slot) for slot in SLOTS]

    def note(self, symbol: str, events: list[Event], why: str) -> None:
        self.events[symbol] += [(event, why) for event in events]

    def play(self, what: str, which: Any, how: Any) -> None:
        ingest = self.pipeline.ingest
        if what == "read":
            ingest.take([frame(*one) for one in how if one[0] in self.symbols], self.open[which])
        elif what == "reconnect":
            ingest.disconnect(self.open[which])
            self.open[which] = ingest.connect(which)
        elif which in self.symbols:
            lane = ingest.lanes[which]
            if what == "fill":
                lane.fill([row(which, trade_id) for trade_id in how])
            elif what == "skip":
                lane.skip(how, "a test")
            else:
                lane.expect(how, hint=True)

    def told(self, symbol: str) -> Told:
        lane = self.pipeline.ingest.lanes[symbol]
        sequencer, copies = lane.sequencer, lane.connections.copies
        assert copies
        assert (lane in self.pipeline.ingest.lanes_with_gaps()) == (not lane.sequencer.in_order)
        counts = (lane.received, lane.repaired, lane.missing, sequencer.duplicates, sequencer.late, sequencer.gaps)
        copied = (*(copies.first[slot] for slot in SLOTS), *(copies.skipped[slot] for slot in SLOTS))
        old = sum(frame.kind == "old sequence" for frame in self.pipeline.rejected)
        return Told(of(self.pipeline, symbol), self.events[symbol], counts + copied, lane.standing(), lane.gap(), old)


@pytest.mark.parametrize("window", [0, 4, 50])
def test_under_any_interleaving_each_pair_behaves_as_if_it_were_alone(window: int) -> None:
    for number in range(60):
        seed = f"{window}.{number}"
        together, alone = Stage(*SYMBOLS, window=window), {symbol: Stage(symbol, window=window) for symbol in SYMBOLS}
        for step in steps(Random(seed)):
            together.play(*step)
            for stage in alone.values():
                stage.play(*step)
        for symbol, stage in alone.items():
            found, expected = together.told(symbol), stage.told(symbol)
            assert found._replace(old=0) == expected._replace(old=0), f"the seed {seed}"
        assert together.told(SYMBOLS[0]).old == sum(stage.told(symbol).old for symbol, stage in alone.items())


def test_a_gap_holds_back_no_other_pair() -> None:
    pipeline = Pipeline(*SYMBOLS)
    first, second, _ = SYMBOLS
    pipeline.ingest.take([frame(first, 1), frame(second, 7), frame(first, 3), frame(second, 8), frame(first, 4)])
    assert (of(pipeline, first), of(pipeline, second)) == ([1], [7, 8])
    assert [lane.symbol for lane in pipeline.ingest.lanes_with_gaps()] == [first]
    assert pipeline.ingest.gap_seen.is_set()
    pipeline.ingest.lanes[first].fill([row(first, 2)])
    assert of(pipeline, first) == [1, 2, 3, 4]
    assert not pipeline.ingest.lanes_with_gaps()


def test_a_trade_of_another_pair_is_rejected_and_the_rest_of_the_read_is_taken() -> None:
    pipeline = Pipeline(*SYMBOLS[:2])
    assert pipeline.ingest.take([frame("BTCUSDT", 1), frame("XRPUSDT", 5), frame("ETHUSDT", 1)])
    assert [trade.symbol for trade in pipeline.sink.trades] == ["BTCUSDT", "ETHUSDT"]
    assert pipeline.ingest.rejected == {"other symbol": 1}


def test_only_connections_that_carry_a_pair_confirm_its_gaps() -> None:
    pipeline = Pipeline(*SYMBOLS)
    first, second, third = SYMBOLS
    ingest = pipeline.ingest
    one, other = ingest.connect(0, [first]), ingest.connect(1, [second])
    ingest.take([frame(first, 1), frame(first, 3)], one)
    assert ingest.lanes[first].standing().is_confirmed, "the other connection does not carry it"
    assert ingest.lanes[first].standing().newest_streamed == {one: 3}
    assert (ingest.in_order(one), ingest.in_order(other), ingest.in_order()) == (False, True, False)
    ingest.add_streams(other, [first, third])
    assert ingest.lanes[first].standing().newest_streamed == {one: 3, other: -1}
    assert not ingest.lanes[first].standing().is_confirmed
    assert not ingest.in_order(other)
    ingest.disconnect(other)
    ingest.add_streams(other, [second])
    assert ingest.lanes[third].standing().newest_streamed == {}
    assert ingest.lanes[second].standing().newest_streamed == {}
    assert ingest.lanes[first].standing().is_confirmed


def test_a_reset_of_one_pair_leaves_the_others_alone() -> None:
    pipeline = Pipeline(*SYMBOLS[:2])
    ingest, (first, second) = pipeline.ingest, SYMBOLS[:2]
    old, new = ingest.connect(0), ingest.connect(1)
    ingest.take([frame(first, 100), frame(second, 7)], old)
    ingest.take([frame(first, trade_id, at=1) for trade_id in (1, 2, 3)], new)
    assert pipeline.events == [Reset(100, 1, new)]
    ingest.take([frame(first, 101), frame(second, 8)], old)
    assert (of(pipeline, first), of(pipeline, second)) == ([100, 1, 2, 3], [7, 8])
    assert ingest.rejected == {"old sequence": 1}


def test_the_limit_counts_all_pairs_together() -> None:
    pipeline = Pipeline(*SYMBOLS, limit=4)
    for trade_id in (1, 2, 3):
        pipeline.ingest.take([frame(symbol, trade_id) for symbol in SYMBOLS])
    assert [(trade.symbol, trade.trade_id) for trade in pipeline.sink.trades] == [
        *((symbol, 1) for symbol in SYMBOLS),
        (SYMBOLS[0], 2),
    ]
    assert pipeline.limits == 1


def test_a_pair_that_has_ended_takes_nothing_and_names_what_it_lacks() -> None:
    pipeline = Pipeline(*SYMBOLS)
    ingest, (first, second) = pipeline.ingest, SYMBOLS[:2]
    lane, connection = ingest.lanes[first], ingest.connect()
    ingest.take([frame(first, 1), frame(first, 4), frame(first, 0, at=1)], connection)
    ingest.remove(lane)
    lane.give_up("it is gone")
    lane.end("the pair")
    assert of(pipeline, first) == [1, 4]
    assert pipeline.events == [Gap(2, 3), Gap(0, 0)]
    ingest.take([frame(first, 5), frame(second, 1)], connection)
    assert (of(pipeline, first), of(pipeline, second)) == ([1, 4], [1])
    lane.expect(10)
    assert (lane.gap(), lane.fill([row(first, 5)]), ingest.lanes_with_gaps()) == (None, 0, [])
    ingest.disconnect(connection)
