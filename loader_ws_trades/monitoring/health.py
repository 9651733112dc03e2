"""Whether a run is alive: what its threads do, since when, and for how long that may go on. No clock, no I/O.

Neither Kafka nor the exchange being away makes a run unhealthy: the loader waits for them within limits of its own, and
to be killed meanwhile would only cost it what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable

from loader_ws_trades.lifecycle import SLACK, Activity

STAGES = ("starting", "preparing", "loading", "stopping")
"""What a run does, in this order: reaches Kafka, finds out where to begin, loads, delivers the tail."""

_TURN = 10.0  # seconds that a turn of the main loop may take, which waits 0.1 s
_START = 60.0  # seconds that a step of the start may take beside its waits for Kafka: REST, and asking for the topic


def main_loop(stage: str, turned: float, *, startup: float, shutdown: float) -> Activity:
    """What the main thread does, last turned at `turned`; `startup` and `shutdown` are what its waits may take."""
    limit = {"starting": startup + _START, "stopping": shutdown + SLACK}.get(stage, _TURN)
    return Activity("The main loop", f"not turned while {stage}", turned, limit)


def verdict(activities: Iterable[Activity], now: float) -> str | None:
    """What is wrong, in a sentence; None if all is well."""
    for who, what, since, limit in activities:
        if now - since >= limit:
            allowed = f", more than the {limit:.0f} s that it may" if limit else ""
            return f"{who} has {what} for {now - since:.0f} s{allowed}"
    return None
