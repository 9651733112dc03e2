"""Between source and sink: decodes, puts in order, hands on, and waits when the sink is full."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable

from loader_ws_trades.sequence import Gap, Reset, Sequence, ranges
from loader_ws_trades.trade import FrameDecoder, Refusal, Trade

_ROOM_CHECK = 0.01  # seconds between two looks whether a full sink has room again


class Ingest:
    """The only owner of a `Sequence`. `take` may be called by several threads; the lock is taken once a read.

    Invariants: trades reach the sink in the order in which the sequence gave them out, also while some wait for
    room: what waits goes first. The lock is not held while waiting. `on_refusal` and `on_event` are called outside
    the lock, in the reading thread.

    Args:
        decoder: turns frames into trades.
        put: takes trades in order, without blocking, and says how many it took.
        limit: the number of trades after which nothing more is taken.
        on_limit: called once they are all handed on.
        on_refusal: gets what was no trade of ours.
        on_event: gets gaps and resets.
    """

    def __init__(
        self,
        decoder: FrameDecoder,
        put: Callable[[Iterable[Trade]], int],
        *,
        limit: int | None,
        on_limit: Callable[[], None],
        on_refusal: Callable[[Refusal], None],
        on_event: Callable[[Gap | Reset], None],
    ) -> None:
        self._decoder = decoder
        self._sequence = Sequence()
        self._put = put
        self._left = limit
        self._on_limit = on_limit
        self._on_refusal = on_refusal
        self._on_event = on_event
        self._lock = threading.Lock()
        self._waiting: deque[Trade] = deque()
        self._closed = False
        self._abandoned = threading.Event()
        self.received = 0
        self.refused: Counter[str] = Counter()

    @property
    def duplicates(self) -> int:
        """Trades that were dropped because their id had been passed."""
        return self._sequence.duplicates

    def take(self, frames: list[bytes]) -> bool:
        """Take the frames of one read; whether a trade of ours was among them. Blocks while the sink is full."""
        with self._lock:
            if self._left == 0 or self._closed:
                return False
            trades, refusals = self._decoder.decode(frames)
            self.received += len(trades)
            ready, events = self._sequence.push(trades)
            if self._left is not None:
                ready = ready[: self._left]
                self._left -= len(ready)
            reached = self._left == 0
            if self._waiting:
                self._waiting.extend(ready)
            elif (taken := self._put(ready)) < len(ready):
                self._waiting.extend(ready[taken:])
        for refusal in refusals:
            self.refused[refusal.kind] += 1
            self._on_refusal(refusal)
        for event in events:
            self._on_event(event)
        if reached:
            self._on_limit()
        self._await_room()
        return bool(trades)

    def _await_room(self) -> None:
        while self._waiting and not self._abandoned.wait(_ROOM_CHECK):
            with self._lock:
                for _ in range(self._put(self._waiting)):
                    self._waiting.popleft()

    @property
    def idle(self) -> bool:
        """Whether no trade is on its way from `take` to the sink."""
        return not self._waiting and not self._lock.locked()

    def close(self) -> None:
        """Take nothing more; what waits for room still goes on."""
        self._closed = True

    def abandon(self) -> list[Gap]:
        """Take nothing more and wait for room no more; the ids of the trades that did."""
        self._closed = True
        self._abandoned.set()
        with self._lock:
            return ranges(trade.trade_id for trade in self._waiting)
