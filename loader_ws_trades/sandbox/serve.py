"""The simulated exchange and the embedded broker in the foreground, for people and for tests of whole processes."""

from __future__ import annotations

import contextlib
import math
import shlex
import signal
import threading
import uuid
from collections.abc import Iterable
from typing import Literal

from loader_ws_trades.sandbox.broker import EmbeddedBroker
from loader_ws_trades.sandbox.demo import CONTROL, EVENTS, TRADES, loader_variables
from loader_ws_trades.sandbox.faults.syntax import fault_text, parse_fault
from loader_ws_trades.sandbox.market.crowd import crowd
from loader_ws_trades.sandbox.market.market import Market
from loader_ws_trades.sandbox.server import Exchange

_POLL_INTERVAL = 0.1


def serve(
    *,
    symbol: str,
    symbols: int,
    rate: float | None,
    speed: float | None,
    flat_out: bool,
    seed: int,
    frames: str | None,
    host: str,
    port: int,
    ping_interval: float,
    broker: bool,
    fault: Iterable[str],
) -> None:
    """Print the variables that a loader needs, then serve until SIGINT or SIGTERM, printing faults as they strike.

    Raises:
        OSError: if the port is taken or the file cannot be read.
        ValueError: if the file holds no trades or a fault is invalid.
    """
    faults = [parse_fault(text) for text in fault]
    if flat_out:
        rate, speed = (None, math.inf) if frames else (math.inf, None)
    start: Literal["subscriber", "now"] = "subscriber" if flat_out else "now"
    if symbols > 1 and (frames or flat_out):
        raise ValueError("--symbols goes with neither --frames nor --flat-out")
    if symbols > 1:
        markets = crowd(symbols, rate or 100.0, seed=seed)
    elif frames:
        markets = [Market.recorded(frames, rate=rate, speed=speed or 1.0, start=start)]
    else:
        markets = [Market.generated(symbol.upper(), rate=rate or 100.0, seed=seed, start=start)]
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(Exchange(markets, host, port, ping_interval=ping_interval, faults=faults))
        servers = ""
        if broker:
            embedded = stack.enter_context(EmbeddedBroker())
            embedded.create_topics(TRADES, EVENTS, CONTROL)
            servers = embedded.bootstrap_servers
        queue_id = f"sandbox-{uuid.uuid4().hex[:6]}"
        variables = loader_variables(exchange, servers, markets[0].symbol if symbols == 1 else None, queue_id)
        for name, value in variables.items():
            if value:
                print(f"export {name}={shlex.quote(value)}")  # noqa: T201 - it is what the command is for
        print("# Press Ctrl-C to stop.", flush=True)  # noqa: T201
        shown = 0
        while not stopped.wait(_POLL_INTERVAL):
            for seconds, struck in exchange.struck[shown:]:
                print(f"# {seconds:.1f} s: {fault_text(struck)}", flush=True)  # noqa: T201 - it is what the command is for
                shown += 1
