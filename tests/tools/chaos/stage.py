"""Where scenarios are played: the brokers, and the place where the lines of the table come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loader_ws_trades.sandbox import EmbeddedBroker, Market
from tests.tools.apache_kafka import Cluster, Kafka
from tests.tools.chaos.outcome import Outcome
from tests.tools.chaos.trial import Trial


@dataclass(frozen=True)
class Scenario:
    """What is played for a row, or for a part of one."""

    row: int
    title: str
    play: Callable[[Stage], None]
    alone: bool = True
    """Whether nothing else may be played meanwhile: it does something to the brokers, or is a heavy load."""
    anywhere: bool = False
    """Whether the embedded broker will do without Apache Kafka: nothing is claimed about duplicates."""


@dataclass(frozen=True)
class Brokers:
    """What a machine has: one real broker and a folder for more of them, or an embedded one and the reason why."""

    real: Kafka | None
    embedded: EmbeddedBroker | None
    missing: str
    directory: Path


class Stage:
    """The brokers for one scenario, and the lines that it has made so far."""

    def __init__(self, scenario: Scenario, brokers: Brokers, seed: int) -> None:
        self.seed = seed
        self.outcomes: list[Outcome] = []
        self._scenario = scenario
        self._brokers = brokers

    @property
    def cluster(self) -> Cluster:
        """The real broker; only for scenarios that are not for anywhere."""
        assert isinstance(self._brokers.real, Cluster)
        return self._brokers.real

    def three_brokers(self) -> AbstractContextManager[Cluster]:
        """Make a cluster of three brokers."""
        return Cluster(self._brokers.directory / "three", nodes=3)

    def trial(
        self,
        title: str | None = None,
        *,
        rate: float = 1500,
        market: Market | None = None,
        markets: Sequence[Market] = (),
        kafka: Kafka | None = None,
        create_topic: Callable[[str], object] | None = None,
        **options: Any,
    ) -> Trial:
        """Make one line of the table: a market at `rate` trades a second, if no other is given; see `Trial`.

        Args:
            title: of the line; by default that of the scenario.
            rate: of the market's trades.
            market: another one.
            markets: several of them.
            kafka: other brokers.
            create_topic: another way to make a topic on them.
            options: more for the trial.
        """
        broker: Kafka | EmbeddedBroker | None = kafka or self._brokers.real or self._brokers.embedded
        assert broker is not None
        make = broker.create_topics if isinstance(broker, EmbeddedBroker) else broker.create_topic
        market = market or Market.generated("POLUSDT", rate=rate, seed=self.seed, start="subscriber")
        name = f"{self._scenario.row} {title or self._scenario.title}"
        trial = Trial(name, broker.bootstrap_servers, create_topic or make, *(markets or [market]), **options)
        self.outcomes.append(trial.outcome)
        return trial

    def line(self) -> Outcome:
        """Make one line of the table that no trial makes."""
        self.outcomes.append(Outcome(self._scenario.row, self._scenario.title))
        return self.outcomes[-1]

    def not_run(self, why: str) -> None:
        """Say that the scenario cannot be played."""
        self.line().not_run = why

    def play(self) -> list[Outcome]:
        """Play the scenario, whatever comes of it; its lines."""
        scenario = self._scenario
        if self._brokers.real is None and not scenario.anywhere:
            self.not_run(self._brokers.missing)
            return self.outcomes
        try:
            scenario.play(self)
        except Exception as error:  # whatever it is, the other rows are still to be played
            # A trial keeps what its own block ended with.
            if not any(outcome.broken for outcome in self.outcomes):
                fault = f"{type(error).__name__}: {error}"
                self.outcomes.append(Outcome(scenario.row, scenario.title, broken=[fault]))
        return self.outcomes
