"""One scenario: a manifest in a namespace of its own, an exchange, fresh topics; and what came of the Job."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from loader_ws_trades.sandbox import Exchange, Limits, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.kube.api import Api
from tests.tools.kube.judge import condition, judge_job, judge_logs, judge_shares, judge_topic
from tests.tools.kube.kubelet import Kubelet
from tests.tools.kube.life import Life
from tests.tools.kube.manifest import LISTED, Manifest, granted
from tests.tools.kube.outcome import Outcome
from tests.tools.rights import CHECKPOINT, LEAST
from tests.tools.topics import Follower, read_topic, write_topic
from tests.tools.waiting import wait_for

_PATIENCE = 90.0  # seconds for each step
_FOR_PROBES = 180.0  # three of them, and the grace period
_RATE = 200.0  # trades a second of each pair
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Stage:
    """What all scenarios share."""

    api: Api
    kubelet: Kubelet
    kafka: Cluster


class Trial:
    """Entered, the Job is made as its manifest stands; left, its pods are ended and what came of it is in `outcome`.

    Args:
        stage: the cluster, its node, the broker.
        outcome: the line to fill in.
        namespace: where the Job is made; the restricted profile of pod security is enforced there.
        manifest: what is made.
        unknown: pairs of the manifest that the exchange does not know.
        password: what the secret holds in place of the user's password.
    """

    def __init__(
        self,
        stage: Stage,
        outcome: Outcome,
        namespace: str,
        manifest: Manifest,
        *,
        unknown: Collection[str] = (),
        password: str | None = None,
    ) -> None:
        self.outcome = outcome
        self._stage = stage
        self._namespace = namespace
        self._manifest = manifest
        self._password = password or stage.kafka.users[manifest.user]
        self._markets = [
            Market.generated(symbol, rate=_RATE, seed=number, first_id=(number + 1) * 1_000_000, start="subscriber")
            for number, symbol in enumerate(LISTED)
            if symbol not in unknown
        ]
        self._loaded = [market for market in self._markets if market.symbol in manifest.symbols]
        self._goals: dict[str, int] = {}
        self._exchange = Exchange(self._markets, limits=Limits(connection_age=None))
        self._follower: Follower
        self._stack = ExitStack()

    def __enter__(self) -> Trial:
        kafka, manifest, api = self._stage.kafka, self._manifest, self._stage.api
        for topic in {manifest.resource(right) for right in (*LEAST, CHECKPOINT)}:
            kafka.create_topic(topic)
        for kind, resource, pattern, operation in granted():
            kafka.grant(manifest.user, resource, operation, kind=kind, pattern=pattern)
        with ExitStack() as stack:
            for topic in tuple(kafka.created):
                stack.callback(kafka.delete_topic, topic)
            stack.enter_context(self._exchange)
            self._follower = Follower(kafka.bootstrap_servers, [self._topic])
            stack.callback(self._follower.close)
            self._stage.kubelet.overriding = {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.sasl_bootstrap_servers,
                "BINANCE_WS_URL": self._exchange.ws_url,
                "BINANCE_REST_URL": self._exchange.rest_url,
            }
            api.create("/api/v1/namespaces", {"metadata": {"name": self._namespace, "labels": _RESTRICTED}})
            for secret in manifest.secrets({"password": self._password, "ca.crt": kafka.ca_path.read_text()}):
                api.create(f"/api/v1/namespaces/{self._namespace}/secrets", secret)
            stack.callback(self._end_pods)
            api.apply(self._jobs, manifest.text)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if isinstance(error, AssertionError):
                self.outcome.broken += [str(error), *self._warnings()]
            if error is None or isinstance(error, AssertionError):
                self._judge()

    # -- what a scenario does

    def let_load(self, more: int = 300) -> None:
        """Wait until the topic has what the exchange has issued by now, and `more` trades of each pair after that."""
        for market in self._loaded:
            last = market.last_id
            self._goals[market.symbol] = (market.first_id - 1 if last is None else last) + more
        goals = set(self._goals.values())
        self._wait(lambda: goals <= self._follower.arrivals.keys() or self._is_over(), f"{more} more trades")
        assert goals <= self._follower.arrivals.keys(), "the Job is over before its time"
        judge_shares(self.outcome, [life for life in self._lives if not life.over], self._manifest)

    def evict(self, index: int = 0) -> None:
        """Have the API server evict a pod, as a drain of its node does."""
        life = self._running(index)
        name = {"name": life.name, "namespace": self._namespace}
        self._stage.api.create(f"{life.path}/eviction", {"metadata": name})
        self._wait(lambda: life.over, f"{life.name} to end")

    def crash(self, index: int = 0) -> None:
        """Kill a pod's process."""
        life = self._running(index)
        life.kill()
        self._wait(lambda: life.over, f"{life.name} to end")

    def hang(self, index: int = 0) -> None:
        """Hold a pod's process, after its probe has found it well, until the kubelet has given it up."""
        life = self._running(index)
        self._wait(lambda: life.liveness.answers, "a first probe")
        assert life.liveness.answers == [200], f"the liveness probe was answered with {life.liveness.answers}"
        life.freeze()
        self._wait(lambda: life.over, f"{life.name} to end", _FOR_PROBES)

    @contextmanager
    def hanging_kafka(self) -> Iterator[None]:
        """Hold the broker while the block lasts."""
        for node in self._stage.kafka.nodes:
            node.freeze()
        try:
            yield
        finally:
            for node in self._stage.kafka.nodes:
                node.thaw()

    def stop(self) -> None:
        """Write the stop command."""
        command = {"command": "stop", "queue_id": self._manifest.setting("QUEUE_ID")}
        topic = self._manifest.setting("QUEUE_CONTROL_TOPIC")
        write_topic(self._stage.kafka.bootstrap_servers, topic, json.dumps(command).encode())

    def let_end(self, index: int) -> None:
        """Wait until the first pod of an index has ended."""
        self._wait(lambda: [life for life in self._lives if life.index == index and life.over], "a pod to end")

    def let_finish(self) -> None:
        """Wait until the Job is over."""
        self._wait(self._is_over, "the Job to be over")

    # -- what came of it

    @property
    def _topic(self) -> str:
        return self._manifest.setting("KAFKA_TOPIC")

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._namespace}/jobs"

    @property
    def _lives(self) -> list[Life]:
        return self._stage.kubelet.lives(self._namespace)

    def _running(self, index: int) -> Life:
        [life] = [life for life in self._lives if life.index == index and not life.over]
        return life

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._stage.api.get(f"{self._jobs}/{self._manifest.name}")["status"]
        return found

    def _is_over(self) -> bool:
        return bool(condition(self._status()))

    def _wait(self, until: Callable[[], object], what: str, seconds: float = _PATIENCE) -> None:
        # Asking for the pods tells of a kubelet that has died.
        wait_for(lambda: (self._lives, until())[1], what, seconds)

    def _judge(self) -> None:
        judge_job(self.outcome, self._status(), self._lives, self._manifest.indexes)
        judge_logs(self.outcome, self._lives, self._password)
        records = read_topic(self._stage.kafka.bootstrap_servers, self._topic)
        judge_topic(self.outcome, records, self._loaded, self._goals)

    def _warnings(self) -> list[str]:
        """Return what the controller could not do, as to make a pod that is not allowed: the last of each kind."""
        events = self._stage.api.items(f"/api/v1/namespaces/{self._namespace}/events")
        return list({event["reason"]: str(event["message"]) for event in events if event["type"] == "Warning"}.values())

    def _end_pods(self) -> None:
        api, at_once = self._stage.api, {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        api.delete(f"{self._jobs}/{self._manifest.name}", **at_once)
        api.delete(f"/api/v1/namespaces/{self._namespace}/pods", **at_once)
        for life in self._lives:
            life.kill()
        wait_for(lambda: all(life.over for life in self._lives), "the pods to end", _PATIENCE)
