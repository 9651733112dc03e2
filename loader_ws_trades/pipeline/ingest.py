"""Between source and sink: decodes and orders trades, passes them on, and blocks while the sink is full."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from loader_ws_trades.pipeline.connections import Connections
from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.events import Event, Gap, Position, Reset, Standing
from loader_ws_trades.pipeline.sequencer import Sequencer
from loader_ws_trades.pipeline.stamps import stamped
from loader_ws_trades.pipeline.trade import FrameDecoder, RejectedCounts, RejectedFrame, Trade

_BEFORE_RESET = RejectedFrame(
    "old sequence", "received on another connection than the one that proved the reset of trade ids"
)
_LOCK_TIME = 0.3  # seconds after which a thread that holds the lock is stuck
_ROOM_CHECK = 0.01  # seconds between checks whether a full sink has room


class Ingest:
    """The only owner of a `Sequencer`. `take` may be called by several threads; the lock is taken once per read.

    Invariants: trades reach the sink in the order in which the sequencer emitted them, even while some wait for room:
    these go first. The lock is not held while waiting, nor while calling the `on_...` functions; they are called in the
    thread that brought the trades.

    Args:
        decoder: decodes frames.
        sequencer: puts them in order.
        put: takes trades in order, without blocking, and returns how many it took.
        limit: the number of trades after which no more are taken.
        on_limit: called once they are all passed on.
        on_rejected: gets frames that are not valid trades, and the number of their connection.
        on_events: gets ids given up, late trades and resets, with the reason.
        stamp_source: where the trades come from that are given, if they are to be stamped with it.
        copies: counts what each of several connections brought.
        on_read: called once the sink has all trades of a read, with the time (monotonic) when it was received.
    """

    def __init__(
        self,
        decoder: FrameDecoder,
        sequencer: Sequencer,
        put: Callable[[Iterable[Trade]], int],
        *,
        limit: int | None,
        on_limit: Callable[[], None],
        on_rejected: Callable[[RejectedFrame, int], None],
        on_events: Callable[[list[Event], str], None],
        stamp_source: str | None = None,
        copies: Copies | None = None,
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        self._decoder = decoder
        self.sequencer = sequencer
        """For its counters and times, which any thread may read."""
        self._put = put
        sequencer.left = limit
        self._on_limit = on_limit
        self._on_rejected = on_rejected
        self._on_events = on_events
        self._stamp_source = stamp_source
        self._on_read = on_read
        self._limit_reported = False
        self._connections = Connections(copies)
        self._lock = threading.Lock()
        self._waiting: deque[Trade] = deque()
        self._closed = False
        self._abandoned = threading.Event()
        self.gap_seen = threading.Event()
        """Set when trades are missing; cleared by whoever repairs them."""
        self.received = 0
        self.repaired = 0
        self.missing = 0
        self.rejected = RejectedCounts()

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return bool(self._waiting)

    def connect(self, slot: int = 0) -> int:
        """A number for a connection that was opened in a slot of the set of connections, for `take`."""
        with self._lock:
            return self._connections.open(slot)

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""
        with self._lock:
            self._connections.close(connection)

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take the frames of one read; returns whether any was a trade. Blocks while the sink is full."""
        came = time.monotonic() if self._on_read else 0.0
        with self._lock:
            if self.sequencer.left == 0 or self._closed:
                return False
            trades, rejected = self._decoder.decode(frames)
            connections = self._connections
            if connection <= connections.doubtful and connection != connections.proved:
                trades, rejected = [], [_BEFORE_RESET] * len(frames)
            repeats = self.sequencer.duplicates
            events = self._push(trades, connection)
            if trades:
                connections.newest[connection] = trades[-1].trade_id
                if connections.copies:
                    new = len(trades) - (self.sequencer.duplicates - repeats)
                    connections.copies.note(connections.slots.get(connection, 0), trades, new, time.monotonic())
            in_order = self.sequencer.in_order
        if rejected:
            self.reject(rejected, connection)
        if not in_order:
            self.gap_seen.set()
        self._finish(events, "repair is off")
        if self._on_read and trades and in_order:
            self._on_read(came)
        return bool(trades)

    def take_trades(self, trades: Sequence[Trade]) -> None:
        """Take trades as they come. Blocks while the sink is full."""
        if self._stamp_source:
            trades = stamped(trades, self._stamp_source)
        with self._lock:
            if self.sequencer.left == 0 or self._closed:
                return
            events = self._push(trades, 0)
        self._finish(events, "the source does not have them")

    def _push(self, trades: Sequence[Trade], connection: int) -> list[Event]:
        self.received += len(trades)
        ready, events = self.sequencer.push(trades, connection)
        if events and _has_reset(events):
            self._connections.note_reset(connection)
        self._pass_on(ready, events)
        return events

    def reject(self, rejected: Iterable[RejectedFrame], connection: int = 0) -> None:
        """Count frames that are not valid trades, and pass them on."""
        for frame in rejected:
            with self._lock:
                kind = self.rejected.count(frame.kind)
            self._on_rejected(RejectedFrame(kind, frame.detail), connection)

    def fill(self, rows: Sequence[Trade]) -> int:
        """Take trades from REST, ascending; returns how many were emitted, with held ones. May block on the sink."""
        if self._stamp_source:
            rows = stamped(rows, "rest")
        with self._lock:
            if self.sequencer.left == 0 or self._closed:
                return 0
            held = self.sequencer.held
            ready, events = self.sequencer.fill(rows)
            self.repaired += len(ready) + self.sequencer.held - held  # without those emitted that were held before
            self._pass_on(ready, events)
        self._finish(events, "REST does not have them")
        return len(ready)

    def skip(self, before: int, why: str) -> None:
        """Give up on the ids missing before `before`. Blocks while the sink is full."""
        with self._lock:
            if self.sequencer.left == 0 or self._closed:
                return
            ready, events = self.sequencer.skip(before)
            self._pass_on(ready, events)
        self._finish(events, why)

    def resume(self, last: Position) -> None:
        """Continue after `last`, which is published; only while nothing is held back."""
        with self._lock:
            self.sequencer.resume(last)

    def start_after(self, trade_id: int) -> None:
        """Start after `trade_id`, if there was no trade yet."""
        with self._lock:
            self.sequencer.start_after(trade_id)

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; a `hint` only until `drop_hint`, unless trades confirm it."""
        with self._lock:
            self.sequencer.expect(newest, hint=hint)
            in_order = self.sequencer.in_order
        if not in_order:
            self.gap_seen.set()

    def drop_hint(self) -> bool:
        """Forget a hint that no held trade confirms; returns whether there was one."""
        with self._lock:
            return self.sequencer.drop_hint()

    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""
        with self._lock:
            return self.sequencer.in_order

    def gap(self) -> Gap | None:
        """The missing ids that hold trades back; None if there are none, or no more trades are taken."""
        with self._lock:
            return None if self._closed or self.sequencer.left == 0 else self.sequencer.gap()

    @property
    def has_gap(self) -> bool:
        """Whether missing ids hold trades back; without the lock, for the main thread."""
        return not (self._closed or self.sequencer.left == 0 or self.sequencer.in_order)

    def standing(self) -> Standing:
        """How far its trades have come."""
        with self._lock:
            sequencer, connections = self.sequencer, self._connections
            gap, streamed = sequencer.gap(), dict(connections.newest)
            confirmed = gap is None or connections.confirm(gap.first)
            return Standing(sequencer.newest_id, streamed, sequencer.behind, sequencer.is_hint, confirmed)

    def _pass_on(self, ready: Sequence[Trade], events: list[Event]) -> None:
        """Put trades into the sink, or behind those waiting for room in it."""
        if self._waiting:
            self._waiting.extend(ready)
        elif (taken := self._put(ready)) < len(ready):
            self._waiting.extend(ready[taken:])
        if events:
            self.missing += sum(len(event) for event in events if isinstance(event, Gap))

    def _finish(self, events: list[Event], why: str) -> None:
        """Report events, and wait until the sink has taken all trades."""
        if events:
            self._on_events(events, "before the reset of trade ids" if _has_reset(events) else why)
        self._await_room()
        if self.sequencer.left == 0 and not self._limit_reported:
            self._limit_reported = True
            self._on_limit()

    def _await_room(self) -> None:
        while self._waiting and not self._abandoned.wait(_ROOM_CHECK):
            with self._lock:
                for _ in range(self._put(self._waiting)):
                    self._waiting.popleft()

    @property
    def idle(self) -> bool:
        """Whether no trade is between `take` and the sink."""
        return not self._waiting and not self._lock.locked()

    # For the end of a run, in the main thread. It does not wait for a thread that is stuck holding the lock: the
    # process ends, and what is known must be reported.

    def give_up(self, why: str) -> None:
        """Give up on all missing ids, without waiting for room."""
        events: list[Event] = []
        with self._lock_or_time():
            while self.sequencer.left != 0 and (gap := self.sequencer.gap()) is not None:
                ready, given_up = self.sequencer.skip(gap.last + 1)
                self._pass_on(ready, given_up)
                events += given_up
        if events:
            self._on_events(events, why)

    def close(self) -> bool:
        """Take no more trades, and pass on those waiting as far as there is room; returns whether all were."""
        self._end()
        with self._lock_or_time():
            for _ in range(self._put(self._waiting)):
                self._waiting.popleft()
        return not self._waiting

    def abandon(self) -> list[int]:
        """Take no more trades and stop waiting for room; returns the ids of the trades waiting."""
        self._end()
        self._abandoned.set()
        with self._lock_or_time():
            left = [trade.trade_id for trade in self._waiting]
            # A thread that is about to put them must find none.
            self._waiting.clear()
        return left

    def _end(self) -> None:
        self._closed = True
        with self._lock_or_time():
            undecided = self.sequencer.end()
            self._pass_on([], undecided)
        if undecided:
            self._on_events(undecided, "the run ended before a reset of trade ids was proved")

    @contextlib.contextmanager
    def _lock_or_time(self) -> Iterator[None]:
        acquired = self._lock.acquire(timeout=_LOCK_TIME)
        try:
            yield
        finally:
            if acquired:
                self._lock.release()


def _has_reset(events: list[Event]) -> bool:
    return any(isinstance(event, Reset) for event in events)
