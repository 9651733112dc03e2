"""Between source and sink: decodes frames, and brings each trade to the lane of its pair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.trade import FrameDecoder, RejectedCounts, RejectedFrame

_BEFORE_RESET = RejectedFrame(
    "old sequence", "received on another connection than the one that proved the reset of trade ids"
)


class Ingest:
    """Takes the frames of any number of connections; the lock is taken once per read.

    Args:
        decoder: decodes frames.
        outlet: has the lock, and passes trades on.
        lane: the pair.
        on_rejected: gets frames that are not valid trades, and the number of their connection.
        on_read: called once the sink has all trades of a read, with the time (monotonic) when it was received.
    """

    def __init__(
        self,
        decoder: FrameDecoder,
        outlet: Outlet[Lane],
        lane: Lane,
        *,
        on_rejected: Callable[[RejectedFrame, int], None],
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        self._decoder = decoder
        self._outlet = outlet
        self.lanes = {lane.symbol: lane}
        """By symbol."""
        self._only = lane
        self._on_rejected = on_rejected
        self._on_read = on_read
        self._numbers = 0  # of connections
        self.rejected = RejectedCounts()

    @property
    def lane(self) -> Lane:
        """The lane of a run that loads one pair."""
        return self._only

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return self._outlet.full

    @property
    def idle(self) -> bool:
        """Whether no trade is between `take` and the sink."""
        return self._outlet.idle

    def connect(self, slot: int = 0) -> int:
        """A number for a connection that was opened in a slot of the set of connections, for `take`."""
        with self._outlet.lock:
            self._numbers += 1
            self._only.connections.open(self._numbers, slot)
            return self._numbers

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""
        with self._outlet.lock:
            self._only.connections.close(connection)

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take the frames of one read; returns whether any was a trade. Blocks while the sink is full."""
        came = time.monotonic() if self._on_read else 0.0
        outlet, lane = self._outlet, self._only
        with outlet.lock:
            if outlet.closed or outlet.left == 0:
                return False
            trades, rejected = self._decoder.decode(frames)
            connections = lane.connections
            if connection <= connections.doubtful and connection != connections.proved:
                trades, rejected = [], rejected + [_BEFORE_RESET] * len(trades)
            events = lane.push(trades, connection) if trades else []
            in_order = not outlet.behind or lane not in outlet.behind
        if rejected:
            self.reject(rejected, connection)
        if events:
            lane.report(events, "repair is off")
        outlet.settle()
        if self._on_read and trades and in_order:
            self._on_read(came)
        return bool(trades)

    def reject(self, rejected: Iterable[RejectedFrame], connection: int = 0) -> None:
        """Count frames that are not valid trades, and pass them on."""
        for frame in rejected:
            with self._outlet.lock:
                kind = self.rejected.count(frame.kind)
            self._on_rejected(RejectedFrame(kind, frame.detail), connection)

    @property
    def gap_seen(self) -> threading.Event:
        """Set when trades are missing; cleared by whoever repairs them."""
        return self._outlet.gap_seen

    def lanes_with_gaps(self) -> list[Lane]:
        """Those that miss trades."""
        with self._outlet.lock:
            return list(self._outlet.behind)

    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trades seen."""
        return not self._outlet.behind

    # For the end of a run, in the main thread.

    def give_up(self, why: str) -> None:
        """Give up on all missing ids, without waiting for room."""
        for lane in list(self._outlet.behind):
            lane.give_up(why)

    def close(self) -> bool:
        """Take no more trades, and pass on those waiting as far as there is room; returns whether all were."""
        self._end()
        return self._outlet.flush()

    def abandon(self) -> list[int]:
        """Take no more trades and stop waiting for room; returns the ids of the trades waiting."""
        self._end()
        return [trade.trade_id for _, trades in self._outlet.abandon() for trade in trades]

    def _end(self) -> None:
        self._outlet.closed = True
        for lane in self.lanes.values():
            lane.end()
