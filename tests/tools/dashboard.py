"""The dashboard for Grafana, docker/monitoring/dashboard.json: a table of panels, which `make docs` turns into JSON."""

from __future__ import annotations

import re
from typing import NamedTuple

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from tests.tools.docs import DOCKER

FILE = DOCKER / "monitoring" / "dashboard.json"
_WIDTH, _HEIGHT = 12, 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
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
    return [_expression(query) for panel in PANELS for query in panel.queries.values()]


def _expression(query: str) -> str:
    """Write the metrics' names out, and select the pods."""

    def selected(found: re.Match[str]) -> str:
        name, labels = found.groups()
        return name.replace("@", "loader_ws_trades_") + '{pod=~"$pod"' + (f", {labels}}}" if labels else "}")

    return re.sub(r"(@\w+|\bprocess_\w+)(?:{(.+?)})?", selected, query)


def dashboard() -> str:
    """The dashboard as JSON."""
    made = (
        Dashboard("Trades from Binance to Kafka")
        .uid("loader-ws-trades")
        .tags(["loader-ws-trades"])
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name, label, selected in (("queue_id", "Workflow", ""), ("pod", "Pod", '{queue_id=~"$queue_id"}')):
        made.with_variable(
            QueryVariable(name)
            .label(label)
            .datasource(_SOURCE)
            .query(f"label_values(loader_ws_trades_info{selected}, {name})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
        )
    for number, panel in enumerate(PANELS, 1):
        chart = TimeSeries().id(number).title(panel.title).unit(panel.unit).min(0).span(_WIDTH).height(_HEIGHT)
        chart.datasource(_SOURCE).legend(VizLegendOptions().show_legend(True))
        for reference, (legend, query) in zip("AB", panel.queries.items(), strict=False):
            chart.with_target(Dataquery().ref_id(reference).expr(_expression(query)).legend_format(legend))
        made.with_panel(chart)
    return str(JSONEncoder(sort_keys=True, indent=2).encode(made.build())) + "\n"


if __name__ == "__main__":
    FILE.write_text(dashboard(), "utf-8")
