"""The manifests in docker/, and what their containers are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trustme
import yaml

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import OPTIONS, Settings
from tests.tools.docs import DOCKER

VARIABLES = {option.variable: option for option in OPTIONS}


def parts(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / file).read_text("utf-8")))


[JOB], [FLEET], [COMPOSE] = parts("k8s/job.yaml"), parts("k8s/fleet.yaml"), parts("compose.yaml")
POD_MONITOR, RULES = parts("k8s/monitoring.yaml")
LOADERS = ("loader", "loader-live")
"""Of the Compose demo."""
FILES = {"KAFKA_PASSWORD_FILE", "CA_PATH"}
"""Variables that name mounted secrets."""


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
