"""The source of `run`: the live stream, from where the last run ended, with missing trades fetched from REST."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.binance.rest import TRADES_WEIGHT, Rest, Ticker
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Deadline, Task, spawn
from loader_ws_trades.pipeline.connection_check import ConnectionCheck
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import LaneKeeper, OnDeath, Source, SourceStatus
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.look_back import LookBack
from loader_ws_trades.pipeline.stream_check import StreamCheck
from loader_ws_trades.pipeline.trade import ANSWERS, SHUTDOWN, RejectedFrame, Trade
from loader_ws_trades.run.frame_file import FrameWriter
from loader_ws_trades.run.pairs import Pairs
from loader_ws_trades.run.resume import Resume

_FLUSH_EVERY = 0.9  # seconds between writes of recorded frames: a kill loses at most the last three seconds
_FEED_END = 2.0  # seconds to wait for a feed that is still connecting


class Live(Source):
    """Streams `settings.symbol` and repairs its gaps.

    Args:
        settings: the symbol, the URLs and the limits.
        recorder: also receives the raw frames.
    """

    def __init__(self, settings: Settings, *, recorder: FrameWriter | None = None) -> None:
        self._settings = settings
        self._recorder = recorder
        self._flush = Deadline(_FLUSH_EVERY)
        self._closed = threading.Event()
        self._repair_stopping = threading.Event()
        self._feed_end = Deadline(_FEED_END)
        self._resumed: dict[Lane, Position] = {}
        self._feed = Feed(settings)
        self._rest = Rest(
            settings.binance_rest_url,
            self._repair_stopping,
            weight_limit=settings.rest_weight_limit,
            # One pair is repaired as fast as it can be. Of several, a small gap must not wait behind a long repair.
            at_once=1 / 2 if settings.many else 1,
        )
        self._resume = Resume(settings, self._rest, self._closed)
        self._pairs = Pairs(settings, self._rest, self._feed, self._resume, self._closed) if settings.many else None
        self._repair: Repair | None = None
        self._repair_task: Task | None = None

    def check(self) -> None:
        """Check that the symbol is traded, or find the pairs that are.

        Raises:
            ConfigurationError: if the exchange does not know it, or does not serve this location.
            RunError: if it does not list its pairs.
        """
        if self._pairs:
            self._pairs.find()
        else:
            self._rest.check_symbol(self._settings.symbol)

    def prepare(self, receiver: Ingest, lanes: LaneKeeper) -> None:
        """Resume after the newest trades on the topic.

        Raises:
            RunError: if the topic cannot be read.
        """
        if self._pairs:
            self._resumed = self._pairs.prepare(lanes)
        else:
            self._resumed = self._resume.positions([receiver.lane])
            for lane, position in self._resumed.items():
                lane.resume(position)

    def start(self, receiver: Ingest, on_death: OnDeath) -> None:
        """Start streaming into `receiver`."""
        self._receiver = receiver
        if self._settings.gap_repair == "on" or self._pairs:
            self._repair_task = spawn("repair", self._make_repair(receiver).run, on_death)
        self._feed.start(receiver, on_death, take=self._take if self._recorder else None)

    def _make_repair(self, receiver: Ingest) -> Repair:
        settings, rest, feed = self._settings, self._rest, self._feed
        turns: list[Callable[[], None]] = []

        def on_turn() -> None:
            for turn in turns:
                turn()

        repair = self._repair = Repair(
            settings,
            fetch=self._fetch,
            ingest=receiver,
            stopping=self._repair_stopping,
            await_weight=lambda: rest.await_weight(TRADES_WEIGHT),
            on_turn=on_turn,
        )
        if self._pairs:
            turns.append(self._pairs.turn)
            self._pairs.on_end.append(repair.forget)
        if settings.gap_repair == "off":
            return repair
        look_back = LookBack(
            settings,
            repair,
            newest=rest.newest_trade,
            last_ids=lambda: _last_ids(rest.tickers(None)),
            stopping=self._repair_stopping,
        )
        look_back.add(self._resumed)

        def lanes() -> list[Lane]:
            return list(receiver.lanes.values())

        stream_check = StreamCheck(
            settings,
            lanes=lanes,
            last_ids=lambda symbols: _last_ids(rest.tickers(symbols)),
            is_open=feed.is_open,
            replace=lambda symbol: feed.rotate("it brings no trades", "silent", symbol=symbol),
            group=feed.group,
        )
        turns += [look_back.turn, stream_check.turn]
        forgetful = [stream_check.forget]
        if settings.feed_connections > 1:
            why = "it brings no trades, but another does"
            connection_check = ConnectionCheck(
                settings, lanes=lanes, replace=lambda number: feed.rotate(why, "silent", number)
            )
            turns.append(connection_check.turn)
            forgetful.append(connection_check.forget)
        if self._pairs:
            self._pairs.on_end += forgetful
        return repair

    def _take(self, frames: list[bytes], connection: int) -> bool:
        if self._recorder:
            self._recorder.write(frames)
        return self._receiver.take(frames, connection)

    def _fetch(self, symbol: str, first_id: int) -> list[Trade]:
        rows, rejected = self._rest.trades_from(symbol, first_id)
        self._receiver.reject(rejected)
        return rows

    def rejected(self, frame: RejectedFrame, connection: int) -> bool:
        """Note what the exchange says of a connection; returns whether the frame is expected."""
        if frame.kind in ANSWERS:
            return self._feed.note_answer(frame, connection)
        if frame.kind != SHUTDOWN:
            return False
        self._feed.announce_end(connection)
        return True

    def keep_only(self, connection: int) -> None:
        """Close all other connections: this one has proved that the trade ids were reset."""
        self._feed.keep_only(connection)

    def tick(self, delivery_time: float) -> None:
        """Rotate the connection when it is due.

        Raises:
            RunError: after `FEED_OUTAGE_LIMIT` without a connection.
        """
        self._feed.note_delivery_time(delivery_time)
        self._feed.tick()
        if self._recorder and self._flush.passed:
            self._flush = Deadline(_FLUSH_EVERY)
            self._recorder.flush()

    def status(self) -> SourceStatus:
        """How it is doing; may be called in any thread."""
        feed, trouble = self._feed, self._feed.trouble()
        if self._closed.is_set():
            state = "ending"
        elif self._resume.waits:
            state = "waiting"
        elif not feed.connections or trouble:
            state = "connecting"
        else:
            state = "repairing" if self._has_gap() else "live"
        return SourceStatus(
            state=state,
            total=self._settings.max_records,
            reconnects=max(0, feed.connections - self._settings.feed_connections * len(feed.groups)),
            reconnects_by_reason=dict(feed.reconnects),
            connected_since=feed.opened,
            disconnected_since=feed.lost,
            rest_weight=self._rest.weight_used,
            activities=feed.activities(),
            trouble=self._resume.waits or trouble,
            resumes=self._resume.possible,
        )

    def close(self) -> None:
        """Stop reading the stream, without waiting."""
        if not self._closed.is_set():
            self._closed.set()
            if self._repair_task is None:
                self._repair_stopping.set()
            self._feed_end = Deadline(_FEED_END)
            self._feed.close()

    @property
    def done(self) -> bool:
        """Whether the stream is closed and has left no gap."""
        return self._closed.is_set() and self._feed.join(0) and not self._has_gap()

    def _has_gap(self) -> bool:
        return self._repair is not None and self._receiver.has_gap

    def finish(self, *, final: bool, patient: bool) -> bool:
        """End the repair; whether nothing more will come."""
        if patient and not (self._feed.join(0) or self._feed_end.passed):
            return False
        if final and patient and self._has_gap():
            return False
        # Signalled but not joined: the repair thread may hang in a request.
        self._repair_stopping.set()
        if final and self._has_gap():
            self._receiver.give_up("the run ended")
        return True

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the feed to end; whether it has."""
        ended = self._feed.join(timeout)
        self._repair_stopping.set()
        self._rest.close()
        if self._recorder:
            self._recorder.close()
        return ended


def _last_ids(tickers: Mapping[str, Ticker]) -> dict[str, int]:
    return {symbol: ticker.last_id for symbol, ticker in tickers.items()}
