"""The source of `run`: the live stream, behind what the last run left, with what is missing fetched from REST."""

from __future__ import annotations

import threading

from loader_ws_trades.binance.feed import Feed
from loader_ws_trades.binance.rest import Rest
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.lifecycle import Activity, Deadline, Task, spawn
from loader_ws_trades.pipeline.gap_repair import Repair
from loader_ws_trades.pipeline.interfaces import Intake, Link, OnDeath
from loader_ws_trades.pipeline.sequencer import Position
from loader_ws_trades.pipeline.stream_check import StreamCheck
from loader_ws_trades.pipeline.trade import SHUTDOWN, Refusal, Trade
from loader_ws_trades.run.frame_file import FrameWriter
from loader_ws_trades.run.resume import Resume

_FLUSH_EVERY = 0.9  # seconds between two writes of recorded frames: a kill loses at most the last second
_FEED_END = 2.0  # seconds after which a feed that is still connecting is not waited for


class Live:
    """Streams `settings.symbol`, and repairs the gaps; a `Source`.

    Args:
        settings: the limits.
        recorder: takes the raw frames too.
    """

    def __init__(self, settings: Settings, *, recorder: FrameWriter | None = None) -> None:
        self.total = settings.max_records
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
        """See whether the symbol is one that trades.

        Raises:
            ConfigurationError: if the exchange does not know it, or does not serve this location.
        """
        self._rest.check_symbol(self._settings.symbol)

    def prepare(self, intake: Intake) -> None:
        """Go on behind the newest trade on the topic, if there is one.

        Raises:
            RunError: if that cannot be seen.
        """
        self._resumed = self._resume.position()
        if self._resumed is not None:
            intake.resume(self._resumed)

    def start(self, intake: Intake, on_death: OnDeath) -> None:
        """Begin to stream into `intake`."""
        self._intake = intake
        if self._settings.gap_repair == "on":
            self._repair = Repair(
                self._settings,
                fetch=self._fetch,
                newest=lambda: self._rest.newest_trade(self._settings.symbol),
                ingest=intake,
                stopping=self._repair_stopping,
                await_turn=self._rest.await_turn,
                on_turn=self._check_stream(intake).turn,
            )
            repair, resumed = self._repair, self._resumed
            self._repair_task = spawn("repair", lambda: repair.run(resumed=resumed), on_death)
        self._feed.start(intake, on_death, take=self._take if self._recorder else None)

    def _check_stream(self, intake: Intake) -> StreamCheck:
        self._stream_check = StreamCheck(
            self._settings,
            newest_id=lambda: self._rest.last_id(self._settings.symbol),
            ingest=intake,
            is_open=lambda: self._feed.trouble() is None,
            replace=lambda: self._feed.rotate("it brings no trades", "silent"),
        )
        return self._stream_check

    def _take(self, frames: list[bytes], connection: int) -> bool:
        if self._recorder:
            self._recorder.write(frames)
        return self._intake.take(frames, connection)

    def _fetch(self, first_id: int) -> list[Trade]:
        rows, refusals = self._rest.trades_from(self._settings.symbol, first_id)
        self._intake.refuse(refusals)
        return rows

    def refused(self, refusal: Refusal, connection: int) -> bool:
        """Note a frame that is no trade: the exchange may have announced its shutdown."""
        if refusal.kind != SHUTDOWN:
            return False
        self._feed.announce_end(connection)
        return True

    def keep_only(self, connection: int) -> None:
        """End all other connections: this one has shown that the trade ids began anew."""
        self._feed.keep_only(connection)

    def tick(self) -> None:
        """Rotate the connection when it is time to.

        Raises:
            RunError: when there was no connection for longer than the outage limit.
        """
        self._feed.tick()
        if self._recorder and self._flush.passed:
            self._flush = Deadline(_FLUSH_EVERY)
            self._recorder.flush()

    @property
    def state(self) -> str:
        """Waiting for the topic, connecting, repairing, live, or ending."""
        if self._closed.is_set():
            return "ending"
        if self._resume.waits:
            return "waiting"
        if not self._feed.connections or self._feed.trouble():
            return "connecting"
        return "repairing" if self._has_gap() else "live"

    @property
    def reconnects(self) -> int:
        """How often the stream was connected again, rotations included."""
        return max(0, self._feed.connections - 1)

    @property
    def resumes(self) -> bool:
        """Whether the next run resumes after the newest trade on the topic: it is to, and may read the topic."""
        return self._resume.possible

    @property
    def link(self) -> Link:
        """The stream's connection."""
        return Link(self._feed.opened, self._feed.lost, dict(self._feed.reconnects))

    @property
    def rest_weight(self) -> int:
        """Request weight of the last minute."""
        return self._rest.weight_used

    def activities(self) -> list[Activity]:
        """What the feed's threads do."""
        return self._feed.activities()

    def trouble(self) -> str | None:
        """Why there is no connection, or none is tried yet; None while there is one."""
        check = self._stream_check
        silent = "the stream is silent, trades are fetched from REST" if check and check.silent else None
        return self._resume.waits or self._feed.trouble() or silent

    @property
    def unchecked(self) -> str | None:
        """What the start could not see, if so."""
        return self._resume.unchecked

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
        """Whether the stream is closed, and nothing is missing of what it brought."""
        return self._closed.is_set() and self._feed.join(0) and not self._has_gap()

    def _has_gap(self) -> bool:
        return self._repair is not None and self._intake.has_gap

    def finish(self, *, final: bool, patient: bool) -> bool:
        """End what still goes on behind the closed stream; whether nothing more is to be expected."""
        if patient and not (self._feed.join(0) or self._feed_end.passed):
            return False
        if final and patient and self._has_gap():
            return False
        # The repair thread may hang in a request: it is told to end, and not waited for.
        self._repair_stopping.set()
        if final and self._has_gap():
            self._intake.give_up("the run ended")
        return True

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end; whether it has come."""
        ended = self._feed.join(timeout)
        self._repair_stopping.set()
        self._rest.close()
        if self._recorder:
            self._recorder.close()
        return ended
