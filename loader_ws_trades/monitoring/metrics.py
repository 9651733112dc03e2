"""The metrics: one table, out of which `/metrics` and the documentation come. Alerts are written against the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from loader_ws_trades import __version__, streams
from loader_ws_trades.monitoring.health import STAGES
from loader_ws_trades.monitoring.latency import Latencies
from loader_ws_trades.monitoring.vitals import Vitals

Value = float | None | Mapping[str, float] | Mapping[tuple[str, ...], float] | Latencies
"""A number, or None where there is none yet; with labels, numbers by their values; a histogram."""


class Metric(NamedTuple):
    """One metric: its name without the prefix, what it means in a line, and where its value is read from."""

    short: str
    kind: str  # counter, gauge or histogram
    meaning: str
    read: Callable[[Vitals], Value]
    labels: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As Prometheus knows it."""
        return f"loader_ws_trades_{self.short}"


def _info(vitals: Vitals) -> dict[tuple[str, ...], float]:
    settings = vitals.settings
    values = (settings.queue_id, settings.symbol, settings.type, settings.telemetry_producer_id)
    return {(__version__, *(value or "" for value in values)): 1}


METRICS: Final = (
    Metric(
        "received_total",
        "counter",
        "Trades decoded, from the stream, a recording or an archive.",
        lambda run: run.ingest.received,
    ),
    Metric(
        "delivered_total",
        "counter",
        "Trades that Kafka has acknowledged, or committed in a transaction.",
        lambda run: run.sink.delivered,
    ),
    Metric(
        "in_flight",
        "gauge",
        "Trades handed to the Kafka client and not delivered yet.",
        lambda run: max(0, run.sink.in_flight),
    ),
    Metric(
        "refused_frames_total",
        "counter",
        "Frames dropped because they were no trade of the symbol, by kind.",
        lambda run: dict(run.ingest.refused),
        ("kind",),
    ),
    Metric(
        "duplicates_total",
        "counter",
        "Trades dropped because their id had been passed.",
        lambda run: run.ingest.duplicates,
    ),
    Metric(
        "late_trades_total",
        "counter",
        "Trades dropped because they came after their ids had been given up.",
        lambda run: run.ingest.late,
    ),
    Metric(
        "gaps_total",
        "counter",
        "Times that ids began to be missing, those that closed by themselves included.",
        lambda run: run.ingest.gaps,
    ),
    Metric(
        "repaired_ids_total", "counter", "Missing trades that were fetched from REST.", lambda run: run.ingest.repaired
    ),
    Metric(
        "missing_ids_total",
        "counter",
        "Trade ids given up on: not on the topic, but named in the log.",
        lambda run: run.ingest.missing,
    ),
    Metric(
        "unchecked_start",
        "gauge",
        "1 if trades before the start may be missing on the topic, which could not be checked; else 0.",
        lambda run: float(bool(run.source.unchecked)),
    ),
    Metric(
        "reconnects_total",
        "counter",
        "Times that another connection was asked for, by why the one before ended.",
        lambda run: run.link.reconnects,
        ("reason",),
    ),
    Metric(
        "connection_age_seconds",
        "gauge",
        "Time since the present connection was opened; 0 while there is none.",
        lambda run: run.connection_age,
    ),
    Metric(
        "last_trade_age_seconds",
        "gauge",
        "Time since the last trade, by its trade time; absent before the first.",
        lambda run: run.lag,
    ),
    Metric(
        "receive_to_delivery_seconds",
        "histogram",
        "From a read of the stream to the delivery report of its last trade, one sample a read.",
        lambda run: run.latencies,
    ),
    Metric(
        "rest_weight_used",
        "gauge",
        "Request weight of the last minute, of others on the same IP too where known.",
        lambda run: run.source.rest_weight,
    ),
    Metric(
        "kafka_outages_total",
        "counter",
        "Times that Kafka acknowledged nothing for 5 s while records waited.",
        lambda run: run.sink.outages,
    ),
    Metric(
        "kafka_outage_seconds",
        "gauge",
        "Time for which Kafka has acknowledged nothing while records wait; else 0.",
        lambda run: run.kafka_outage,
    ),
    Metric(
        "feed_outage_seconds",
        "gauge",
        "Time for which there has been no connection to the exchange; else 0.",
        lambda run: run.feed_outage,
    ),
    Metric(
        "log_lines_dropped_total",
        "counter",
        "Log lines that could not be written, or that nobody read in time.",
        lambda _run: streams.dropped(),
    ),
    Metric(
        "state",
        "gauge",
        f"1 for what the run does: {', '.join(STAGES)}; 0 for the others.",
        lambda run: {stage: float(stage == run.stage) for stage in STAGES},
        ("state",),
    ),
    Metric(
        "info",
        "gauge",
        "1, with what the loader is and works for.",
        _info,
        ("version", "queue_id", "symbol", "type", "producer"),
    ),
)
