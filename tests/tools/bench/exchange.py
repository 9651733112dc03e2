"""The exchange of one run, as a process of its own: `python -m tests.tools.bench.exchange SPECIFICATION`.

It says on standard output, as lines of JSON, where it can be reached and when its market began, which is when the
first client subscribed; by SIGUSR1 how far its clients are. It ends by SIGTERM.
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import ssl
import sys
import threading
import time
from typing import Any

import msgspec

from loader_ws_trades.sandbox import Exchange, Generated, Market, Recorded, crowd, parse_fault


class MarketSpec(msgspec.Struct, kw_only=True):
    """What the exchange plays: generated trades flat out or at a mean rate, or a file of frames at its own pace."""

    count: int
    symbols: int = 1
    """Number of pairs; with several, `rate` is for all together, and unevenly spread."""
    symbol: str = "POLUSDT"
    rate: float | None = None
    frames: str | None = None
    faults: list[str] = []
    """As on the command line of `sandbox`."""
    server_pem: str | None = None
    """Key and certificate; with it the exchange speaks TLS."""


class _Market(Market):
    begun = False

    def begin(self) -> None:
        if not self.begun:
            super().begin()
            self.begun = True
            _say(begun=time.monotonic())


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201 - the harness reads it


def _market(spec: MarketSpec) -> Market:
    if spec.frames:
        return _Market(Recorded(spec.frames), start="subscriber", count=spec.count)
    history = Generated(spec.symbol, rate=spec.rate or 1_000_000)
    return _Market(history, speed=1.0 if spec.rate else math.inf, start="subscriber", count=spec.count)


def main() -> None:
    """Serve until SIGTERM."""
    spec = msgspec.json.decode(sys.argv[1], type=MarketSpec)
    tls: ssl.SSLContext | None = None
    if spec.server_pem:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(spec.server_pem)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    markets = crowd(spec.symbols, spec.rate or 0.0) if spec.symbols > 1 else [_market(spec)]
    with Exchange(markets, ssl=tls, faults=[parse_fault(text) for text in spec.faults]) as exchange:
        counters, number = exchange.counters, itertools.count()

        def say_state(*_: object) -> None:
            subscribed, weight = exchange.subscribed, counters.weight
            _say(state=next(number), subscribed=subscribed, weight=weight, connections=counters.connections)

        signal.signal(signal.SIGUSR1, say_state)
        urls = {"ws": exchange.ws_url, "combined": exchange.combined_url, "rest": exchange.rest_url}
        _say(**urls, stream=exchange.markets[0].stream)
        stopped.wait()
        _say(repairs=counters.requests["/api/v3/historicalTrades"], connections=counters.connections)


if __name__ == "__main__":
    main()
