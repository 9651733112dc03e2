"""Between source and sink: decodes, puts in order, hands on, and waits when the sink is full."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Many

from loader_ws_trades.pipeline.sequencer import Event, Gap, Position, Reset, Sequence
from loader_ws_trades.pipeline.stamps import stamped
from loader_ws_trades.pipeline.trade import KINDS, FrameDecoder, Refusal, Trade

_FOREIGN_KINDS = 20  # kinds of refused frames, beside our own `KINDS`, that are told apart
_BEFORE_RESET = Refusal(
    "old sequence", "read from another connection than the one that showed that the trade ids began anew"
)
_LOCK_TIME = 0.3  # seconds after which a thread that holds the lock hangs
_ROOM_CHECK = 0.01  # seconds between two looks whether a full sink has room again


class Ingest:
    """The only owner of a `Sequence`. `take` may be called by several threads; the lock is taken once a read.

    Invariants: trades reach the sink in the order in which the sequence gave them out, also while some wait for
    room: what waits goes first. The lock is not held while waiting, neither are the `on_...` functions called under
    it; they are called in the thread that brought the trades.

    Args:
        decoder: turns frames into trades.
        sequence: puts them in order.
        put: takes trades in order, without blocking, and says how many it took.
        limit: the number of trades after which nothing more is taken.
        on_limit: called once they are all handed on.
        on_refusal: gets what was no trade of ours, and the number of the connection that brought it.
        on_events: gets ids that will not come, and resets, with the reason.
        stamp_source: where the trades come from that are given, if they are to be stamped with it.
        on_read: called once the sink has all of a read, with the time (monotonic) at which that came.
    """

    def __init__(
        self,
        decoder: FrameDecoder,
        sequence: Sequence,
        put: Callable[[Iterable[Trade]], int],
        *,
        limit: int | None,
        on_limit: Callable[[], None],
        on_refusal: Callable[[Refusal, int], None],
        on_events: Callable[[list[Event], str], None],
        stamp_source: str | None = None,
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        self._decoder = decoder
        self._sequence = sequence
        self._put = put
        sequence.left = limit
        self._on_limit = on_limit
        self._on_refusal = on_refusal
        self._on_events = on_events
        self._stamp_source = stamp_source
        self._on_read = on_read
        self._told_limit = False
        self._connections = 0  # numbers given out
        self._newest_of: dict[int, int] = {}  # of each open connection: the id that it brought last, or -1
        # After a reset: the connection that proved it, and the last one that may have frames of the sequence before.
        self._proved, self._doubtful = 0, 0
        self._lock = threading.Lock()
        self._waiting: deque[Trade] = deque()
        self._closed = False
        self._abandoned = threading.Event()
        self.gap_seen = threading.Event()
        """Set when something is missing; cleared by who sees to it."""
        self.received = 0
        self.repaired = 0
        self.missing = 0
        self.refused: Counter[str] = Counter()
        self._foreign_kinds = 0

    @property
    def duplicates(self) -> int:
        """Trades that were dropped because their id had been passed."""
        return self._sequence.duplicates

    @property
    def late(self) -> int:
        """Trades that were dropped because they came after their ids had been given up."""
        return self._sequence.late

    @property
    def gaps(self) -> int:
        """How often ids began to be missing."""
        return self._sequence.gaps

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return bool(self._waiting)

    @property
    def last_time(self) -> int:
        """Milliseconds since 1970, of the last trade that was handed on; 0 if there was none."""
        return self._sequence.last_time

    @property
    def newest_time(self) -> int:
        """Milliseconds since 1970, of the newest trade seen; 0 if there was none."""
        return self._sequence.newest_time

    def connect(self) -> int:
        """A number for a connection that was opened, for `take`."""
        with self._lock:
            self._connections += 1
            self._newest_of[self._connections] = -1
            return self._connections

    def disconnect(self, connection: int) -> None:
        """Note that a connection has ended."""
        with self._lock:
            self._newest_of.pop(connection, None)

    def take(self, frames: list[bytes], connection: int = 0) -> bool:
        """Take the frames of one read; whether a trade of ours was among them. Blocks while the sink is full."""
        came = time.monotonic() if self._on_read else 0.0
        with self._lock:
            if self._sequence.left == 0 or self._closed:
                return False
            trades, refusals = self._decoder.decode(frames)
            if connection <= self._doubtful and connection != self._proved:
                trades, refusals = [], [_BEFORE_RESET] * len(frames)
            events = self._push(trades, connection)
            if trades:
                self._newest_of[connection] = trades[-1].trade_id
            in_order = self._sequence.in_order
        if refusals:
            self.refuse(refusals, connection)
        if not in_order:
            self.gap_seen.set()
        self._finish(events, "repair is off")
        if self._on_read and trades and in_order:
            self._on_read(came)
        return bool(trades)

    def give(self, trades: Many[Trade]) -> None:
        """Take trades as they came. Blocks while the sink is full."""
        if self._stamp_source:
            trades = stamped(trades, self._stamp_source)
        with self._lock:
            if self._sequence.left == 0 or self._closed:
                return
            events = self._push(trades, 0)
        self._finish(events, "the source does not have them")

    def _push(self, trades: Many[Trade], connection: int) -> list[Event]:
        self.received += len(trades)
        ready, events = self._sequence.push(trades, connection)
        if events and _has_reset(events):
            self._proved, self._doubtful = connection, self._connections
        self._hand_on(ready, events)
        return events

    def refuse(self, refusals: Iterable[Refusal], connection: int = 0) -> None:
        """Count what was no trade of ours, and pass it on."""
        for refusal in refusals:
            kind = refusal.kind
            with self._lock:
                if kind not in KINDS and kind not in self.refused:
                    if self._foreign_kinds == _FOREIGN_KINDS:
                        kind = "other"
                    else:
                        self._foreign_kinds += 1
                self.refused[kind] += 1
            self._on_refusal(Refusal(kind, refusal.detail), connection)

    def fill(self, rows: Many[Trade]) -> int:
        """Take trades from REST, ascending; how many came out, held ones included. Blocks while the sink is full."""
        if self._stamp_source:
            rows = stamped(rows, "rest")
        with self._lock:
            if self._sequence.left == 0 or self._closed:
                return 0
            held = self._sequence.held
            ready, events = self._sequence.fill(rows)
            self.repaired += len(ready) + self._sequence.held - held  # not what was held before, and came out with it
            self._hand_on(ready, events)
        self._finish(events, "REST does not have them")
        return len(ready)

    def skip(self, before: int, why: str) -> None:
        """Give up on the ids missing before the id `before`; blocks while the sink is full."""
        with self._lock:
            if self._sequence.left == 0 or self._closed:
                return
            ready, events = self._sequence.skip(before)
            self._hand_on(ready, events)
        self._finish(events, why)

    def resume(self, last: Position) -> None:
        """Go on behind `last`, which is out already; only while nothing is held back."""
        with self._lock:
            self._sequence.resume(last)

    def begin_after(self, trade_id: int) -> None:
        """Begin behind `trade_id`, if no trade has come yet."""
        with self._lock:
            self._sequence.begin_after(trade_id)

    def expect(self, newest: int, *, hint: bool = False) -> None:
        """Treat the ids up to `newest` as missing; with `hint` until `drop_hint`, unless trades show that they are."""
        with self._lock:
            self._sequence.expect(newest, hint=hint)
            in_order = self._sequence.in_order
        if not in_order:
            self.gap_seen.set()

    def drop_hint(self) -> bool:
        """Expect nothing more for a hint, unless trades are held that show the gap; whether there was such a hint."""
        with self._lock:
            return self._sequence.drop_hint()

    def in_order(self) -> bool:
        """Whether nothing is missing before the newest trade seen."""
        with self._lock:
            return self._sequence.in_order

    def gap(self) -> Gap | None:
        """The ids that hold back what follows; None when nothing is missing, or nothing more is taken."""
        with self._lock:
            return None if self._closed or self._sequence.left == 0 else self._sequence.gap()

    @property
    def has_gap(self) -> bool:
        """Whether ids hold back what follows; without the lock, for the main thread."""
        return not (self._closed or self._sequence.left == 0 or self._sequence.in_order)

    @property
    def newest_id(self) -> int:
        """The highest id known, whether its trade came out or not; -1 if there is none."""
        with self._lock:
            return self._sequence.newest_id

    def is_hint(self) -> bool:
        """Whether no trade shows the present gap, but only a hint."""
        with self._lock:
            return self._sequence.is_hint

    def behind(self) -> int:
        """How many ids have not come out, up to the newest one seen."""
        with self._lock:
            return self._sequence.behind

    def is_confirmed(self) -> bool:
        """Whether the present gap is one on each open connection: all of them have brought a higher id."""
        with self._lock:
            gap, newest = self._sequence.gap(), self._newest_of.values()
            return gap is None or len(newest) < 2 or all(trade_id > gap.first for trade_id in newest)

    @property
    def newest_streamed(self) -> int:
        """The highest of the ids that the open connections brought last; -1 if there is none."""
        with self._lock:
            return max(self._newest_of.values(), default=-1)

    def _hand_on(self, ready: Many[Trade], events: list[Event]) -> None:
        """Put trades into the sink, or in line behind those that wait for it."""
        if self._waiting:
            self._waiting.extend(ready)
        elif (taken := self._put(ready)) < len(ready):
            self._waiting.extend(ready[taken:])
        if events:
            self.missing += sum(len(event) for event in events if isinstance(event, Gap))

    def _finish(self, events: list[Event], why: str) -> None:
        """Tell what happened, and wait until the sink has all."""
        if events:
            self._on_events(events, "before a new sequence" if _has_reset(events) else why)
        self._await_room()
        if self._sequence.left == 0 and not self._told_limit:
            self._told_limit = True
            self._on_limit()

    def _await_room(self) -> None:
        while self._waiting and not self._abandoned.wait(_ROOM_CHECK):
            with self._lock:
                for _ in range(self._put(self._waiting)):
                    self._waiting.popleft()

    @property
    def idle(self) -> bool:
        """Whether no trade is on its way from `take` to the sink."""
        return not self._waiting and not self._lock.locked()

    # For the end of a run, in the main thread. A thread that hangs with the lock in its hands is not waited for: the
    # process ends, and what is known must be named.

    def give_up(self, why: str) -> None:
        """Give up on all that is missing, without waiting for room."""
        events: list[Event] = []
        with self._lock_or_time():
            while self._sequence.left != 0 and (gap := self._sequence.gap()) is not None:
                ready, given_up = self._sequence.skip(gap.last + 1)
                self._hand_on(ready, given_up)
                events += given_up
        if events:
            self._on_events(events, why)

    def close(self) -> bool:
        """Take nothing more, and put what waits for room into the sink as far as there is; whether all of it is."""
        self._end()
        with self._lock_or_time():
            for _ in range(self._put(self._waiting)):
                self._waiting.popleft()
        return not self._waiting

    def abandon(self) -> list[int]:
        """Take nothing more and wait for room no more; the ids of the trades that did."""
        self._end()
        self._abandoned.set()
        with self._lock_or_time():
            left = [trade.trade_id for trade in self._waiting]
            # A reader that is just about to put them must find none.
            self._waiting.clear()
        return left

    def _end(self) -> None:
        self._closed = True
        with self._lock_or_time():
            undecided = self._sequence.end()
            self._hand_on([], undecided)
        if undecided:
            self._on_events(undecided, "the run ended before it was clear whether the trade ids were reset")

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
