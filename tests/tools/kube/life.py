"""A pod's container as a process: the files and the ports of the container become the machine's."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.tools.apache_kafka.cluster import free_port
from tests.tools.kube import pods
from tests.tools.kube.liveness import Liveness
from tests.tools.processes import GuardedProcess
from tests.tools.scrape import PREFIX, scrape

REPOSITORY = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "loader_ws_trades", "run")  # the image's: loader-ws-trades run
_INDEX = "batch.kubernetes.io/job-completion-index"


class Life:
    """A pod's only container, from its start to its end.

    Args:
        pod: as the API gives it.
        secrets: the namespace's secrets.
        overriding: variables that override the pod's own, as there is no name service here.
        folder: where the mounted files go; the file system is not the pod's own.
        log: the file for what the process writes.
    """

    def __init__(
        self, pod: pods.Pod, secrets: pods.Secrets, overriding: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.name = str(pod["metadata"]["name"])
        self.path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{self.name}"
        self.index = int(pod["metadata"].get("annotations", {}).get(_INDEX, 0))
        """Its completion index in an Indexed Job."""
        self.log = log
        self.ports = {port: free_port() for port in pods.ports(pod)}
        """Which port of the machine stands for each of the container's."""
        wanted = pods.environment(pod)
        variables = self._moved(wanted, _written(pods.mounts(pod, secrets), folder)) | dict(overriding)
        self.overridden = {
            name: f"{wanted.get(name, 'not set')} -> {value}"
            for name, value in variables.items()
            if wanted.get(name) != value
        }
        """What was overridden or moved, for people."""
        self.terminating: float | None = None
        """When it will be killed, by the monotonic clock, once it has been asked to end."""
        self.began, self.ended = time.monotonic(), 0.0
        self.code: int | None = None
        """Exit code, as a container's is counted: 128 more than the signal that killed it."""
        self._process = GuardedProcess(
            COMMAND,
            log,
            environment={**_of_the_image(folder), "HOSTNAME": self.name, **variables},
            folder=folder,  # where no .env of a developer is read
        )
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        self.liveness = Liveness(pods.container_of(pod), self.ports, lambda: self.terminate(grace))

    def look(self) -> bool:
        """Take note of the end, and return whether it has come; only the kubelet calls it."""
        if self.code is None and not self._process.running:
            self.liveness.close()
            code = self._process.wait()
            self.code, self.ended = (code if code >= 0 else 128 - code), time.monotonic()
        return self.code is not None

    @property
    def over(self) -> bool:
        """Whether the kubelet has seen it end."""
        return self.code is not None

    def terminate(self, grace: float) -> None:
        """Ask it to end within `grace` seconds."""
        self.terminating = time.monotonic() + grace
        self._process.send_signal(signal.SIGTERM)

    def loaded(self) -> set[str]:
        """The pairs of which it has received trades, by its metrics."""
        [port] = self.ports.values()
        samples = scrape(port).families[f"{PREFIX}received"].samples
        return {sample.labels["symbol"] for sample in samples if sample.value}

    def freeze(self) -> None:
        """Hold it (SIGSTOP): it lives, and answers nothing; only a kill ends it."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it."""
        self._process.send_signal(signal.SIGKILL)

    def _moved(self, wanted: Mapping[str, str], moves: Mapping[str, str]) -> dict[str, str]:
        """Return the variables with paths and ports that are the machine's."""
        places = {str(port): str(place) for port, place in self.ports.items()}
        return {name: places.get(value, pods.moved(value, moves)) for name, value in wanted.items()}


def _written(mounts: Mapping[str, Mapping[str, bytes]], folder: Path) -> dict[str, str]:
    """Write what is mounted below `folder`, and return where each mount's path is now."""
    moves = {}
    for path, files in mounts.items():
        place = folder / path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        moves[path] = str(place)
    return moves


def _of_the_image(folder: Path) -> dict[str, str]:
    """Return the variables that are there before a pod's own: few, and none of a developer's."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(REPOSITORY)}
