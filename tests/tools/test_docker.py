"""The files of the image and of the Compose demo agree with the code. `make image-test` builds and runs the image."""

from __future__ import annotations

import io
import re
import tarfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from loader_ws_trades import __version__
from tests.tools import sbom
from tests.tools.apache_kafka.distribution import POM
from tests.tools.docs import DOCKER, ROOT
from tests.tools.image import building
from tests.tools.manifests import COMPOSE, FLEET, JOB, LOADERS, VARIABLES, container, settings


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
