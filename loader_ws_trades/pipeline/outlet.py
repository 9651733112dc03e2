"""The way out to the sink, which all lanes share: one lock, the trades that wait for room, and the limit."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from loader_ws_trades.pipeline.trade import Trade

_LOCK_TIME = 0.3  # seconds after which a thread that holds the lock is stuck
_ROOM_CHECK = 0.01  # seconds between checks whether a full sink has room


_Lane = TypeVar("_Lane")


class Outlet(Generic[_Lane]):
    """Passes trades on to the sink in the order in which it gets them, even while some wait for room.

    The lock is not held while waiting, nor while calling `on_limit`.

    Args:
        put: takes trades of a lane in order, without blocking, and returns how many it took.
        limit: the number of trades after which no more are taken.
        on_limit: called once they are all passed on.
    """

    def __init__(
        self, put: Callable[[Sequence[Trade], _Lane], int], *, limit: int | None, on_limit: Callable[[], None]
    ) -> None:
        self._put = put
        self.left = limit
        """How many trades may still be passed on, if limited."""
        self._on_limit = on_limit
        self._limit_reported = False
        self.lock = threading.Lock()
        """Held while trades are put in order and passed on."""
        self._waiting: deque[tuple[_Lane, list[Trade]]] = deque()
        self.closed = False
        """Whether no more trades are taken."""
        self._abandoned = threading.Event()
        self.behind: dict[_Lane, None] = {}
        """The lanes with gaps, in the order in which these appeared."""
        self.gap_seen = threading.Event()
        """Set when trades of any pair are missing; cleared by the repair thread."""

    @property
    def full(self) -> bool:
        """Whether trades wait for room in the sink."""
        return bool(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether no trade is on its way to the sink."""
        return not self._waiting and not self.lock.locked()

    @property
    def takes(self) -> bool:
        """Whether it takes more trades."""
        return not self.closed and self.left != 0

    def holds(self, lane: _Lane) -> bool:
        """Whether trades of this lane wait for room."""
        return any(waiting is lane for waiting, _ in list(self._waiting))

    def pass_on(self, trades: Sequence[Trade], lane: _Lane) -> None:
        """Put trades into the sink, or behind those waiting for room in it. The lock is held."""
        if self._waiting:
            if trades:
                self._waiting.append((lane, list(trades)))
            return
        put = self._put
        taken = put(trades, lane)
        if taken < len(trades):
            self._waiting.append((lane, list(trades[taken:])))

    def settle(self) -> None:
        """Wait until the sink has taken all trades, and report the limit if it is reached. The lock is not held."""
        while self._waiting and not self._abandoned.wait(_ROOM_CHECK):
            with self.lock:
                self._put_waiting()
        if self.left == 0 and not self._limit_reported:
            self._limit_reported = True
            self._on_limit()

    def _put_waiting(self) -> None:
        while self._waiting:
            lane, trades = self._waiting[0]
            taken = self._put(trades, lane)
            del trades[:taken]
            if trades:
                return
            self._waiting.popleft()

    # For the end of a run, in the main thread. It does not wait for a thread that is stuck holding the lock: the
    # process ends, and what is known must be reported.

    @contextlib.contextmanager
    def lock_or_time(self) -> Iterator[None]:
        """Hold the lock, or continue without it if its holder seems to be stuck."""
        acquired = self.lock.acquire(timeout=_LOCK_TIME)
        try:
            yield
        finally:
            if acquired:
                self.lock.release()

    def flush(self) -> bool:
        """Pass on the trades waiting as far as there is room; returns whether all were."""
        with self.lock_or_time():
            self._put_waiting()
        return not self._waiting

    def abandon(self) -> list[tuple[_Lane, list[Trade]]]:
        """Stop waiting for room; returns the trades that wait for it."""
        self._abandoned.set()
        with self.lock_or_time():
            left = list(self._waiting)
            # A thread that is about to put them must find none.
            self._waiting.clear()
        return left
