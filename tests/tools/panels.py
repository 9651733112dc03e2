"""What the dashboard shows: a table of charts and their queries."""

from __future__ import annotations

import re
from typing import NamedTuple

_OF_EACH = "{{pod}} {{symbol}}"


class Panel(NamedTuple):
    """One chart: `queries` are legends and expressions in which `@name` stands for the loader's metric of that name.

    A metric has a label `symbol` or not; each expression holds either way.
    """

    title: str
    unit: str
    queries: dict[str, str]


PANELS = (
    Panel(
        "Throughput",
        "trades/s",
        {
            f"received {_OF_EACH}": "sum by (namespace, pod, symbol) (rate(@received_total[$__rate_interval]))",
            f"delivered {_OF_EACH}": "sum by (namespace, pod, symbol) (rate(@delivered_total[$__rate_interval]))",
        },
    ),
    Panel("Age of the newest trade", "s", {_OF_EACH: "max by (namespace, pod, symbol) (@last_trade_age_seconds)"}),
    Panel(
        "From read to acknowledged",
        "s",
        {
            f"p{share} {{{{pod}}}}": f"histogram_quantile(0.{share}, sum by (namespace, pod, le) "
            "(rate(@receive_to_delivery_seconds_bucket[$__rate_interval])))"
            for share in (50, 99)
        },
    ),
    Panel("Waiting for Kafka", "short", {_OF_EACH: "sum by (namespace, pod, symbol) (@in_flight)"}),
    Panel(
        "Gaps",
        "short",
        {
            f"gaps {_OF_EACH}": "sum by (namespace, pod, symbol) (increase(@gaps_total[$__rate_interval]))",
            f"repaired ids {_OF_EACH}": "sum by (namespace, pod, symbol) "
            "(increase(@repaired_ids_total[$__rate_interval]))",
        },
    ),
    Panel("Missing ids since the start", "short", {_OF_EACH: "sum by (namespace, pod, symbol) (@missing_ids_total)"}),
    Panel(
        "Reconnects by reason",
        "short",
        {"{{reason}}": "sum by (reason) (increase(@reconnects_total[$__rate_interval])) > 0"},
    ),
    Panel(
        "Stream checks: connections replaced because they were silent",
        "short",
        {"{{pod}}": 'sum by (namespace, pod) (increase(@reconnects_total{reason="silent"}[1h]))'},
    ),
    Panel("Request weight of the IP address (6,000 at most)", "short", {"{{pod}}": "@rest_weight_used"}),
    Panel(
        "Outages",
        "s",
        {
            "Kafka {{pod}}": "max by (namespace, pod) (@kafka_outage_seconds)",
            "exchange {{pod}}": "max by (namespace, pod) (@feed_outage_seconds)",
        },
    ),
    Panel("Memory", "bytes", {"{{pod}}": "process_resident_memory_bytes"}),
    Panel("CPU (1 is a core)", "short", {"{{pod}}": "rate(process_cpu_seconds_total[$__rate_interval])"}),
)


def expressions() -> list[str]:
    """All queries, with Grafana's variables in them."""
    return [expression(query) for panel in PANELS for query in panel.queries.values()]


def expression(query: str) -> str:
    """Write the metrics' names out, and select the pods."""

    def selected(found: re.Match[str]) -> str:
        name, labels = found.groups()
        return name.replace("@", "loader_ws_trades_") + '{pod=~"$pod"' + (f", {labels}}}" if labels else "}")

    return re.sub(r"(@\w+|\bprocess_\w+)(?:{(.+?)})?", selected, query)
