"""An image built with buildah, on a base image made of Debian's packages in place of the registry's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools.docs import ROOT

CACHE = ROOT / ".cache" / "image"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
TAG = "localhost/loader-ws-trades:image-test"
_PACKAGES = "python3,python3-venv,ca-certificates"
_LONGEST = 900  # seconds of one step
# What pip has to know of this machine to reach the packages; nothing of it stays in the image.
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "cert", "proxy", "timeout")


class BuildError(Exception):
    """A step that did not succeed, in one sentence and the end of what it said."""


@dataclass(frozen=True)
class Base:
    """The base image that the Dockerfile asks for."""

    name: str
    python: str
    """Its Python's minor version."""
    release: str
    """Of Debian."""


def base() -> Base:
    """Read the Dockerfile."""
    found = re.search(r"^ARG BASE=(python:(3\.\d+)\.\d+-slim-(\w+))$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{DOCKERFILE} has no line `ARG BASE=python:<version>-slim-<release>`; name the base there")
    return Base(*found.groups())


def make_base() -> Path:
    """Make the base image, and return its root file system, which is kept for the next time."""
    wanted = base()
    folder = CACHE / wanted.release
    root = folder / "rootfs"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        step("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", wanted.release, str(root))
        (folder / "Dockerfile").write_text("FROM scratch\nADD rootfs /\n", "utf-8")
        (folder / "complete").touch()
    step("buildah", "bud", "--tag", f"docker.io/library/{wanted.name}", str(folder))
    return root


def build(**arguments: str) -> None:
    """Build the Dockerfile as an engine would, but never pull."""
    with tempfile.TemporaryDirectory() as directory:
        mounts = [f"--volume={source}:{target}:ro" for source, target in _pip_settings(Path(directory))]
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        step(
            *("buildah", "bud", "--network=host", "--pull-never", *mounts, *given),
            *(f"--tag={TAG}", f"--file={DOCKERFILE}", str(ROOT)),
        )


def _pip_settings(directory: Path) -> Iterator[tuple[str, str]]:
    """Files of this machine that pip needs inside, and where."""
    lines = step(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = dict(re.findall(r"\.([a-z-]+)='(.*)'$", line)[0] for line in lines if "='" in line)
    kept = {key: found[key] for key in _PIP_KEYS if key in found}
    file = directory / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items()), "utf-8")
    yield str(file), "/etc/pip.conf"
    if "cert" in kept:
        yield kept["cert"], kept["cert"]


@contextmanager
def mounted() -> Iterator[Path]:
    """The root file system of the image."""
    name = step("buildah", "from", "--pull-never", TAG).strip()
    try:
        yield Path(step("buildah", "mount", name).strip())
    finally:
        step("buildah", "rm", name)


def configuration() -> dict[str, Any]:
    """What the image says of itself: its user, entry point, command, variables, labels."""
    found: dict[str, Any] = json.loads(step("buildah", "inspect", "--type=image", TAG))["OCIv1"]["config"]
    return found


def megabytes(image: str) -> float:
    """Size of an image's layers."""
    sizes = json.loads(step("buildah", "images", "--json", image))[0]["size"].split()
    return float(sizes[0]) * {"kB": 1e-3, "MB": 1.0, "GB": 1e3}[sizes[1]]


def step(*command: str) -> str:
    """Run one step, and return its standard output."""
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took longer than {_LONGEST} s; try again") from error
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise BuildError(f"{' '.join(command[:2])} ended with {done.returncode}:\n{end}")
    return done.stdout
