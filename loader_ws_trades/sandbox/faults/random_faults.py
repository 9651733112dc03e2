"""Random faults, reproducible by their seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from loader_ws_trades.sandbox.faults.connection_faults import (
    Cut,
    Fragments,
    Freeze,
    HalfOpen,
    HugeFrame,
    ServerShutdown,
)
from loader_ws_trades.sandbox.faults.delays import Delay
from loader_ws_trades.sandbox.faults.fault import Context, Fault
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

_DRAWN: dict[type[Fault], Callable[[random.Random], Fault]] = {
    Cut: lambda rng: rng.choice(
        [*(Cut(code) for code in (1000, 1001, 1006, 1008, 1011)), Cut(reset=True), Cut(within_frame=True)]
    ),
    HalfOpen: lambda _: HalfOpen(),
    Freeze: lambda rng: Freeze(lasting=_seconds(rng), pings=rng.random() < 0.5),
    ServerShutdown: lambda rng: ServerShutdown(lead=rng.choice([0.0, _seconds(rng)])),
    HugeFrame: lambda _: HugeFrame(),
    Fragments: lambda rng: Fragments(size=rng.choice([64, 64 * 1024])),
    Delay: lambda rng: Delay(round(rng.uniform(0.05, 1.0), 2), share=rng.choice([10, 100]), lasting=_seconds(rng)),
    Skip: lambda rng: Skip(rng.randint(1, 50)),
    Duplicate: lambda rng: Duplicate(rng.randint(1, 50)),
    Shuffle: lambda rng: Shuffle(rng.randint(10, 100), window=rng.randint(2, 20), seed=rng.randrange(2**32)),
    Replay: lambda rng: Replay(rng.randint(1, 200)),
    Malformed: lambda rng: Malformed(rng.randint(1, 30)),
    HandshakeStatus: lambda rng: rng.choice(
        [
            HandshakeStatus(status, retry_after=1 if status in {418, 429} else None, lasting=_seconds(rng))
            for status in (302, 403, 418, 429, 503)
        ]
    ),
    HandshakeSilence: lambda _: HandshakeSilence(),
    RestStatus: lambda rng: rng.choice(
        [
            RestStatus(status, retry_after=1 if status in {418, 429} else None, lasting=_seconds(rng))
            for status in (418, 429, 500, 502, 503)
        ]
    ),
    RestSilence: lambda _: RestSilence(),
    RestCut: lambda rng: RestCut(lasting=_seconds(rng)),
    RestTruncated: lambda rng: RestTruncated(times=rng.randint(1, 3)),
    RestDrip: lambda rng: RestDrip(body=rng.random() < 0.5),
    RestOtherRows: lambda rng: RestOtherRows(rng.choice([1, 10**12]), times=rng.randint(1, 3)),
    RestLag: lambda rng: RestLag(_seconds(rng), lasting=10.0),
    Hole: lambda rng: Hole(rng.randint(1, 20)),
    IdReset: lambda _: IdReset(),
}

KINDS = {kind.kind(): draw for kind, draw in _DRAWN.items()}
"""The kinds of faults that can be drawn."""

REPAIRABLE = tuple(kind for kind in KINDS if kind not in {Hole.kind(), IdReset.kind()})
"""The kinds after which every trade can still be fetched."""


@dataclass(frozen=True)
class Random(Fault):
    """A fault of one of `kinds` every few seconds, `every` on average; the same ones for the same `seed`.

    Those of trades affect any of the markets, or that of `symbol`.
    """

    seed: int = 0
    every: float = 3.0
    kinds: tuple[str, ...] = REPAIRABLE
    lasting: float | None = None
    """Seconds; none: for good."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("every", "lasting")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}, not {unknown[0]!r}")
        if not self.kinds:
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}")

    def plan(self) -> Iterator[tuple[float, Fault]]:
        """Yield faults without end, each with its seconds since the start."""
        rng = random.Random(self.seed)
        moment = 0.0
        while True:
            moment += rng.uniform(0.5, 1.5) * self.every
            yield moment, KINDS[rng.choice(self.kinds)](rng)

    def strike(self, context: Context) -> None:
        """Schedule the first fault, and after each the next one."""
        plan, began = self.plan(), time.monotonic()
        chance = random.Random(self.seed)

        def schedule() -> None:
            moment, fault = next(plan)
            if self.lasting is None or moment < self.lasting:
                context.injector.later(began + moment - time.monotonic(), lambda: strike(fault))

        def strike(fault: Fault) -> None:
            markets = context.injector.state.markets
            symbol = chance.choice(markets).symbol if self.symbol is None and len(markets) > 1 else self.symbol
            context.injector.strike(replace(fault, symbol=symbol))
            schedule()

        schedule()


def _seconds(rng: random.Random) -> float:
    return round(rng.uniform(0.5, 4.0), 1)
