"""The alert rules, as Prometheus itself takes them, and as they fire."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.tools.docs import ROOT

MANIFEST = ROOT / "docker" / "k8s" / "monitoring.yaml"
CASES = Path(__file__).with_name("alerts.yaml")


def the_alert_rules_are_rules() -> str:
    """`promtool check rules`."""
    return _promtool("check", "rules")


def the_alerts_fire_when_they_should_and_only_then() -> str:
    """`promtool test rules`: series in, alerts out."""
    _promtool("test", "rules", str(CASES))
    return f"{CASES.read_text('utf-8').count('- interval:')} courses of events"


def _promtool(*arguments: str) -> str:
    [rule] = [part for part in yaml.safe_load_all(MANIFEST.read_text("utf-8")) if part["kind"] == "PrometheusRule"]
    with tempfile.TemporaryDirectory() as directory:
        rules = Path(directory, "rules.yaml")
        rules.write_text(yaml.safe_dump(rule["spec"]), "utf-8")
        last = str(rules)
        if arguments[0] == "test":
            last = shutil.copy(arguments[-1], directory)
            arguments = arguments[:-1]
        done = subprocess.run(["promtool", *arguments, last], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split()[2:])


POINTS = (the_alert_rules_are_rules, the_alerts_fire_when_they_should_and_only_then)
