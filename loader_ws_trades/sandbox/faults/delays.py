# ruff: noqa: ARG002 - the filters share one interface
"""A slow path to the client: trades arrive late, by a fixed or a random time."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from loader_ws_trades.sandbox.exchange.client import Client
from loader_ws_trades.sandbox.exchange.frames import Batch
from loader_ws_trades.sandbox.faults.fault import Context, Fault, Injector
from loader_ws_trades.sandbox.faults.frame_filters import Frame
from loader_ws_trades.sandbox.market.market import Market

_P99 = 2.326  # standard deviations from the median of a normal distribution to its 99th percentile


@dataclass(frozen=True)
class Delay(Fault):
    """Trades reach the open connections late but in order, as over one TCP connection."""

    seconds: float = 0.3
    """The delay; with `p99`, the median of a log-normal distribution."""
    p99: float | None = None
    """Its 99th percentile; none: a fixed delay."""
    share: int = 100
    """Percentage of trades that are delayed, chosen at random."""
    overtaking: bool = False
    """Whether other trades overtake delayed ones, so that they arrive out of order."""
    seed: int = 0
    lasting: float | None = None
    """Seconds; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("seconds", "p99", "lasting")
        if not 0 < self.share <= 100:
            raise ValueError("share must be from 1 to 100")
        if self.p99 is not None and self.p99 < self.seconds:
            raise ValueError("p99 must not be below seconds")

    def strike(self, context: Context) -> None:
        """Start delaying."""
        for connection in context.connections:
            context.injector.add_filter(DelayFilter(self, connection, context.injector))


class DelayFilter:
    """Holds back each frame of one connection until it is due."""

    runs_last = False

    def __init__(self, fault: Delay, connection: Client, injector: Injector) -> None:
        self._fault = fault
        self._connection = connection
        self._injector = injector
        self._random = random.Random(f"{fault.seed}/{connection.number}")
        self._until = math.inf if fault.lasting is None else time.monotonic() + fault.lasting
        self._held: list[tuple[float, int, bytes]] = []
        self._numbers = count()
        self._latest = self._next = 0.0
        """When the last frame is due, and when `_release` is called next."""

    def applies_to(self, connection: Client, batch: Batch) -> bool:
        """Whether it is its connection."""
        return connection is self._connection

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Hold back the frames that are not due."""
        now = time.monotonic()
        for frame in frames:
            due = now + self._draw(now)
            if not self._fault.overtaking:
                due = self._latest = max(due, self._latest)
            heapq.heappush(self._held, (due, next(self._numbers), frame.data))
        self._release()
        return []

    def is_over(self, market: Market, position: int) -> bool:
        """Whether the connection has ended, or the time is over and nothing is held back."""
        return not self._connection.open or (not self._held and time.monotonic() >= self._until)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return the frames that are not due."""
        return [(self._connection, b"".join(data for _, _, data in sorted(self._held)))]

    def _draw(self, now: float) -> float:
        fault = self._fault
        if now >= self._until or self._random.random() * 100 >= fault.share:
            return 0.0
        if fault.p99 is None:
            return fault.seconds
        return self._random.lognormvariate(math.log(fault.seconds), math.log(fault.p99 / fault.seconds) / _P99)

    def _release(self) -> None:
        now, due = time.monotonic(), []
        while self._held and self._held[0][0] <= now:
            due.append(heapq.heappop(self._held)[-1])
        if due:
            self._connection.writer.write_trades(b"".join(due))
        if self._held and not now < self._next <= self._held[0][0]:
            self._next = self._held[0][0]
            self._injector.later(self._next - now, self._release)
