"""The alerts in docker/k8s agree with the metrics and the settings. `make image-test` tries them."""

from __future__ import annotations

import re

from loader_ws_trades.binance.disconnects import REASONS
from tests.tools.docs import README
from tests.tools.image import rules
from tests.tools.manifests import RULES, VARIABLES

ALL_RULES = [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]
[INFO], ALERTS = ([rule for rule in ALL_RULES if kind in rule] for kind in ("record", "alert"))


def test_alerts_query_only_existing_metrics() -> None:
    known = set(re.findall(r"^\| `(loader_ws_trades_\w+)", README.read_text("utf-8"), re.MULTILINE))
    for rule in ALL_RULES:
        assert set(re.findall(r"\bloader_ws_trades_\w+", str(rule))) <= known, rule


def test_alerts_join_the_info_metric_by_pod_and_not_by_address() -> None:
    for alert in ALERTS:
        expr = alert["expr"]
        of_a_pair = re.search(r"_(missing_ids_total|last_trade_age_seconds)\b", expr)  # they have its symbol
        labels = "queue_id" if of_a_pair else "queue_id, symbol"
        join = f"* on (namespace, pod) group_left ({labels}) {INFO['record']}"
        assert expr.count("loader_ws_trades_info") == expr.count(join) == int("loader_ws_trades_" in expr), expr
        # By pod or Job: an address soon belongs to another pod.
        assert set(re.findall(r"\b(?:on|ignoring) \((.+?)\)", expr)) <= {
            "namespace, pod",
            "namespace, pod, symbol",
            "namespace, job_name",
        }


def test_alert_cases_use_the_labels_of_pods() -> None:
    series = re.findall(r"'(?:loader_ws_trades_\w+|up)\{(.+?)\}'", rules.CASES.read_text("utf-8"))
    assert series
    for labels in series:
        assert {"namespace", "pod", "job", "instance"} <= set(re.findall(r'(\w+)="', labels)), labels


def test_reconnect_alert_counts_only_lost_connections() -> None:
    [alert] = [alert for alert in ALERTS if alert["alert"] == "LoaderReconnectsOften"]
    [without] = re.findall(r'reason!~"(.+?)"', alert["expr"])
    named = set(re.findall(r"`([a-z_]+)`", alert["annotations"]["action"])) & set(REASONS)
    assert set(without.split("|")) == set(REASONS) - named == {"refused", "rotation", "unreachable"}


def test_alerts_say_what_to_do_naming_existing_settings_and_alerts_and_have_a_case() -> None:
    cases = rules.CASES.read_text("utf-8")
    for alert in ALERTS:
        text = " ".join(alert["annotations"].values())
        assert set(re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b", text)) <= set(VARIABLES), alert["alert"]
        assert set(re.findall(r"\bLoader[A-Z]\w+", text)) <= {other["alert"] for other in ALERTS}
        assert alert["labels"]["severity"] in {"warning", "critical"}
        assert set(alert["annotations"]) == {"summary", "description", "action"}, alert["alert"]
        assert f'alertname="{alert["alert"]}"' in cases
