"""What a loader answers at its port: metrics, read by Prometheus's own parsers, and the liveness probe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "loader_ws_trades_"
_open = build_opener(ProxyHandler({})).open  # ignores proxies of the environment


class Answer(NamedTuple):
    """An answer over HTTP."""

    status: int
    content_type: str
    text: str


def ask(port: int, path: str, host: str = "127.0.0.1", accept: str = "") -> Answer:
    """What is answered at `path`, whatever the status."""
    request = Request(f"http://{host}:{port}{path}", headers={"Accept": accept})
    try:
        with _open(request, timeout=10) as answer:
            return Answer(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers["Content-Type"], error.read().decode())


class Samples:
    """The samples of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = {family.name: family for family in families}
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        """The value of a sample, or of those of all pairs together; None if there is none."""
        full = name if name.startswith("process") else PREFIX + name
        found = [
            value
            for (sample, given), value in self._values.items()
            if sample == full and dict(given).items() - {"symbol": dict(given).get("symbol")}.items() == labels.items()
        ]
        return self._values.get((full, tuple(sorted(labels.items()))), sum(found) if found else None)

    def __call__(self, name: str, **labels: str) -> float:
        """The value of a sample that must be there."""
        value = self.get(name, **labels)
        assert value is not None, f"{name} {labels} is not among {sorted(self._values)}"
        return value

    @property
    def state(self) -> str:
        """The only state that is 1."""
        [state] = [
            dict(labels)["state"] for (name, labels), value in self._values.items() if name.endswith("_state") and value
        ]
        return state


def scrape(port: int, host: str = "127.0.0.1") -> Samples:
    """What `/metrics` tells now."""
    answer = ask(port, "/metrics", host)
    assert answer.status == 200, answer
    return Samples(text_string_to_metric_families(answer.text))
