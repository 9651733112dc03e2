# ruff: noqa: ARG002 - not every tampering needs all that it is told
"""A slow way to the client: trades arrive late, each by the same time or by times drawn at random."""

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
from loader_ws_trades.sandbox.faults.fault import Fault, Injector, Occasion
from loader_ws_trades.sandbox.faults.tampering import Frame

_P99 = 2.326  # standard deviations from the median of a normal distribution to its 99th percentile


@dataclass(frozen=True)
class Delay(Fault):
    """Trades reach the connections that are open late, in order, as over one TCP connection."""

    seconds: float = 0.3
    """By how much; with `p99` the median of a log-normal distribution."""
    p99: float | None = None
    """Its 99th percentile; none: all by the same time."""
    share: int = 100
    """Percent of the trades, chosen at random."""
    overtaking: bool = False
    """Whether trades that are not delayed pass those that are, so that they arrive out of order."""
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

    def strike(self, occasion: Occasion) -> None:
        """Delay from now on."""
        for connection in occasion.connections:
            occasion.faults.tamper(Delaying(self, connection, occasion.faults))


class Delaying:
    """Keeps each frame of one connection until it is due."""

    last = False

    def __init__(self, fault: Delay, connection: Client, faults: Injector) -> None:
        self._fault = fault
        self._connection = connection
        self._faults = faults
        self._chance = random.Random(f"{fault.seed}/{connection.number}")
        self._until = math.inf if fault.lasting is None else time.monotonic() + fault.lasting
        self._kept: list[tuple[float, int, bytes]] = []
        self._numbers = count()
        self._latest = self._next = 0.0
        """When the last frame is due; when the next look at those that are kept is."""

    def touches(self, connection: Client, batch: Batch) -> bool:
        """Whether it is the connection."""
        return connection is self._connection

    def apply(self, connection: Client, frames: list[Frame]) -> list[Frame]:
        """Keep the frames; those that are due at once are sent at once."""
        now = time.monotonic()
        for frame in frames:
            due = now + self._draw(now)
            if not self._fault.overtaking:
                due = self._latest = max(due, self._latest)
            heapq.heappush(self._kept, (due, next(self._numbers), frame.data))
        self._release()
        return []

    def over(self, position: int) -> bool:
        """Whether its time is over, or the connection's, and nothing is kept."""
        return not self._connection.open or (not self._kept and time.monotonic() >= self._until)

    def held(self) -> Iterable[tuple[Client, bytes]]:
        """Return the frames that are kept."""
        return [(self._connection, b"".join(data for _, _, data in sorted(self._kept)))]

    def _draw(self, now: float) -> float:
        fault = self._fault
        if now >= self._until or self._chance.random() * 100 >= fault.share:
            return 0.0
        if fault.p99 is None:
            return fault.seconds
        return self._chance.lognormvariate(math.log(fault.seconds), math.log(fault.p99 / fault.seconds) / _P99)

    def _release(self) -> None:
        now, due = time.monotonic(), []
        while self._kept and self._kept[0][0] <= now:
            due.append(heapq.heappop(self._kept)[-1])
        if due:
            self._connection.outlet.write_trades(b"".join(due))
        if self._kept and not now < self._next <= self._kept[0][0]:
            self._next = self._kept[0][0]
            self._faults.later(self._next - now, self._release)
