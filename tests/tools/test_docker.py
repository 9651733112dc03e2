"""The files in docker/ agree with the code and with each other. `make image-test` builds and runs the image."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from configparser import ConfigParser
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import trustme
import yaml
from confluent_kafka.admin import NewTopic
from packaging.requirements import Requirement

from loader_ws_trades import __version__
from loader_ws_trades.binance.disconnects import REASONS
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import OPTIONS, Settings
from loader_ws_trades.errors import ConfigurationError
from tests.tools import kustomize, sbom
from tests.tools.apache_kafka.client import Kafka
from tests.tools.apache_kafka.distribution import POM
from tests.tools.docs import README, ROOT
from tests.tools.image import building, rules
from tests.tools.rights import RIGHTS, TRANSACTIONS, Right

DOCKER = ROOT / "docker"
VARIABLES = {option.variable: option for option in OPTIONS}


def parts(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / file).read_text("utf-8")))


[JOB], [FLEET], [COMPOSE] = parts("k8s/job.yaml"), parts("k8s/fleet.yaml"), parts("compose.yaml")
[NETWORK] = parts("k8s/network.yaml")
KAFKA, (POD_MONITOR, RULES) = parts("k8s/kafka.yaml"), parts("k8s/monitoring.yaml")
FILES = {"KAFKA_PASSWORD_FILE", "CA_PATH"}
LOADERS = ("loader", "loader-live")
TOPICS = {part["metadata"]["name"]: part["spec"] for part in KAFKA if part["kind"] == "KafkaTopic"}
[USER] = [part for part in KAFKA if part["kind"] == "KafkaUser"]
ALL_RULES = [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]
[INFO], ALERTS = ([rule for rule in ALL_RULES if kind in rule] for kind in ("record", "alert"))
BOTH = pytest.mark.parametrize("job", [JOB, FLEET], ids=["job", "fleet"])


def pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    [found] = pod(job)["containers"]
    assert isinstance(found, dict)
    return found


def variables(job: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(job)["env"]}


def settings(given: Mapping[str, str], tmp_path: Path) -> Settings:
    """The settings made from variables, with a file in place of each mounted secret."""
    secrets = {"KAFKA_PASSWORD_FILE": tmp_path / "password", "CA_PATH": tmp_path / "ca.crt"}
    secrets["KAFKA_PASSWORD_FILE"].write_text("a secret\n", "utf-8")
    trustme.CA().cert_pem.write_to_path(str(secrets["CA_PATH"]))
    mounted = {name: str(secrets[name]) for name in FILES & given.keys()}
    return load({VARIABLES[name].name: value for name, value in {**given, **mounted}.items() if name in VARIABLES})


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

KUBECTL = pytest.mark.skipif(not kustomize.available(), reason="there is no kubectl")


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


# Alerts


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


# The image and the demo


def test_image_tag_is_the_version() -> None:
    images = {container(JOB)["image"], container(FLEET)["image"], COMPOSE["services"]["loader"]["image"]}
    assert images == {f"loader-ws-trades:{__version__}"}


def test_constraints_pin_every_requirement_within_its_range() -> None:
    entries = re.findall(
        r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
        (DOCKER / "constraints.txt").read_text("utf-8"),
        re.MULTILINE,
    )
    pins = {name: version for name, version, _ in entries}
    assert {"pip", "setuptools"} <= set(pins)
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = [setup["options"]["install_requires"], setup["options.extras_require"]["sandbox"]]
    for line in filter(None, "\n".join(needed).splitlines()):
        requirement = Requirement(line)
        assert pins[requirement.name] in requirement.specifier, line


def test_image_is_built_of_files_with_a_known_hash_alone() -> None:
    steps = re.findall(r"pip .*?(?=&&|\n[A-Z])", building.DOCKERFILE.read_text("utf-8"), re.DOTALL)
    [hashed] = [step for step in steps if "--require-hashes" in step]
    assert "--requirement constraints.txt" in hashed
    commands = [step for step in steps if re.search(r"\b(download|install|wheel) ", step)]
    assert len(commands) == 4
    assert all("--no-index" in step for step in commands if step != hashed)


def test_bill_of_materials_names_every_kind_of_package() -> None:
    files = {
        "var/lib/dpkg/status": "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-2\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n",
        "opt/loader/lib/python3.13/site-packages/msgspec-0.22.0.dist-info/METADATA": "Name: msgspec\nVersion: 0.22.0\n",
        "opt/loader/lib/python3.13/site-packages/confluent_kafka.libs/librdkafka-0c.so.1": "",
        "usr/local/include/python3.13/patchlevel.h": '#define PY_VERSION              "3.13.12"\n',
        "etc/os-release": "NAME=Debian\n",
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    archive.seek(0)
    found = {each.name: each.purl and each.purl.to_string() for each in sbom.components(archive)}
    assert found == {
        "bash": "pkg:deb/debian/bash@5.2-2?arch=amd64",
        "msgspec": "pkg:pypi/msgspec@0.22.0",
        "confluent_kafka.libs/librdkafka-0c.so.1": None,
        "cpython": "pkg:generic/cpython@3.13.12",
    }


def test_dockerignore_lets_in_what_the_dockerfile_copies() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", building.DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert {path for line in copied for path in line.split()} == let_in
    assert all((ROOT / path).exists() for path in let_in)


def test_compose_loaders_reach_their_exchange_and_their_own_topics(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    found, live = (settings(services[name]["environment"], tmp_path) for name in LOADERS)
    command = services["exchange"]["command"]
    port, symbol = (command[command.index(flag) + 1] for flag in ("--port", "--symbol"))
    assert found.binance_ws_url.startswith(f"ws://exchange:{port}/")
    assert found.binance_rest_url == f"http://exchange:{port}"
    assert found.symbol == symbol
    assert live.binance_ws_url == VARIABLES["BINANCE_WS_URL"].default
    assert found.kafka_bootstrap_servers == live.kafka_bootstrap_servers
    # Two id sequences of one symbol must not share a topic.
    assert found.kafka_topic != live.kafka_topic
    assert found.queue_id != live.queue_id
    made = re.findall(r"for topic in (.+); do", services["topics"]["command"][0])[0].split()
    assert {found.kafka_topic, live.kafka_topic, found.queue_events_topic, found.queue_control_topic} == set(made)


def test_compose_runs_the_kafka_version_of_the_tests() -> None:
    version = re.search(r"<kafka\.version>(.+?)</", POM.read_text("utf-8"))
    assert version
    assert {COMPOSE["services"][name]["image"] for name in ("kafka", "topics", "reader")} == {
        f"apache/kafka:{version[1]}"
    }


def test_compose_shows_the_dashboard_of_the_loaders_it_runs() -> None:
    services, config = COMPOSE["services"], yaml.safe_load((DOCKER / "monitoring/prometheus.yaml").read_text("utf-8"))
    [job] = config["scrape_configs"]
    scraped = [(found["targets"], found["labels"]["pod"]) for found in job["static_configs"]]
    assert scraped == [
        ([f"{name}:{services[name]['environment']['METRICS_PORT']}"], name) for name in ("loader", "loader-live")
    ]
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        for volume in services[name]["volumes"]:
            assert (DOCKER / volume.partition(":")[0]).is_file()
    [home] = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == home
    provisioned = {name: yaml.safe_load(given["content"]) for name, given in COMPOSE["configs"].items()}
    assert {given["source"] for given in services["grafana"]["configs"]} == set(provisioned)
    [provider] = provisioned["grafana-dashboards"]["providers"]
    assert home.startswith(provider["options"]["path"])
    [source] = provisioned["grafana-datasources"]["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_dashboard_is_made_from_its_table() -> None:
    dashboard = pytest.importorskip("tests.tools.dashboard", reason="needs Python 3.11")
    assert dashboard.FILE.read_text("utf-8") == dashboard.dashboard(), "run `make docs`"


def test_compose_publishes_ports_on_loopback_alone() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_readme_names_each_manifest() -> None:
    text = (DOCKER / "README.md").read_text("utf-8")
    for file in (DOCKER / "k8s").iterdir():
        assert f"`{file.name}`" in text
