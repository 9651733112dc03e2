"""The manifests in docker/k8s agree with the code and with each other. `make kube-test` runs them."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
from confluent_kafka.admin import NewTopic

from loader_ws_trades import __version__
from loader_ws_trades.errors import ConfigurationError
from tests.tools import kustomize
from tests.tools.apache_kafka.client import Kafka
from tests.tools.image import building
from tests.tools.manifests import (
    COMPOSE,
    FILES,
    FLEET,
    JOB,
    LOADERS,
    POD_MONITOR,
    RULES,
    VARIABLES,
    container,
    parts,
    pod,
    settings,
    variables,
)
from tests.tools.rights import RIGHTS, TRANSACTIONS, Right

[NETWORK], KAFKA = parts("k8s/network.yaml"), parts("k8s/kafka.yaml")
TOPICS = {part["metadata"]["name"]: part["spec"] for part in KAFKA if part["kind"] == "KafkaTopic"}
[USER] = [part for part in KAFKA if part["kind"] == "KafkaUser"]
BOTH = pytest.mark.parametrize("job", [JOB, FLEET], ids=["job", "fleet"])


def dockerfile(pattern: str) -> str:
    found = re.search(pattern, building.DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert found, pattern
    return found[1]


# The Jobs


def test_manifests_set_only_known_variables() -> None:
    for given in (variables(JOB), variables(FLEET), *(COMPOSE["services"][name]["environment"] for name in LOADERS)):
        assert set(given) <= set(VARIABLES)


def test_job_is_configured_by_its_variables_alone(tmp_path: Path) -> None:
    found = settings(variables(JOB), tmp_path)
    assert (found.queue_id, found.symbol, found.kafka_topic) == ("wf-1", "BTCUSDT", "trades")
    assert not {"command", "args"} & set(container(JOB))


def test_fleet_gives_each_index_its_own_share(tmp_path: Path) -> None:
    spec = FLEET["spec"]
    assert spec["completions"] == spec["parallelism"] == int(variables(FLEET)["JOB_COMPLETIONS"])
    assert spec["completionMode"] == "Indexed"
    found = [
        settings({**variables(FLEET), "JOB_COMPLETION_INDEX": str(index)}, tmp_path)
        for index in range(spec["completions"])
    ]
    listed = [f"{letter}USDT" for letter in ascii_uppercase]
    shares = [each.chosen([*listed, "ETHBTC"]) for each in found]
    assert sorted(chain.from_iterable(shares)) == listed
    assert all(shares)
    assert {each.queue_id for each in found} == {"wf-2"}


def test_fleet_differs_from_the_job_only_in_variables_and_spread() -> None:
    def rest(job: dict[str, Any]) -> dict[str, Any]:
        same = {name: value for name, value in pod(job).items() if name != "topologySpreadConstraints"}
        return {**same, "containers": [{**container(job), "env": None}]}

    assert rest(FLEET) == rest(JOB)
    differing = {"QUEUE_ID", "SYMBOL", "SYMBOLS", "JOB_COMPLETIONS", "TELEMETRY_PRODUCER_ID"}
    same = [{name: value for name, value in variables(job).items() if name not in differing} for job in (JOB, FLEET)]
    assert same[0] == same[1]


@BOTH
def test_job_fails_on_configuration_errors_and_ignores_disruptions(job: dict[str, Any]) -> None:
    fail, ignore = job["spec"]["podFailurePolicy"]["rules"]
    assert fail["action"] == ("FailIndex" if job is FLEET else "FailJob")
    assert fail["onExitCodes"] == {
        "containerName": container(job)["name"],
        "operator": "In",
        "values": [ConfigurationError.exit_code],
    }
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert pod(job)["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimitPerIndex" if job is FLEET else "backoffLimit"] >= 100


@BOTH
def test_grace_period_is_longer_than_the_shutdown_timeout(job: dict[str, Any], tmp_path: Path) -> None:
    longest = settings({"JOB_COMPLETION_INDEX": "0", **variables(job)}, tmp_path).shutdown_timeout
    assert pod(job)["terminationGracePeriodSeconds"] > longest
    for service in LOADERS:
        assert float(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s")) > longest


@BOTH
def test_pod_has_the_restricted_profile(job: dict[str, Any]) -> None:
    context = pod(job)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == dockerfile(r"^USER (\d+:\d+)$")
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(job)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(job)["automountServiceAccountToken"] is False
    assert pod(job)["enableServiceLinks"] is False
    assert {"requests", "limits"} == set(container(job)["resources"])


@BOTH
def test_files_named_by_variables_are_mounted(job: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in pod(job)["volumes"]}
    files = {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container(job)["volumeMounts"]
        for item in volumes[mount["name"]].get("secret", {}).get("items", [])
    }
    assert files == {variables(job)[name] for name in FILES}
    assert all(mount["readOnly"] for mount in container(job)["volumeMounts"] if mount["mountPath"] != "/tmp")  # noqa: S108


@BOTH
def test_metrics_port_is_the_same_everywhere(job: dict[str, Any]) -> None:
    [port] = container(job)["ports"]
    assert str(port["containerPort"]) == variables(job)["METRICS_PORT"] == dockerfile(r"^EXPOSE (\d+)$")
    probe = container(job)["livenessProbe"]
    assert probe["httpGet"] == {"path": "/healthz", "port": port["name"]}
    [endpoint] = POD_MONITOR["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == port["name"]
    selected = POD_MONITOR["spec"]["selector"]["matchLabels"]
    assert selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert job["metadata"]["name"].startswith("loader-ws-trades-")  # the alerts on Jobs select by it


@BOTH
def test_jobs_are_fenced_and_not_evicted_by_autoscalers(job: dict[str, Any], tmp_path: Path) -> None:
    assert settings({"JOB_COMPLETION_INDEX": "0", **variables(job)}, tmp_path).delivery == "transactional"
    assert job["spec"]["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def test_fleet_spreads_its_own_pods_over_the_nodes() -> None:
    [spread] = pod(FLEET)["topologySpreadConstraints"]
    labels = FLEET["spec"]["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"


@BOTH
def test_network_policy_lets_through_what_the_settings_need(job: dict[str, Any], tmp_path: Path) -> None:
    found, spec = settings({"JOB_COMPLETION_INDEX": "0", **variables(job)}, tmp_path), NETWORK["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    [metrics] = spec["ingress"]
    [port] = container(job)["ports"]
    assert metrics["ports"] == [{"port": port["name"]}]
    dns, kafka, exchange = spec["egress"]
    assert (dns.get("to"), {rule["port"] for rule in dns["ports"]}) == (None, {53})
    [brokers], (host, _, brokers_port) = kafka["to"], found.kafka_bootstrap_servers.partition(":")
    assert kafka["ports"] == [{"port": int(brokers_port)}]
    assert brokers["podSelector"]["matchLabels"] == {"strimzi.io/cluster": host.partition("-kafka-bootstrap.")[0]}
    assert brokers["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": host.rpartition(".")[2]}
    urls = [urlsplit(url) for url in (found.binance_ws_url, found.binance_rest_url)]
    assert {url.port or 443 for url in urls} <= {rule["port"] for rule in exchange["ports"]}
    assert [rule["ipBlock"]["cidr"] for rule in exchange["to"]] == ["0.0.0.0/0", "::/0"]


# Kustomize

KUBECTL = pytest.mark.skipif(not kustomize.available(), reason="kubectl is not installed")


def made(folder: str, kind: str) -> list[dict[str, Any]]:
    return [each for each in kustomize.objects(folder) if each["kind"] == kind]


@KUBECTL
@pytest.mark.parametrize("version", ["1.33", "1.36"])
@pytest.mark.parametrize("folder", kustomize.FOLDERS)
def test_kustomizations_are_valid_strictly(folder: str, version: str) -> None:
    found = [each for each in kustomize.objects(folder) if each["kind"] in kustomize.IN_KUBERNETES]
    assert sorted(each["kind"] for each in found) == sorted(kustomize.IN_KUBERNETES)
    for each in found:
        assert each["apiVersion"] == kustomize.IN_KUBERNETES[each["kind"]]
        kubernetes_validate.validate(each, version, strict=True)


@KUBECTL
def test_kustomization_has_every_manifest_but_the_fleet_as_it_stands() -> None:
    files = [KAFKA, [POD_MONITOR, RULES], [NETWORK], [JOB]]
    wanted = [{**each, "metadata": {**each["metadata"], "namespace": "kafka"}} for file in files for each in file]
    assert sorted(kustomize.objects("k8s"), key=str) == sorted(wanted, key=str)


@KUBECTL
def test_overlay_changes_image_names_and_topic_together(tmp_path: Path) -> None:
    [job], [user] = made("overlay", "Job"), made("overlay", "KafkaUser")
    found = settings(variables(job), tmp_path)
    assert container(job)["image"] == f"registry.example.com/loader-ws-trades:{__version__}"
    assert job["metadata"]["name"] == f"loader-ws-trades-{found.queue_id}" != JOB["metadata"]["name"]
    topics = {topic["metadata"]["name"] for topic in made("overlay", "KafkaTopic")}
    assert topics == {found.kafka_topic, found.queue_events_topic, found.queue_control_topic} != set(TOPICS)
    rights = [acl["resource"] for acl in user["spec"]["authorization"]["acls"]]
    assert {each["name"] for each in rights if each["type"] == "topic"} == topics
    assert found.kafka_user_producer == user["metadata"]["name"] != USER["metadata"]["name"]
    [secret] = [volume["secret"] for volume in pod(job)["volumes"] if volume["name"] == "user"]
    [original] = [volume["secret"] for volume in pod(JOB)["volumes"] if volume["name"] == "user"]
    assert secret == {**original, "secretName": user["metadata"]["name"]}
    changed = {name for name, value in variables(job).items() if variables(JOB)[name] != value}
    assert changed == {"QUEUE_ID", "SYMBOL", "KAFKA_TOPIC", "KAFKA_USER_PRODUCER"}


# Kafka


@BOTH
def test_topics_user_and_addresses_match_the_kafka_manifest(job: dict[str, Any], tmp_path: Path) -> None:
    found = settings({"JOB_COMPLETION_INDEX": "0", **variables(job)}, tmp_path)
    assert set(TOPICS) == {found.kafka_topic, found.queue_events_topic, found.queue_control_topic}
    assert found.kafka_user_producer == USER["metadata"]["name"]
    [secret] = [volume["secret"] for volume in pod(job)["volumes"] if volume["name"] == "user"]
    assert secret["secretName"] == USER["metadata"]["name"]
    for part in KAFKA:
        cluster, namespace = part["metadata"]["labels"]["strimzi.io/cluster"], part["metadata"]["namespace"]
        assert found.kafka_bootstrap_servers == f"{cluster}-kafka-bootstrap.{namespace}:9093"
        assert any(v.get("secret", {}).get("secretName") == f"{cluster}-cluster-ca-cert" for v in pod(job)["volumes"])


def test_kafka_user_has_exactly_the_rights_of_the_table(tmp_path: Path) -> None:
    found = settings(variables(JOB), tmp_path)

    def wanted(right: Right) -> tuple[str, str, str, str]:
        operation = right.operation.title().replace("_", "")
        if right is TRANSACTIONS:
            return operation, "transactionalId", "loader-ws-trades.", "prefix"
        return operation, "topic", getattr(found, right.setting), "literal"

    given = [
        (operation, acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"])
        for acl in USER["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    ]
    assert sorted(given) == sorted(map(wanted, RIGHTS))


def test_operator_resources_have_the_fields_of_their_kind() -> None:
    kinds = [(part["apiVersion"], part["kind"]) for part in (*KAFKA, POD_MONITOR, RULES)]
    assert kinds == [
        *[("kafka.strimzi.io/v1", "KafkaTopic")] * 3,
        ("kafka.strimzi.io/v1", "KafkaUser"),
        ("monitoring.coreos.com/v1", "PodMonitor"),
        ("monitoring.coreos.com/v1", "PrometheusRule"),
    ]
    assert all(set(spec) == {"partitions", "replicas", "config"} for spec in TOPICS.values())
    authorization = USER["spec"]["authorization"]
    assert USER["spec"] == {"authentication": {"type": "scram-sha-512"}, "authorization": authorization}
    assert (set(authorization), authorization["type"]) == ({"type", "acls"}, "simple")
    assert all(set(acl) == {"resource", "operations"} for acl in authorization["acls"])
    assert set(POD_MONITOR["spec"]) == {"selector", "podMetricsEndpoints"}
    assert set(RULES["spec"]) == {"groups"}
    assert all(set(group) == {"name", "rules"} for group in RULES["spec"]["groups"])


def test_kafka_accepts_the_topic_settings(kafka: Kafka) -> None:
    for name, spec in TOPICS.items():
        config = {key: str(value) for key, value in spec["config"].items()}
        wanted = NewTopic(f"manifest-{name}", spec["partitions"], 1, config=config)
        [done] = kafka.admin.create_topics([wanted], validate_only=True).values()
        assert done.result(30) is None
