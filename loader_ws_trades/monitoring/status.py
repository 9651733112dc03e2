"""How a run is doing: the one value that metrics, probes, telemetry, progress and the last log line are made from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from loader_ws_trades.pipeline.copies import Copies
from loader_ws_trades.pipeline.interfaces import SourceStatus
from loader_ws_trades.pipeline.lane import Lane

STAGES = ("starting", "preparing", "loading", "stopping")
"""The stages of a run, in order: connects to Kafka, finds its starting position, loads, delivers what is left."""


class RunStatus(NamedTuple):
    """A run at one moment, read from the counters of its parts; counters are since the start of the run."""

    stage: str = "starting"
    """One of `STAGES`."""
    source: SourceStatus = SourceStatus()
    lanes: Sequence[Lane] = ()
    """All pairs that the run has loaded, those that have ended included."""
    delivered: int = 0
    in_flight: int = 0
    rejected: Mapping[str, int] = {}
    """Frames, by kind."""
    blocked: bool = False
    """Whether trades wait for room in the sink."""
    kafka_outages: int = 0
    undelivered_since: float | None = None
    """Since when (monotonic) trades have waited without any delivery."""

    copies: Copies | None = None
    """What each of several connections brought, of all pairs together."""

    def total(self, count: Callable[[Lane], int]) -> int:
        """A count of all pairs together."""
        return sum(map(count, self.lanes))

    @property
    def lag(self) -> float | None:
        """Seconds since the newest trade passed on, by the exchange's clock and ours; None before the first one."""
        return age(max((lane.sequencer.last_time for lane in self.lanes), default=0))

    def counts(self) -> dict[str, int]:
        """What happened to the trades, for the last log line."""
        return {
            "received": self.total(lambda lane: lane.received),
            "delivered": self.delivered,
            "duplicates": self.total(lambda lane: lane.sequencer.duplicates),
            "late": self.total(lambda lane: lane.sequencer.late),
            "refused": sum(self.rejected.values()),
            "repaired": self.total(lambda lane: lane.repaired),
            "missing": self.total(lambda lane: lane.missing),
        }


def age(trade_time: int) -> float | None:
    """Seconds since a trade time (ms), by the exchange's clock and ours; None if there is none."""
    return max(0.0, time.time() - trade_time / 1000) if trade_time else None


def seconds_since(moment: float | None) -> float:
    """Seconds since a moment (monotonic); 0 if there is none."""
    return 0.0 if moment is None else max(0.0, time.monotonic() - moment)
