"""A real Prometheus scrapes a loader: every query of the dashboard gives data, every alert is evaluated."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from loader_ws_trades.sandbox import Cut, Exchange, Hole, Market, Skip
from tests.tools import panels
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.docs import DOCKER
from tests.tools.loader import Workflow, urls
from tests.tools.processes import GuardedProcess
from tests.tools.scrape import ask
from tests.tools.waiting import wait_for

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="there is no prometheus")
RULES = [
    part for part in yaml.safe_load_all((DOCKER / "k8s/monitoring.yaml").read_text("utf-8")) if "groups" in part["spec"]
]


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The port that Prometheus scrapes as the pod `loader` of Compose, and Prometheus's own."""
    loader, own = free_port(), free_port()
    config = yaml.safe_load((DOCKER / "monitoring/prometheus.yaml").read_text("utf-8"))
    [job] = config["scrape_configs"]
    [target, _] = job["static_configs"]
    assert target["targets"] == ["loader:9464"]
    target["targets"] = [f"127.0.0.1:{loader}"]
    config["global"] |= {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
    config["rule_files"] = ["rules.yaml"]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES[0]["spec"]), "utf-8")
    program = GuardedProcess(
        [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{own}",
        ],
        tmp_path / "log",
    )
    try:
        yield loader, own
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait(10)


def api(port: int, path: str, **query: str) -> Any:
    answer = ask(port, f"/api/v1/{path}?{urlencode(query)}")
    assert answer.status == 200, answer.text
    return json.loads(answer.text)["data"]


def test_dashboard_has_data_and_alerts_are_evaluated(workflow: Workflow, scraped: tuple[int, int]) -> None:
    port, prometheus = scraped
    waiting = set(panels.expressions())

    def all_give_data() -> bool:
        for expression in tuple(waiting):
            query = expression.replace("$pod", "loader").replace("$__rate_interval", "1m")
            if any(sample["value"][1] != "NaN" for sample in api(prometheus, "query", query=query)["result"]):
                waiting.discard(expression)
        return not waiting

    def missing_trades_alert() -> bool:
        return any(
            alert["labels"]["alertname"] == "LoaderTradesMissing" for alert in api(prometheus, "alerts")["alerts"]
        )

    faults = [Skip(after=500, count=5), Hole(after=1000, count=3), Cut(after=3000)]
    with Exchange([Market.generated("POLUSDT", rate=500, start="subscriber")], faults=faults) as exchange:
        workflow.variables |= urls(exchange) | {"METRICS_PORT": port, "REPAIR_DEADLINE": "1"}
        workflow.run().wait_for_line("Connected")
        wait_for(all_give_data, f"data for {waiting}")
        wait_for(missing_trades_alert, "the alert for missing trades")
    rules = [rule for group in api(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} >= {"LoaderTradesMissing", "LoaderJobFailed"}
    assert {(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"} == set()
