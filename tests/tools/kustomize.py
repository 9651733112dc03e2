"""What `kubectl kustomize` makes of the folders in `docker/`."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import yaml

from tests.tools.docs import DOCKER

FOLDERS = ("k8s", "overlay")
IN_KUBERNETES = {"Job": "batch/v1", "NetworkPolicy": "networking.k8s.io/v1"}
"""The kinds that Kubernetes itself knows, and their API groups; the others are those of operators."""


def available() -> bool:
    """Whether this machine has kubectl."""
    return shutil.which("kubectl") is not None


def objects(folder: str) -> list[dict[str, Any]]:
    """Return the objects that a folder of `docker/` stands for."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(DOCKER / folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
