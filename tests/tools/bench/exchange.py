"""The exchange of one run, as a process of its own: `python -m tests.tools.bench.exchange SPECIFICATION`.

It says on standard output, as lines of JSON, where it can be reached and when its market began, which is when the
first client subscribed. It ends by SIGTERM.
"""

from __future__ import annotations

import json
import math
import signal
import ssl
import sys
import threading
import time
from typing import Any

import msgspec

from loader_ws_trades.sandbox import Exchange, Generated, Market, Recorded, parse_fault


class MarketSpec(msgspec.Struct, kw_only=True):
    """What the exchange plays: generated trades flat out or at a mean rate, or a file of frames at its own pace."""

    count: int
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
    with Exchange([_market(spec)], ssl=tls, faults=[parse_fault(text) for text in spec.faults]) as exchange:
        _say(ws=exchange.ws_url, rest=exchange.rest_url, stream=exchange.markets[0].stream)
        stopped.wait()
        counters = exchange.counters
        _say(repairs=counters.requests["/api/v3/historicalTrades"], connections=counters.connections)


if __name__ == "__main__":
    main()
