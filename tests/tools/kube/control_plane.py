"""etcd, Kubernetes' API server and its Job controller, as processes on loopback."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.tools.apache_kafka.certificates import write_certificates
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.kube.api import Api
from tests.tools.kube.binaries import Binaries
from tests.tools.processes import GuardedProcess
from tests.tools.waiting import wait_for

HOST = "127.0.0.1"
START_TIMEOUT = 90.0
_STOP_TIMEOUT = 20.0


class ControlPlaneError(Exception):
    """A part of the control plane ended by itself; the message carries the tail of its log."""


@contextlib.contextmanager
def control_plane(binaries: Binaries, directory: Path, logs: Path) -> Iterator[Api]:
    """Run a control plane whose data and keys are in `directory`; its client is there until the block is left."""
    files = _Files(directory)
    etcd, peer, port = (f"http://{HOST}:{free_port()}", f"http://{HOST}:{free_port()}", free_port())
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(_running(_etcd(binaries, directory / "etcd", etcd, peer), logs / "etcd.log"))
        server = stack.enter_context(_running(_server(binaries, files, etcd, port), logs / "kube-apiserver.log"))
        api = Api(f"https://{HOST}:{port}", files.ca, files.token)
        stack.callback(api.close)
        files.write_kubeconfig(api.url)
        _wait_ready(api, {"etcd": store, "kube-apiserver": server}, logs)
        stack.enter_context(_running(_controllers(binaries, files), logs / "kube-controller-manager.log"))
        yield api


class _Files:
    """What the programs are given as files: certificates, a key, a token, a kubeconfig."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self.server = directory / "ca.pem", directory / "server.pem"
        self.tokens, self.kubeconfig = directory / "tokens.csv", directory / "kubeconfig.json"
        self.token = secrets.token_hex(16)
        write_certificates(self.ca, self.server)
        self.tokens.write_text(f'{self.token},admin,1,"system:masters"\n')

    def write_kubeconfig(self, url: str) -> None:
        """Write what a client of the API server is given."""
        parts = {
            "clusters": {"cluster": {"server": url, "certificate-authority": str(self.ca)}},
            "users": {"user": {"token": self.token}},
            "contexts": {"context": {"cluster": "it", "user": "it"}},
        }
        named = {kind: [{"name": "it", **content}] for kind, content in parts.items()}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "it", **named}
        self.kubeconfig.write_text(json.dumps(config))


def _etcd(binaries: Binaries, data: Path, client: str, peer: str) -> list[str]:
    return [
        str(binaries.etcd),
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def _server(binaries: Binaries, files: _Files, etcd: str, port: int) -> list[str]:
    return [
        str(binaries.api_server),
        f"--etcd-servers={etcd}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        "--endpoint-reconciler-type=none",  # there is no network in which others would look for it
        f"--secure-port={port}",
        f"--tls-cert-file={files.server}",
        f"--tls-private-key-file={files.server}",
        f"--token-auth-file={files.tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.invalid",
        f"--service-account-signing-key-file={files.server}",
        f"--service-account-key-file={files.server}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # No controller makes the service accounts that it would ask for.
        "--disable-admission-plugins=ServiceAccount",
    ]


def _controllers(binaries: Binaries, files: _Files) -> list[str]:
    return [
        str(binaries.controller_manager),
        f"--kubeconfig={files.kubeconfig}",
        "--controllers=job-controller,disruption-controller,pod-garbage-collector-controller",
        f"--service-account-private-key-file={files.server}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[GuardedProcess]:
    log.unlink(missing_ok=True)
    process = GuardedProcess(command, log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _wait_ready(api: Api, processes: dict[str, GuardedProcess], logs: Path) -> None:
    def ready() -> bool:
        for name, process in processes.items():
            if not process.running:
                tail = (logs / f"{name}.log").read_text(errors="replace")[-4000:]
                raise ControlPlaneError(f"{name} has ended by itself:\n{tail}")
        return api.is_ready()

    wait_for(ready, "the API server to be ready", START_TIMEOUT)
