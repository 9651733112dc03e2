"""Between source and sink: order, bounds and back-pressure, with a sink that can be full."""

from __future__ import annotations

import json
import threading
import time

from loader_ws_trades.pipeline.events import Gap, Late, Reset
from loader_ws_trades.pipeline.stamps import record_headers
from loader_ws_trades.pipeline.trade import Trade
from tests.tools.waiting import wait_for
from tests.unit.lanes import Pipeline, SmallSink


def frames(*ids: int, at: int = 0) -> list[bytes]:
    base = {"e": "trade", "E": 1, "s": "BTCUSDT", "p": "1.0", "q": "1.0", "T": 1_700_000_000_000 + at, "m": True}
    return [json.dumps(base | {"t": trade_id}).encode() for trade_id in ids]


def test_take_counts_and_reports_faults_and_passes_the_rest() -> None:
    sink = SmallSink(100)
    pipeline = Pipeline(sink=sink, window=0)
    assert pipeline.ingest.take([*frames(1, 2), b"{}", *frames(5, 5)])
    assert sink.ids == [1, 2, 5]
    assert [frame.kind for frame in pipeline.rejected] == ["unknown"]
    assert pipeline.events == [Gap(3, 4)]
    assert pipeline.lane.sequencer.duplicates == 1
    assert pipeline.lane.received == 4
    assert pipeline.ingest.rejected == {"unknown": 1}
    assert pipeline.ingest.take([b"{}"]) is False, "a read without a trade"


def test_limit_is_exact_and_reported_once() -> None:
    sink = SmallSink(100)
    pipeline = Pipeline(sink=sink, limit=3, window=0)
    pipeline.ingest.take(frames(1, 2))
    pipeline.ingest.take(frames(3, 4, 5))
    pipeline.ingest.take(frames(6))
    assert sink.ids == [1, 2, 3]
    assert pipeline.limits == 1


def test_gap_before_the_limit_is_reported_after_a_reset_too() -> None:
    sink = SmallSink(100)
    pipeline = Pipeline(sink=sink, limit=5, window=0)
    pipeline.ingest.take([*frames(100, 103), *frames(1, 2, 3, 9, at=1)])
    assert sink.ids == [100, 103, 1, 2, 3]
    assert pipeline.events == [Gap(101, 102), Reset(103, 1)]
    assert (pipeline.lane.missing, pipeline.limits) == (2, 1)


def test_reset_drops_and_counts_trades_of_other_connections() -> None:
    sink = SmallSink(100)
    pipeline = Pipeline(sink=sink, window=100)
    take, connect = pipeline.ingest.take, pipeline.ingest.connect
    old, new, silent = connect(), connect(), connect()
    take(frames(100), old)
    take(frames(100), new)
    assert take(frames(1, 2, 3, at=1), new)
    for connection in (old, silent):
        assert take([*frames(101, 102), b"{}"], connection) is False
    assert pipeline.ingest.in_order()
    assert take(frames(4), new)
    assert take(frames(5), connect()), "a connection that was made since then"
    assert sink.ids == [100, 1, 2, 3, 4, 5]
    assert pipeline.events == [Reset(100, 1, new)]
    assert pipeline.ingest.rejected == {"old sequence": 4, "unknown": 2}
    assert take(frames(0, 1, 2, at=2), connect())
    assert take(frames(6), new) is False, "the next reset counts"


def test_late_trades_are_counted_and_reported() -> None:
    sink = SmallSink(100)
    pipeline = Pipeline(sink=sink, window=0)
    pipeline.ingest.take(frames(1, 5, 3, 4, 6))
    assert sink.ids == [1, 5, 6]
    assert pipeline.events == [Gap(2, 4), Late(3, 4)]
    assert (pipeline.lane.sequencer.late, pipeline.lane.sequencer.duplicates, pipeline.lane.missing) == (2, 0, 3)


def test_announced_shutdown_is_reported_after_any_number_of_other_kinds() -> None:
    pipeline = Pipeline()
    pipeline.ingest.take([json.dumps({"e": f"kind{number}"}).encode() for number in range(1000)])
    pipeline.ingest.take([b'{"e":"serverShutdown","E":1}', b"{", b'{"result":null}', b'{"code":1}', *frames(-1)])
    assert [frame.kind for frame in pipeline.rejected[1000:]] == [
        "event serverShutdown",
        "malformed",
        "acknowledgement",
        "error message",
        "invalid trade",
    ]
    assert pipeline.ingest.rejected["other"] == 980
    assert len(pipeline.ingest.rejected) == 26


