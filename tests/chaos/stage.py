"""Where scenarios are played: the brokers, and the place where the lines of the table come together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loader_ws_trades.sandbox import Market
from tests.apache_kafka import Cluster, Kafka
from tests.chaos.outcome import Outcome
from tests.chaos.trial import Trial


@dataclass(frozen=True)
class Scenario:
    """What is played for a row, or for a part of one."""

    row: int
    play: Callable[[Stage], None]
    alone: bool = True
    """Whether nothing else may be played meanwhile: it does something to the brokers, or is a heavy load."""


class Stage:
    """One real broker, more of them for a scenario that asks, and the lines that it has made so far."""

    def __init__(self, cluster: Cluster, directory: Path, seed: int) -> None:
        self.cluster = cluster
        self.seed = seed
        self.outcomes: list[Outcome] = []
        self._directory = directory

    def trial(
        self,
        name: str,
        *,
        rate: float = 1500,
        market: Market | None = None,
        kafka: Kafka | None = None,
        create_topic: Callable[[str], object] | None = None,
        **options: Any,
    ) -> Trial:
        """Make one line of the table: a market at `rate` trades a second, if no other is given; see `Trial`."""
        kafka = kafka or self.cluster
        market = market or Market.generated("POLUSDT", rate=rate, seed=self.seed, start="subscriber")
        trial = Trial(name, kafka.bootstrap_servers, create_topic or kafka.create_topic, market, **options)
        self.outcomes.append(trial.outcome)
        return trial

    def three_brokers(self) -> AbstractContextManager[Cluster]:
        """Make a cluster of three brokers."""
        return Cluster(self._directory / "three", nodes=3)
