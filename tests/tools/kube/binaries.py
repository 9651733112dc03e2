"""Kubernetes' API server and controller manager, built out of the Go module proxy; etcd as the machine has it."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.34.1"
CACHE = Path(__file__).parents[3] / ".cache" / "kube"
MODULE = "loader-ws-trades.invalid/kube"
PROGRAMS = ("kube-apiserver", "kube-controller-manager")
FETCH_TIMEOUT = 900.0
BUILD_TIMEOUT = 3600.0

# Newest first wherever Debian, Homebrew or a release archive put it.
_ETCD_FOLDERS = os.pathsep.join(("/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"))


class UnavailableError(Exception):
    """Kubernetes cannot be run on this machine; the message says what to install."""


@dataclass(frozen=True)
class Binaries:
    """The programs of a control plane."""

    etcd: Path
    api_server: Path
    controller_manager: Path


def obtain(say: Callable[[str], None]) -> Binaries:
    """Find etcd and the two programs, and build these when the cache has none.

    Args:
        say: gets a line for what takes minutes, and what it has brought.

    Raises:
        UnavailableError: no etcd, or neither built programs nor a Go that builds them.
    """
    etcd = shutil.which("etcd", path=os.environ.get("PATH", "") + os.pathsep + _ETCD_FOLDERS)
    if etcd is None:
        raise UnavailableError("There is no `etcd`: install it, on Debian with `apt-get install etcd-server`.")
    built = [CACHE / f"bin-{VERSION}" / program for program in PROGRAMS]
    if not all(program.is_file() for program in built):
        _build(built[0].parent, say)
    return Binaries(Path(etcd), *built)


def module_file(upstream: str, version: str = VERSION) -> str:
    """Make a go.mod of our own out of the go.mod of ``k8s.io/kubernetes``.

    There the libraries of Kubernetes are folders beside it, and their version is v0.0.0. The proxy has them as modules
    of their own: Kubernetes 1.34.1 goes with v0.34.1 of each.
    """
    libraries = "v0." + version.partition(".")[2]
    own = re.sub(r"^module .*$", f"module {MODULE}", upstream, flags=re.MULTILINE)
    own = re.sub(r"(k8s\.io/\S+) => \./staging/src/k8s\.io/\S+", rf"\1 => \1 {libraries}", own)
    own = re.sub(r"(k8s\.io/\S+) v0\.0\.0$", rf"\1 {libraries}", own, flags=re.MULTILINE)
    return f"{own.rstrip()}\n\nrequire k8s.io/kubernetes v{version}\n"


def _build(folder: Path, say: Callable[[str], None]) -> None:
    """Build the programs into `folder`, at low priority and with two compilers: the machine may have other work."""
    go = shutil.which("go")
    if go is None:
        raise UnavailableError(f"There is no `go` to build Kubernetes {VERSION} with: install Go 1.24 or newer.")
    source = CACHE / "module"
    source.mkdir(parents=True, exist_ok=True)
    say(f"Building Kubernetes {VERSION} into {folder}, once: some minutes, and 4 GB of disk meanwhile ...")
    began = time.monotonic()
    upstream = Path(json.loads(_go(go, "mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}"))["GoMod"])
    (source / "go.mod").write_text(module_file(upstream.read_text()))
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion=v{VERSION}"
    packages = [f"k8s.io/kubernetes/cmd/{program}" for program in PROGRAMS]
    fresh = folder.with_name(f"{folder.name}.building")
    fresh.mkdir(exist_ok=True)
    _go(go, "build", "-mod=mod", "-p", "2", "-ldflags", flags, "-o", f"{fresh}/", *packages, timeout=BUILD_TIMEOUT)
    # All or nothing: a build that was broken off leaves no folder of this name.
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    size = sum(program.stat().st_size for program in folder.iterdir()) / 1e6
    for leftover in (source, *map(Path, _caches().values())):
        shutil.rmtree(leftover)
    say(f"Built in {time.monotonic() - began:.0f} s: {size:.0f} MB.")


def _go(go: str, *arguments: str, timeout: float = FETCH_TIMEOUT) -> str:
    run = subprocess.run(
        ["nice", "-n", "10", go, *arguments],
        cwd=CACHE / "module",
        env=_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if run.returncode != 0:
        raise UnavailableError(f"`go {arguments[0]}` has failed:\n{run.stdout[-2000:]}{run.stderr[-4000:]}")
    return run.stdout


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    flags = {"GOFLAGS": "-buildvcs=false -modcacherw", "GOWORK": "off", "CGO_ENABLED": "0"}
    return {**environ, **_caches(), **flags}


def _caches() -> dict[str, str]:
    """Where Go keeps what it fetches and compiles: in our cache, so that it can go when the programs are built."""
    return {"GOMODCACHE": str(CACHE / "mod"), "GOCACHE": str(CACHE / "build")}
