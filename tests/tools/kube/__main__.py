"""Runs Jobs on Kubernetes' own Job controller and prints a table; exits with 1 if one line is wrong."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
import yaml

from tests.tools import kustomize
from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka import distribution as apache_kafka
from tests.tools.apache_kafka.node import NodeError
from tests.tools.kube import binaries
from tests.tools.kube.api import Api, ApiError
from tests.tools.kube.control_plane import ControlPlaneError, control_plane
from tests.tools.kube.kubelet import Kubelet
from tests.tools.kube.manifest import EACH, FLEET, ONE, Manifest
from tests.tools.kube.outcome import Outcome, report
from tests.tools.kube.pods import PodError
from tests.tools.kube.scenarios import SCENARIOS, Scenario
from tests.tools.kube.trial import Stage, Trial
from tests.tools.waiting import wait_for

_ENDS = (binaries.UnavailableError, apache_kafka.UnavailableError, NodeError, ControlPlaneError, ApiError, PodError)
LOGS = binaries.CACHE / "logs"
"""Where the programs' logs go, and those of the pods, a folder for each scenario."""


@click.command()
@click.option("-k", "--only", default="", help="Play only scenarios whose name contains this.")
def main(only: str) -> None:
    """Run the Jobs of docker/k8s on Kubernetes' own Job controller, and print how each ended.

    There is no cluster and no container: etcd, the API server and the controller manager run on loopback, and pods are
    processes.
    """
    scenarios = [scenario for scenario in SCENARIOS if only in scenario.name]
    if not scenarios:
        raise click.BadParameter(f"no scenario's name contains {only!r}", param_hint="--only")
    # Ctrl-C and SIGTERM take the one path out of the `with` blocks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcomes = _play(scenarios)
    except _ENDS as error:
        sys.exit(str(error))
    for text in report(outcomes):
        click.echo(text)
    sys.exit(0 if all(outcome.passed for outcome in outcomes) else 1)


def _play(scenarios: list[Scenario]) -> list[Outcome]:
    programs = binaries.obtain(_say)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    outcomes = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kube-")))
        began = time.monotonic()
        api = stack.enter_context(control_plane(programs, folder / "control-plane", LOGS))
        version = api.get("/version")["gitVersion"]
        _say(f"Kubernetes {version} is ready after {time.monotonic() - began:.1f} s.")
        wait_for(lambda: _has_namespace(api, "default"), "the namespace default")
        _check(api)
        manifests = {file: Manifest.read(api, file) for file in (ONE, FLEET, EACH)}
        users = {manifest.user: secrets.token_hex(12) for manifest in manifests.values()}
        kafka = stack.enter_context(Cluster(folder / "kafka", users=users))
        kubelet = Kubelet(api, folder / "pods", LOGS)
        stack.callback(kubelet.close)
        for number, scenario in enumerate(scenarios, 1):
            outcomes.append(_play_one(Stage(api, kubelet, kafka), scenario, manifests[scenario.manifest], number))
    return outcomes


def _play_one(stage: Stage, scenario: Scenario, manifest: Manifest, number: int) -> Outcome:
    outcome = Outcome(scenario.name, scenario.expected)
    # At most 63 characters, as the API server takes.
    namespace = f"{number}-{re.sub('[^a-z0-9]+', '-', scenario.name.lower())}"[:63].strip("-")
    began = time.monotonic()
    with contextlib.suppress(AssertionError), Trial(stage, outcome, namespace, manifest, **scenario.setting) as trial:
        scenario.play(trial)
    _say(f"{scenario.name}: {'as expected' if outcome.passed else 'WRONG'} ({time.monotonic() - began:.0f} s)")
    return outcome


def _check(api: Api) -> None:
    """Have the API server validate strictly what `kubectl kustomize` makes of docker/k8s and docker/overlay."""
    if not kustomize.available():
        raise binaries.UnavailableError("There is no `kubectl`: install it, to check docker/k8s as a kustomization.")
    api.create("/api/v1/namespaces", {"metadata": {"name": "kafka"}})
    for folder in kustomize.FOLDERS:
        found = [each for each in kustomize.objects(folder) if each["kind"] in kustomize.IN_KUBERNETES]
        for each in found:
            place = "jobs" if each["kind"] == "Job" else "networkpolicies"
            api.apply(f"/apis/{each['apiVersion']}/namespaces/kafka/{place}", yaml.safe_dump(each), dry=True)
        _say(f"The API server accepts {', '.join(each['kind'] for each in found)} of docker/{folder}.")


def _has_namespace(api: Api, name: str) -> bool:
    return any(namespace["metadata"]["name"] == name for namespace in api.items("/api/v1/namespaces"))


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
