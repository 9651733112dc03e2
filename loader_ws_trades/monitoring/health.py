"""Whether a run is alive: what its threads are doing, since when, and for how long that may last. No clock, no I/O.

An outage of Kafka or of the exchange does not make a run unhealthy: the loader waits for them within limits of its own,
and being killed meanwhile would only lose what it has buffered.
"""

from __future__ import annotations

from collections.abc import Iterable

from loader_ws_trades.lifecycle import SLACK, Activity

STAGES = ("starting", "preparing", "loading", "stopping")
"""The stages of a run, in order: connects to Kafka, finds its starting position, loads, delivers what is left."""

_TURN = 10.0  # seconds that a turn of the main loop may take; it waits 0.4 s at most
_START = 60.0  # seconds that a step of the start may take besides waiting for Kafka: REST, and looking up topics


def main_loop(stage: str, turned: float, *, startup: float, shutdown: float) -> Activity:
    """What the main thread is doing, last seen at `turned`; `startup` and `shutdown` are how long it may wait there."""
    limit = {"starting": startup + _START, "stopping": shutdown + SLACK}.get(stage, _TURN)
    return Activity("The main loop", f"been stuck while {stage}", turned, limit)


def verdict(activities: Iterable[Activity], now: float) -> str | None:
    """What is wrong, as a sentence; None if all is well."""
    for who, what, since, limit in activities:
        if now - since >= limit:
            allowed = f" (limit {limit:.0f} s)" if limit else ""
            return f"{who} has {what} for {now - since:.0f} s{allowed}"
    return None
