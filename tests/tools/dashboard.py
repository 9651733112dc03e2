"""The dashboard for Grafana, docker/monitoring/dashboard.json, made from `panels`; needs Python 3.11."""

from __future__ import annotations

from grafana_foundation_sdk.builders.common import VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from tests.tools.docs import DOCKER
from tests.tools.panels import PANELS, expression

FILE = DOCKER / "monitoring" / "dashboard.json"
_WIDTH, _HEIGHT = 12, 8
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


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
            chart.with_target(Dataquery().ref_id(reference).expr(expression(query)).legend_format(legend))
        made.with_panel(chart)
    return str(JSONEncoder(sort_keys=True, indent=2).encode(made.build())) + "\n"


if __name__ == "__main__":
    FILE.write_text(dashboard(), "utf-8")
