"""Between source and sink: decodes frames, and brings each trade to the lane of its pair."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from loader_ws_trades.pipeline.events import Event
from loader_ws_trades.pipeline.lane import Lane
from loader_ws_trades.pipeline.outlet import Outlet
from loader_ws_trades.pipeline.stamps import StampingDecoder
from loader_ws_trades.pipeline.trade import ANSWERS, FrameDecoder, RejectedCounts, RejectedFrame, Trade

_BEFORE_RESET = RejectedFrame(
    "old sequence", "received on another connection than the one that proved the reset of trade ids"
)


class Ingest:
    """Takes the frames of any number of connections; the lock is taken once per read.

    Args:
        outlet: has the lock, and passes trades on.
        on_rejected: gets frames that are not valid trades, and the number of their connection; returns whether the
            source understands them.
        on_read: called once the sink has all trades of a read, with the time (monotonic) when it was received.
        stamp_source: where the frames come from, if their trades are to be stamped with it.
    """

    def __init__(
        self,
        outlet: Outlet[Lane],
        *,
        on_rejected: Callable[[RejectedFrame, int], bool],
        on_read: Callable[[float], None] | None = None,
        stamp_source: str | None = None,
    ) -> None:
        self._outlet = outlet
        self.lanes: dict[str, Lane] = {}
        """By symbol."""
        self._only: Lane | None = None  # if there is one
        self._decoder = StampingDecoder(self.lanes, stamp_source) if stamp_source else FrameDecoder(self.lanes)
        self._on_rejected = on_rejected
        self._on_read = on_read
        self._numbers = 0  # of connections
        self._slots: dict[int, int] = {}  # by open connection
        self._carried: dict[int, set[Lane]] = {}  # by open connection
        self.rejected = RejectedCounts()

    def add(self, lane: Lane) -> None:
        """Take the trades of another pair, from connections that are opened from now on, or by `add_streams`."""
        with self._outlet.lock:
            self.lanes[lane.symbol] = lane
            self._find_only()

    def remove(self, lane: Lane) -> None:
        """Take no more trades of a pair."""
        with self._outlet.lock:
            lane.ended = True
            if self.lanes.get(lane.symbol) is lane:
                del self.lanes[lane.symbol]
            self._outlet.behind.pop(lane, None)
            self._find_only()

    def _find_only(self) -> None:
        self._only = next(iter(self.lanes.values())) if len(self.lanes) == 1 else None

    @property
    def lane(self) -> Lane:
        """The lane of a run that loads one pair."""
        return next(iter(self.lanes.values()))

    @property
    def gap_seen(self) -> threading.Event:
        """Set when trades of any pair are missing; cleared by the repair thread."""
        return self._outlet.gap_seen

    def lanes_with_gaps(self) -> list[Lane]:
        """The lanes whose missing ids hold trades back, in the order in which their gaps appeared."""
        return list(self._outlet.behind) if self._outlet.takes else []

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return self._outlet.full

    @property
    def idle(self) -> bool:
        """Whether no trade is between `take` and the sink."""
        return self._outlet.idle

    def connect(self, slot: int = 0, symbols: Iterable[str] | None = None) -> int:
        """A number for a connection that was opened in a slot of the set of connections, for `take`.

        Args:
            slot: the slot.
            symbols: the pairs that it carries; all of them if left out.
        """
        with self._outlet.lock:
            self._numbers += 1
            self._slots[self._numbers], self._carried[self._numbers] = slot, set()
            self._carry(self._numbers, self.lanes if symbols is None else symbols)
            return self._numbers

    def add_streams(self, connection: int, symbols: Iterable[str]) -> None:
        """Note that an open connection carries more pairs."""
        with self._outlet.lock:
            if connection in self._slots:
                self._carry(connection, symbols)

    def _carry(self, connection: int, symbols: Iterable[str]) -> None:
        for lane in [self.lanes[symbol] for symbol in symbols if symbol in self.lanes]:
            self._carried[connection].add(lane)
            lane.connections.open(connection, self._slots[connection])

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""
        with self._outlet.lock:
            self._slots.pop(connection, None)
            for lane in self._carried.pop(connection, ()):
                lane.connections.close(connection)

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take the frames of one read; returns whether any was a trade. Blocks while the sink is full."""
        came = time.monotonic() if self._on_read else 0.0
        outlet = self._outlet
        reports: list[tuple[Lane, list[Event]]] = []
        taken = in_order = False
        with outlet.lock:
            if outlet.closed or outlet.left == 0:
                return False
            only = self._only
            trades, rejected = self._decoder.decode(frames)
            for lane, batch in ((only, trades),) if only and trades else self._routed(trades):
                connections = lane.connections
                if connection <= connections.doubtful and connection != connections.proved:
                    rejected = rejected + [_BEFORE_RESET] * len(batch)
                    continue
                if events := lane.push(batch, connection):
                    reports.append((lane, events))
                taken, in_order = True, in_order or not outlet.behind or lane not in outlet.behind
        if rejected:
            self.reject(rejected, connection)
        for lane, events in reports:
            lane.report(events, "repair is off")
        outlet.settle()
        if self._on_read and in_order:
            self._on_read(came)
        return taken

    def _routed(self, trades: Iterable[Trade]) -> Iterable[tuple[Lane, list[Trade]]]:
        """The trades of each lane, in the order in which they came."""
        found: dict[str, list[Trade]] = {}
        for trade in trades:
            found.setdefault(trade.symbol, []).append(trade)
        return [(self.lanes[symbol], batch) for symbol, batch in found.items()]

    def reject(self, rejected: Iterable[RejectedFrame], connection: int = 0) -> None:
        """Pass on frames that are not valid trades, and count them, except for answers to our own messages."""
        for frame in rejected:
            kind = self.rejected.kind_of(frame)
            understood = self._on_rejected(RejectedFrame(kind, frame.detail), connection)
            if not (understood and kind in ANSWERS):
                with self._outlet.lock:
                    self.rejected[kind] += 1

    def in_order(self, connection: int | None = None) -> bool:
        """Whether nothing is missing before the newest trades seen, of all pairs or of those a connection carries."""
        behind = self._outlet.behind
        return not behind or (connection is not None and self._carried.get(connection, set()).isdisjoint(list(behind)))

    @property
    def has_gap(self) -> bool:
        """Whether missing ids hold trades back; without the lock, for the main thread."""
        return self._outlet.takes and bool(self._outlet.behind)

    # For the end of a run, in the main thread.

    def give_up(self, why: str) -> None:
        """Give up on all missing ids, without waiting for room."""
        for lane in list(self._outlet.behind):
            lane.give_up(why)

    def close(self) -> bool:
        """Take no more trades, and pass on those waiting as far as there is room; returns whether all were."""
        self._end()
        return self._outlet.flush()

    def abandon(self) -> list[tuple[str, int]]:
        """Take no more trades and stop waiting for room; returns the symbols and ids of the trades waiting."""
        self._end()
        return [(lane.symbol, trade.trade_id) for lane, trades in self._outlet.abandon() for trade in trades]

    def _end(self) -> None:
        self._outlet.closed = True
        for lane in list(self.lanes.values()):
            lane.end()
