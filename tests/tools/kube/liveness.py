"""The kubelet's liveness probe: it asks a container over HTTP how it is, and gives up on one that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import urllib3


class Liveness:
    """A thread that probes one container, with the times and the patience that its pod asks for.

    Args:
        container: of the pod's specification; without a probe by HTTP nothing is done.
        places: which port of the machine stands for each of the container's.
        fail: called once, when the container counts as dead.
    """

    def __init__(self, container: Mapping[str, Any], places: Mapping[int, int], fail: Callable[[], None]) -> None:
        self.answers: list[int] = []
        """HTTP status of each probe, 0 for none."""
        self._fail = fail
        self._closing = threading.Event()
        probe = container.get("livenessProbe", {})
        if "httpGet" in probe:
            named = {port["name"]: port["containerPort"] for port in container["ports"] if "name" in port}
            port = probe["httpGet"]["port"]
            url = f"http://127.0.0.1:{places[named.get(port, port)]}{probe['httpGet']['path']}"
            threading.Thread(target=self._work, args=(probe, url), name="liveness", daemon=True).start()

    def close(self) -> None:
        """Probe no more."""
        self._closing.set()

    def _work(self, probe: Mapping[str, Any], url: str) -> None:
        failures = 0
        wait = probe.get("initialDelaySeconds", 0) or probe["periodSeconds"]
        while not self._closing.wait(wait):
            self.answers.append(_status(url, probe["timeoutSeconds"]))
            failures = 0 if 200 <= self.answers[-1] < 400 else failures + 1
            if failures == probe["failureThreshold"]:
                self._fail()
                return
            wait = probe["periodSeconds"]


def _status(url: str, timeout: float) -> int:
    try:
        return urllib3.request("GET", url, retries=False, timeout=timeout).status
    except urllib3.exceptions.HTTPError:
        return 0
