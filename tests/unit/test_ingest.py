"""Between source and sink: order, bounds and back-pressure, with a sink that can be full."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable

from loader_ws_trades.pipeline.events import Event, Gap, Late, Reset
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.stamps import StampingDecoder, record_headers
from loader_ws_trades.pipeline.trade import FrameDecoder, RejectedFrame, Trade
from tests.tools.waiting import wait_for


class SmallSink:
    """Takes trades as long as there is room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ids: list[int] = []

    def put(self, trades: Iterable[Trade]) -> int:
        taken = 0
        for trade in trades:
            if len(self.ids) >= self.room:
                break
            self.ids.append(trade.trade_id)
            taken += 1
        return taken


class Watched:
    """An ingest and what it called."""

    def __init__(self, sink: SmallSink, limit: int | None = None, window: int = 0) -> None:
        self.limits = 0
        self.reads: list[float] = []
        self.rejected: list[RejectedFrame] = []
        self.events: list[Event] = []
        self.ingest = Ingest(
            FrameDecoder("BTCUSDT"),
            Sequencer(window),
            sink.put,
            limit=limit,
            on_limit=self._on_limit,
            on_rejected=lambda frame, _: self.rejected.append(frame),
            on_events=lambda events, _why: self.events.extend(events),
            on_read=self.reads.append,
        )

    def _on_limit(self) -> None:
        self.limits += 1


def frames(*ids: int, at: int = 0) -> list[bytes]:
    base = {"e": "trade", "E": 1, "s": "BTCUSDT", "p": "1.0", "q": "1.0", "T": 1_700_000_000_000 + at, "m": True}
    return [json.dumps(base | {"t": trade_id}).encode() for trade_id in ids]


def test_take_counts_and_reports_faults_and_passes_the_rest() -> None:
    sink = SmallSink(100)
    watched = Watched(sink)
    assert watched.ingest.take([*frames(1, 2), b"{}", *frames(5, 5)])
    assert sink.ids == [1, 2, 5]
    assert [frame.kind for frame in watched.rejected] == ["unknown"]
    assert watched.events == [Gap(3, 4)]
    assert watched.ingest.sequencer.duplicates == 1
    assert watched.ingest.received == 4
    assert watched.ingest.rejected == {"unknown": 1}
    assert watched.ingest.take([b"{}"]) is False, "a read without a trade"


def test_limit_is_exact_and_reported_once() -> None:
    sink = SmallSink(100)
    watched = Watched(sink, limit=3)
    watched.ingest.take(frames(1, 2))
    watched.ingest.take(frames(3, 4, 5))
    watched.ingest.take(frames(6))
    assert sink.ids == [1, 2, 3]
    assert watched.limits == 1


def test_gap_before_the_limit_is_reported_after_a_reset_too() -> None:
    sink = SmallSink(100)
    watched = Watched(sink, limit=5)
    watched.ingest.take([*frames(100, 103), *frames(1, 2, 3, 9, at=1)])
    assert sink.ids == [100, 103, 1, 2, 3]
    assert watched.events == [Gap(101, 102), Reset(103, 1)]
    assert (watched.ingest.missing, watched.limits) == (2, 1)


def test_reset_drops_and_counts_trades_of_other_connections() -> None:
    sink = SmallSink(100)
    watched = Watched(sink, window=100)
    take, connect = watched.ingest.take, watched.ingest.connect
    old, new, silent = connect(), connect(), connect()
    take(frames(100), old)
    take(frames(100), new)
    assert take(frames(1, 2, 3, at=1), new)
    for connection in (old, silent):
        assert take([*frames(101, 102), b"{}"], connection) is False
    assert watched.ingest.in_order()
    assert take(frames(4), new)
    assert take(frames(5), connect()), "a connection that was made since then"
    assert sink.ids == [100, 1, 2, 3, 4, 5]
    assert watched.events == [Reset(100, 1, new)]
    assert watched.ingest.rejected == {"old sequence": 6}
    assert take(frames(0, 1, 2, at=2), connect())
    assert take(frames(6), new) is False, "the next reset counts"


def test_late_trades_are_counted_and_reported() -> None:
    sink = SmallSink(100)
    watched = Watched(sink)
    watched.ingest.take(frames(1, 5, 3, 4, 6))
    assert sink.ids == [1, 5, 6]
    assert watched.events == [Gap(2, 4), Late(3, 4)]
    assert (watched.ingest.sequencer.late, watched.ingest.sequencer.duplicates, watched.ingest.missing) == (2, 0, 3)


