"""What a node does about its pods: it starts their processes, ends them when asked to, and tells how they ended."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tools.kube import pods
from tests.tools.kube.api import Api, ApiError
from tests.tools.kube.life import Life

NODE = "node-1"
_TURN = 0.2
_GONE = (404, 409)  # deleted, or changed meanwhile: the next look at the pods shows what is so


class Kubelet:
    """The only node, and the scheduler too: a thread that runs all pods there are, each with its one container.

    Args:
        api: the cluster.
        folder: where the pods' mounted files go.
        logs: where the pods' logs go, a folder for each namespace.
    """

    def __init__(self, api: Api, folder: Path, logs: Path) -> None:
        self.overriding: Mapping[str, str] = {}
        """Variables that are set in every pod that starts from now on, whatever it says itself."""
        self._api = api
        self._folder = folder
        self._logs = logs
        self._lives: dict[str, Life] = {}
        self._reported: set[str] = set()
        self._error: Exception | None = None
        self._closing = threading.Event()
        api.create("/api/v1/nodes", {"metadata": {"name": NODE}})
        self._thread = threading.Thread(target=self._work, name="kubelet", daemon=True)
        self._thread.start()

    def lives(self, namespace: str) -> list[Life]:
        """Return the pods' processes of a namespace, in the order in which they were started.

        Raises:
            Exception: what the kubelet has died of.
        """
        if self._error is not None:
            raise self._error
        return [life for life in tuple(self._lives.values()) if f"/namespaces/{namespace}/" in life.path]

    def close(self) -> None:
        """Kill all processes, and end."""
        self._closing.set()
        self._thread.join()
        for life in self._lives.values():
            life.kill()
        for life in self._lives.values():
            while not life.look():
                time.sleep(0.01)

    def _work(self) -> None:
        try:
            while not self._closing.wait(_TURN):
                self._turn()
        except Exception as error:  # raised to the next caller of `lives`
            self._error = error

    def _turn(self) -> None:
        there = {pod["metadata"]["uid"]: pod for pod in self._api.items("/api/v1/pods")}
        for uid, pod in there.items():
            self._attend(uid, pod)
        for uid in self._lives.keys() - there.keys():
            if not self._lives[uid].look():
                self._lives[uid].kill()  # deleted by force

    def _attend(self, uid: str, pod: dict[str, Any]) -> None:
        try:
            self._do(uid, pod)
        except ApiError as error:
            if error.code not in _GONE:
                raise

    def _do(self, uid: str, pod: dict[str, Any]) -> None:
        life, asked = self._lives.get(uid), "deletionTimestamp" in pod["metadata"]
        if life is None:
            if not asked and pod["status"]["phase"] == "Pending":
                self._start(uid, pod)
            return
        if life.look():
            if uid not in self._reported:
                self._api.patch_status(life.path, _end(pod, life.code or 0))
                self._reported.add(uid)
            elif asked:
                # The object goes once its process has ended: that is how the others know.
                self._api.delete(life.path, kind="DeleteOptions", apiVersion="v1", gracePeriodSeconds=0)
        elif asked and life.terminating is None:
            life.terminate(pod["metadata"]["deletionGracePeriodSeconds"])
        elif life.terminating is not None and time.monotonic() > life.terminating:
            life.kill()

    def _start(self, uid: str, pod: dict[str, Any]) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        place = f"/api/v1/namespaces/{namespace}"
        target = {"kind": "Node", "name": NODE}
        if not pod["spec"].get("nodeName"):
            self._api.create(f"{place}/pods/{name}/binding", {"metadata": {"name": name}, "target": target})
        secrets = pods.decoded(self._api.items(f"{place}/secrets"))
        folder, log = self._folder / uid, self._logs / namespace / f"{name}.log"
        folder.mkdir(parents=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        life = self._lives[uid] = Life(pod, secrets, self.overriding, folder, log)
        self._api.patch_status(life.path, _running(pod))


def _running(pod: pods.Pod) -> dict[str, Any]:
    state = {"running": {"startedAt": _now()}}
    return {"phase": "Running", "startTime": _now(), **_of_the_container(pod, state, ready=True)}


def _end(pod: pods.Pod, code: int) -> dict[str, Any]:
    """Return the status of a pod that is never started again."""
    reason = "Error" if code else "Completed"
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": _now()}}
    return {"phase": "Failed" if code else "Succeeded", **_of_the_container(pod, state, ready=False)}


def _of_the_container(pod: pods.Pod, state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    container = pods.container_of(pod)
    status = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {
        "containerStatuses": [{**status, "ready": ready, "state": state}],
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