def test_answers_that_the_source_understands_are_no_rejected_frames() -> None:
    pipeline = Pipeline(understood={"acknowledgement", "event serverShutdown"})
    pipeline.ingest.take([b'{"result":null,"id":1}', b'{"e":"serverShutdown","E":1}', b'{"code":1}'])
    assert len(pipeline.rejected) == 3
    assert pipeline.ingest.rejected == {"event serverShutdown": 1, "error message": 1}


def test_full_sink_blocks_readers_and_keeps_their_order() -> None:
    sink = SmallSink(2)
    pipeline = Pipeline(sink=sink, window=0)
    first = threading.Thread(target=pipeline.ingest.take, args=(frames(1, 2, 3, 4),))
    first.start()
    wait_for(lambda: sink.ids == [1, 2] and not pipeline.ingest.idle, "the first reader to wait")
    second = threading.Thread(target=pipeline.ingest.take, args=(frames(5, 6),))
    second.start()
    wait_for(lambda: pipeline.lane.received == 6, "the second reader to be in line")
    assert first.is_alive()
    assert second.is_alive()
    sink.room = 100
    first.join(10)
    second.join(10)
    assert sink.ids == [1, 2, 3, 4, 5, 6]
    assert pipeline.ingest.idle


def test_abandon_frees_blocked_readers_and_returns_the_undelivered_ids() -> None:
    sink = SmallSink(1)
    pipeline = Pipeline(sink=sink, window=0)
    reader = threading.Thread(target=pipeline.ingest.take, args=(frames(1, 2, 3, 7),))
    reader.start()
    wait_for(lambda: not pipeline.ingest.idle and sink.ids, "the reader to wait")
    assert [trade_id for _, trade_id in pipeline.ingest.abandon()] == [2, 3, 7]
    reader.join(10)
    assert not reader.is_alive()
    assert pipeline.ingest.take(frames(8)) is False
    assert sink.ids == [1]


def test_close_takes_nothing_more() -> None:
    sink = SmallSink(10)
    pipeline = Pipeline(sink=sink, window=0)
    pipeline.ingest.close()
    assert pipeline.ingest.take(frames(1)) is False
    assert sink.ids == []


def test_fill_counts_only_missing_trades_as_repaired() -> None:
    pipeline = Pipeline(window=100)
    pipeline.ingest.take(frames(1, 5, 6, 9))
    rows = [Trade(trade_id, "1", "1", 1_700_000_000_000, False, "BTCUSDT") for trade_id in (1, 2, 3, 5, 6, 8)]
    assert pipeline.lane.fill(rows) == 2
    assert pipeline.lane.repaired == 3, "2 and 3, and 8, which is held behind a hole"
    assert pipeline.lane.fill([Trade(4, "1", "1", 1_700_000_000_000, False, "BTCUSDT")]) == 3
    assert pipeline.lane.repaired == 4
    assert (pipeline.lane.sequencer.duplicates, pipeline.lane.sequencer.gaps) == (0, 1)


def test_read_is_reported_with_its_time_of_arrival_once_the_sink_has_all_of_it() -> None:
    sink = SmallSink(2)
    pipeline = Pipeline(sink=sink, window=0)
    before = time.monotonic()
    pipeline.ingest.take(frames(1, 2))
    assert len(pipeline.reads) == 1
    reader = threading.Thread(target=pipeline.ingest.take, args=(frames(3, 4, 5),))
    reader.start()
    wait_for(lambda: pipeline.ingest.full, "the sink to be full")
    blocked = time.monotonic()
    assert len(pipeline.reads) == 1
    sink.room = 100
    reader.join(10)
    assert not pipeline.ingest.full
    first, second = pipeline.reads
    assert before <= first <= second <= blocked


def test_what_is_given_and_what_fills_is_stamped_with_its_source() -> None:
    pipeline = Pipeline(stamp_source="recording")
    pipeline.ingest.take(frames(1, 3))
    pipeline.lane.fill([Trade(2, "1", "1", 1, True, "BTCUSDT")])
    pipeline.lane.take_trades([Trade(4, "1", "1", 1, True, "BTCUSDT")])
    sources = {trade.trade_id: dict(record_headers(trade))["source"] for trade in pipeline.sink.trades}
    assert sources == {1: "stream", 2: "rest", 3: "stream", 4: "recording"}