def test_announced_shutdown_is_reported_after_any_number_of_other_kinds() -> None:
    watched = Watched(SmallSink(1))
    watched.ingest.take([json.dumps({"e": f"kind{number}"}).encode() for number in range(1000)])
    watched.ingest.take([b'{"e":"serverShutdown","E":1}', b"{", b'{"result":null}', b'{"code":1}', *frames(-1)])
    assert [frame.kind for frame in watched.rejected[1000:]] == [
        "event serverShutdown",
        "malformed",
        "acknowledgement",
        "error message",
        "invalid trade",
    ]
    assert watched.ingest.rejected["other"] == 980
    assert len(watched.ingest.rejected) == 26


def test_full_sink_blocks_readers_and_keeps_their_order() -> None:
    sink = SmallSink(2)
    watched = Watched(sink)
    first = threading.Thread(target=watched.ingest.take, args=(frames(1, 2, 3, 4),))
    first.start()
    wait_for(lambda: sink.ids == [1, 2] and not watched.ingest.idle, "the first reader to wait")
    second = threading.Thread(target=watched.ingest.take, args=(frames(5, 6),))
    second.start()
    wait_for(lambda: watched.ingest.received == 6, "the second reader to be in line")
    assert first.is_alive()
    assert second.is_alive()
    sink.room = 100
    first.join(10)
    second.join(10)
    assert sink.ids == [1, 2, 3, 4, 5, 6]
    assert watched.ingest.idle


def test_abandon_frees_blocked_readers_and_returns_the_undelivered_ids() -> None:
    sink = SmallSink(1)
    watched = Watched(sink)
    reader = threading.Thread(target=watched.ingest.take, args=(frames(1, 2, 3, 7),))
    reader.start()
    wait_for(lambda: not watched.ingest.idle and sink.ids, "the reader to wait")
    assert watched.ingest.abandon() == [2, 3, 7]
    reader.join(10)
    assert not reader.is_alive()
    assert watched.ingest.take(frames(8)) is False
    assert sink.ids == [1]


def test_close_takes_nothing_more() -> None:
    sink = SmallSink(10)
    watched = Watched(sink)
    watched.ingest.close()
    assert watched.ingest.take(frames(1)) is False
    assert sink.ids == []


def test_fill_counts_only_missing_trades_as_repaired() -> None:
    watched = Watched(SmallSink(100), window=100)
    watched.ingest.take(frames(1, 5, 6, 9))
    rows = [Trade(trade_id, "1", "1", 1_700_000_000_000, False, "BTCUSDT") for trade_id in (1, 2, 3, 5, 6, 8)]
    assert watched.ingest.fill(rows) == 2
    assert watched.ingest.repaired == 3, "2 and 3, and 8, which is held behind a hole"
    assert watched.ingest.fill([Trade(4, "1", "1", 1_700_000_000_000, False, "BTCUSDT")]) == 3
    assert watched.ingest.repaired == 4
    assert (watched.ingest.sequencer.duplicates, watched.ingest.sequencer.gaps) == (0, 1)


def test_read_is_reported_with_its_time_of_arrival_once_the_sink_has_all_of_it() -> None:
    sink = SmallSink(2)
    watched = Watched(sink)
    before = time.monotonic()
    watched.ingest.take(frames(1, 2))
    assert len(watched.reads) == 1
    reader = threading.Thread(target=watched.ingest.take, args=(frames(3, 4, 5),))
    reader.start()
    wait_for(lambda: watched.ingest.full, "the sink to be full")
    blocked = time.monotonic()
    assert len(watched.reads) == 1
    sink.room = 100
    reader.join(10)
    assert not watched.ingest.full
    first, second = watched.reads
    assert before <= first <= second <= blocked


def test_what_is_given_and_what_fills_is_stamped_with_its_source() -> None:
    taken: list[Trade] = []

    def put(trades: Iterable[Trade]) -> int:
        before = len(taken)
        taken.extend(trades)
        return len(taken) - before

    ingest = Ingest(
        StampingDecoder("BTCUSDT", "stream"),
        Sequencer(),
        put,
        limit=None,
        on_limit=lambda: None,
        on_rejected=lambda *_: None,
        on_events=lambda *_: None,
        stamp_source="recording",
    )
    ingest.take(frames(1, 3))
    ingest.fill([Trade(2, "1", "1", 1, True, "BTCUSDT")])
    ingest.take_trades([Trade(4, "1", "1", 1, True, "BTCUSDT")])
    sources = {trade.trade_id: dict(record_headers(trade))["source"] for trade in taken}
    assert sources == {1: "stream", 2: "rest", 3: "stream", 4: "recording"}
