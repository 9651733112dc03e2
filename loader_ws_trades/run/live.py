"""The source of `run`: the live stream, from where the last run ended, with missing trades fetched from REST."""

from __future__ import annotations

import threading
from collections.abc import Callable

from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Deadline, Task, spawn
from loader_ws_trades.pipeline.connection_check import ConnectionCheck
from loader_ws_trades.pipeline.events import Position
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.ingest import Ingest
from loader_ws_trades.pipeline.interfaces import OnDeath, Source, SourceStatus
from loader_ws_trades.pipeline.stream_check import StreamCheck
from loader_ws_trades.pipeline.trade import SHUTDOWN, RejectedFrame, Trade
from loader_ws_trades.run.frame_file import FrameWriter
from loader_ws_trades.run.resume import Resume

_FLUSH_EVERY = 0.9  # seconds between writes of recorded frames: a kill loses at most the last second
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
        self._resumed: Position | None = None
        self._feed = Feed(settings)
        self._rest = Rest(settings.binance_rest_url, self._repair_stopping, weight_limit=settings.rest_weight_limit)
        self._resume = Resume(settings, self._rest, self._closed)
        self._repair: Repair | None = None
        self._stream_check: StreamCheck | None = None
        self._repair_task: Task | None = None

    def check(self) -> None:
        """Check that the symbol is traded.

        Raises:
            ConfigurationError: if the exchange does not know it, or does not serve this location.
        """
        self._rest.check_symbol(self._settings.symbol)

    def prepare(self, receiver: Ingest) -> None:
        """Resume after the newest trade on the topic, if there is one.

        Raises:
            RunError: if the topic cannot be read.
        """
        self._resumed = self._resume.position()
        if self._resumed is not None:
            receiver.lane.resume(self._resumed)

    def start(self, receiver: Ingest, on_death: OnDeath) -> None:
        """Start streaming into `receiver`."""
        self._receiver = receiver
        if self._settings.gap_repair == "on":
            self._repair = Repair(
                self._settings,
                fetch=self._fetch,
                newest=lambda: self._rest.newest_trade(self._settings.symbol),
                lane=receiver.lane,
                stopping=self._repair_stopping,
                await_weight=self._rest.await_weight,
                on_idle=self._checks(receiver),
            )
            repair, resumed = self._repair, self._resumed
            self._repair_task = spawn("repair", lambda: repair.run(resumed=resumed), on_death)
        self._feed.start(receiver, on_death, take=self._take if self._recorder else None)

    def _checks(self, receiver: Ingest) -> Callable[[], None]:
        """What looks for silence while no gap is open."""
        stream_check = self._stream_check = StreamCheck(
            self._settings,
            newest_id=lambda: self._rest.last_id(self._settings.symbol),
            lane=receiver.lane,
            is_open=lambda: self._feed.trouble() is None,
            replace=lambda: self._feed.rotate("it brings no trades", "silent"),
        )
        if self._settings.feed_connections == 1:
            return stream_check.turn
        connection_check = ConnectionCheck(
            self._settings,
            lane=receiver.lane,
            replace=lambda number: self._feed.rotate("it brings no trades, but another does", "silent", number),
        )

        def check_both() -> None:
            stream_check.turn()
            connection_check.turn()

        return check_both

    def _take(self, frames: list[bytes], connection: int) -> bool:
        if self._recorder:
            self._recorder.write(frames)
        return self._receiver.take(frames, connection)

    def _fetch(self, first_id: int) -> list[Trade]:
        rows, rejected = self._rest.trades_from(self._settings.symbol, first_id)
        self._receiver.reject(rejected)
        return rows

    def rejected(self, frame: RejectedFrame, connection: int) -> bool:
        """Note that the exchange announced its shutdown, if that is what the frame says."""
        if frame.kind != SHUTDOWN:
            return False
        self._feed.announce_end(connection)
        return True

    def keep_only(self, connection: int) -> None:
        """Close all other connections: this one has proved that the trade ids were reset."""
        self._feed.keep_only(connection)

    def tick(self) -> None:
        """Rotate the connection when it is due.

        Raises:
            RunError: after `FEED_OUTAGE_LIMIT` without a connection.
        """
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
        check = self._stream_check
        silent = "the stream is silent, trades are fetched from REST" if check and check.silent else None
        return SourceStatus(
            state=state,
            total=self._settings.max_records,
            reconnects=max(0, feed.connections - self._settings.feed_connections),
            reconnects_by_reason=dict(feed.reconnects),
            connected_since=feed.opened,
            disconnected_since=feed.lost,
            rest_weight=self._rest.weight_used,
            activities=feed.activities(),
            trouble=self._resume.waits or trouble or silent,
            unchecked=self._resume.unchecked,
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
        return self._repair is not None and self._receiver.lane.has_gap

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
