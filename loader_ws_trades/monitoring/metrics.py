"""The metrics: one table, from which `/metrics` and the documentation are made. Alerts depend on the names."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from loader_ws_trades import streams
from loader_ws_trades.monitoring.status import STAGES, RunStatus, age, seconds_since
from loader_ws_trades.pipeline.lane import Lane

BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Of the buckets, in seconds."""
_PENDING: Final = 10_000  # reads that are remembered; those that arrive while so many are pending are not counted


class Latencies:
    """A histogram of the time from a read of the stream to the delivery report of its last trade.

    It costs one append a read and nothing a trade: a read is known by how many trades the sink had accepted by then, as
    the sink delivers in order.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        """Reads per bucket of `BOUNDS`; the last one has what took longer."""
        self.sum = 0.0
        self._pending: deque[tuple[int, float]] = deque()
        self._noted = 0

    def note(self, accepted: int, received: float) -> None:
        """A read returned at `received` (monotonic), and the sink has accepted `accepted` trades since the start.

        A read that released no trade does not count: what it brought is held back by a gap.
        """
        if accepted > self._noted and len(self._pending) < _PENDING:
            self._noted = accepted
            self._pending.append((accepted, received))

    def settle(self, delivered: int, now: float, late: int = 0) -> None:
        """The sink has delivered `delivered` trades since the start, the first `late` of them some time ago.

        These are left out, as their delay is not known.
        """
        pending = self._pending
        while pending and pending[0][0] <= late:
            pending.popleft()
        while pending and pending[0][0] <= delivered:
            seconds = now - pending.popleft()[1]
            self.counts[bisect_left(BOUNDS, seconds)] += 1
            self.sum += seconds


Value = float | None | Mapping[str, float]
"""A number, or None where there is none yet; with a label, numbers by its values."""


class Metric(NamedTuple):
    """One metric: its name without the prefix, what it means in a line, and how its value is read."""

    short: str
    kind: str  # counter, gauge or histogram
    meaning: str
    read: Callable[[RunStatus], Value] | None = None  # the server has those that are not in the status
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As Prometheus knows it."""
        return f"loader_ws_trades_{self.short}"


def _counter(short: str, meaning: str, read: Callable[[RunStatus], Value], *labels: str) -> Metric:
    return Metric(short, "counter", meaning, read, labels)


def _gauge(short: str, meaning: str, read: Callable[[RunStatus], Value], *labels: str) -> Metric:
    return Metric(short, "gauge", meaning, read, labels)


def _by_pair(read: Callable[[Lane], float | None]) -> Callable[[RunStatus], Value]:
    def read_all(run: RunStatus) -> Value:
        found: dict[str, float] = {}
        for lane in run.lanes:
            if (value := read(lane)) is not None:
                found[lane.symbol] = found.get(lane.symbol, 0) + value  # it may have ended and joined again
        return found

    return read_all


def _of_pair(short: str, meaning: str, read: Callable[[Lane], float | None]) -> Metric:
    return _counter(short, meaning, _by_pair(read), "symbol")


def _by_connection(counts: Mapping[int, float]) -> dict[str, float]:
    return {str(slot + 1): count for slot, count in dict(counts).items()}


LATENCY: Final = Metric(
    "receive_to_delivery_seconds",
    "histogram",
    "Time from a read of the stream to the delivery report of its last trade; a sample of the reads.",
)
INFO: Final = Metric(
    "info",
    "gauge",
    "1, labelled with the version and the identity of the loader.",
    labels=("version", "queue_id", "symbol", "type", "producer"),
)
METRICS: Final = (
    _of_pair(
        "received_total", "Trades decoded, from the stream, a recording or an archive.", lambda lane: lane.received
    ),
    _of_pair(
        "delivered_total",
        "Trades acknowledged by Kafka, or committed in a transaction.",
        lambda lane: lane.delivered,
    ),
    _gauge("in_flight", "Trades handed to the Kafka client and not delivered yet.", lambda run: max(0, run.in_flight)),
    _counter(
        "refused_frames_total",
        "Frames rejected because they are not a trade of the symbol, by kind.",
        lambda run: run.rejected,
        "kind",
    ),
    _of_pair(
        "duplicates_total",
        "Trades dropped because their id was published before.",
        lambda lane: lane.sequencer.duplicates,
    ),
    _of_pair(
        "late_trades_total",
        "Trades dropped because they came after their ids had been given up.",
        lambda lane: lane.sequencer.late,
    ),
    _of_pair(
        "gaps_total",
        "Gaps in the trade ids, those that closed by themselves included.",
        lambda lane: lane.sequencer.gaps,
    ),
    _of_pair("repaired_ids_total", "Missing trades fetched from REST.", lambda lane: lane.repaired),
    _of_pair(
        "missing_ids_total",
        "Trade ids given up: not on the topic, but named in the log.",
        lambda lane: lane.missing,
    ),
    _gauge(
        "unchecked_start",
        "1 if it could not be checked whether trades before the start are missing on the topic; else 0.",
        _by_pair(lambda lane: float(bool(lane.unchecked))),
        "symbol",
    ),
    _counter(
        "reconnects_total",
        "Connections requested to replace another, by the reason that one ended.",
        lambda run: run.source.reconnects_by_reason,
        "reason",
    ),
    _counter(
        "first_copies_total",
        "Trades of which a connection brought the first copy, by its number; with FEED_CONNECTIONS=2.",
        lambda run: _by_connection(run.copies.first if run.copies else {}),
        "connection",
    ),
    _counter(
        "lead_seconds_total",
        "Time by which a connection's first copies came before the other's, summed up over the trades.",
        lambda run: _by_connection(run.copies.lead_seconds if run.copies else {}),
        "connection",
    ),
    _counter(
        "skipped_ids_total",
        "Trade ids that a connection skipped; the other one or REST brought them.",
        lambda run: _by_connection(run.copies.skipped if run.copies else {}),
        "connection",
    ),
    _gauge(
        "connection_age_seconds",
        "Time since the current connection was opened; 0 while there is none.",
        lambda run: seconds_since(run.source.connected_since),
    ),
    _gauge(
        "last_trade_age_seconds",
        "Time since the last trade, by its trade time; absent before the first.",
        _by_pair(lambda lane: None if lane.ended else age(lane.sequencer.last_time)),
        "symbol",
    ),
    LATENCY,
    _gauge(
        "rest_weight_used",
        "REST request weight of the last minute, including other clients on the same IP where known.",
        lambda run: run.source.rest_weight,
    ),
    _counter(
        "kafka_outages_total",
        "Outages: 5 s in which Kafka acknowledged no record although some were waiting.",
        lambda run: run.kafka_outages,
    ),
    _gauge(
        "kafka_outage_seconds",
        "Time without an acknowledgement from Kafka while records wait; else 0.",
        lambda run: seconds_since(run.undelivered_since),
    ),
    _gauge(
        "feed_outage_seconds",
        "Time without a connection to the exchange; else 0.",
        lambda run: seconds_since(run.source.disconnected_since),
    ),
    _counter(
        "log_lines_dropped_total",
        "Log lines dropped because they could not be written, or nobody read them in time.",
        lambda _run: streams.dropped(),
    ),
    _gauge(
        "state",
        f"1 for the current stage of the run ({', '.join(STAGES)}), 0 for the others.",
        lambda run: {stage: float(stage == run.stage) for stage in STAGES},
        "state",
    ),
    INFO,
)
