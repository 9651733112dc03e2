"""Faults at random: the same ones for the same seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loader_ws_trades.sandbox.faults.connection_faults import (
    Cut,
    Fragments,
    Freeze,
    HalfOpen,
    HugeFrame,
    ServerShutdown,
)
from loader_ws_trades.sandbox.faults.delays import Delay
from loader_ws_trades.sandbox.faults.fault import Fault, Occasion
from loader_ws_trades.sandbox.faults.handshake_faults import HandshakeSilence, HandshakeStatus
from loader_ws_trades.sandbox.faults.rest_faults import (
    RestCut,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestSilence,
    RestStatus,
    RestTruncated,
)
from loader_ws_trades.sandbox.faults.trade_faults import Duplicate, Hole, IdReset, Malformed, Replay, Shuffle, Skip

Chance = random.Random

_DRAWN: dict[type[Fault], Callable[[Chance], Fault]] = {
    Cut: lambda chance: chance.choice(
        [*(Cut(code) for code in (1000, 1001, 1006, 1008, 1011)), Cut(reset=True), Cut(within_frame=True)]
    ),
    HalfOpen: lambda _: HalfOpen(),
    Freeze: lambda chance: Freeze(lasting=_seconds(chance), pings=chance.random() < 0.5),
    ServerShutdown: lambda chance: ServerShutdown(lead=chance.choice([0.0, _seconds(chance)])),
    HugeFrame: lambda _: HugeFrame(),
    Fragments: lambda chance: Fragments(size=chance.choice([64, 64 * 1024])),
    Delay: lambda chance: Delay(
        round(chance.uniform(0.05, 1.0), 2), share=chance.choice([10, 100]), lasting=_seconds(chance)
    ),
    Skip: lambda chance: Skip(chance.randint(1, 50)),
    Duplicate: lambda chance: Duplicate(chance.randint(1, 50)),
    Shuffle: lambda chance: Shuffle(
        chance.randint(10, 100), window=chance.randint(2, 20), seed=chance.randrange(2**32)
    ),
    Replay: lambda chance: Replay(chance.randint(1, 200)),
    Malformed: lambda chance: Malformed(chance.randint(1, 30)),
    HandshakeStatus: lambda chance: chance.choice(
        [
            HandshakeStatus(status, retry_after=1 if status in {418, 429} else None, lasting=_seconds(chance))
            for status in (302, 403, 418, 429, 503)
        ]
    ),
    HandshakeSilence: lambda _: HandshakeSilence(),
    RestStatus: lambda chance: chance.choice(
        [
            RestStatus(status, retry_after=1 if status in {418, 429} else None, lasting=_seconds(chance))
            for status in (418, 429, 500, 502, 503)
        ]
    ),
    RestSilence: lambda _: RestSilence(),
    RestCut: lambda chance: RestCut(lasting=_seconds(chance)),
    RestTruncated: lambda chance: RestTruncated(times=chance.randint(1, 3)),
    RestDrip: lambda chance: RestDrip(body=chance.random() < 0.5),
    RestOtherRows: lambda chance: RestOtherRows(chance.choice([1, 10**12]), times=chance.randint(1, 3)),
    RestLag: lambda chance: RestLag(_seconds(chance), lasting=10.0),
    Hole: lambda chance: Hole(chance.randint(1, 20)),
    IdReset: lambda _: IdReset(),
}

KINDS = {kind.kind(): draw for kind, draw in _DRAWN.items()}
"""Every kind of fault that can be drawn."""

REPAIRABLE = tuple(kind for kind in KINDS if kind not in {Hole.kind(), IdReset.kind()})
"""Those after which every trade can still be had."""


@dataclass(frozen=True)
class Random(Fault):
    """A fault of one of `kinds` every few seconds, `every` on average; the same ones for the same `seed`."""

    seed: int = 0
    every: float = 3.0
    kinds: tuple[str, ...] = REPAIRABLE
    lasting: float | None = None
    """Seconds; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("every", "lasting")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"kinds knows no {unknown[0]!r}; say some of {', '.join(KINDS)}")
        if not self.kinds:
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}")

    def plan(self) -> Iterator[tuple[float, Fault]]:
        """Yield the faults without end, each with its seconds since the first moment."""
        chance = Chance(self.seed)
        moment = 0.0
        while True:
            moment += chance.uniform(0.5, 1.5) * self.every
            yield moment, KINDS[chance.choice(self.kinds)](chance)

    def strike(self, occasion: Occasion) -> None:
        """Let the first fault strike in its time, and after each the next one."""
        plan, began = self.plan(), time.monotonic()

        def arrange() -> None:
            moment, fault = next(plan)
            if self.lasting is None or moment < self.lasting:
                occasion.faults.later(began + moment - time.monotonic(), lambda: happen(fault))

        def happen(fault: Fault) -> None:
            occasion.faults.strike(fault)
            arrange()

        arrange()


def _seconds(chance: Chance) -> float:
    return round(chance.uniform(0.5, 4.0), 1)
