"""A quick selection of the fault matrix: whatever the exchange does, every trade once and in order, or named.

`make chaos` runs all rows. Those that claim nothing about duplicates run on the embedded broker here, the others on
Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Limits, Random
from tests.tools.apache_kafka import Kafka
from tests.tools.chaos import exchange_rows, exchange_scripts
from tests.tools.chaos.exchange_rows import ONCE, QUICKLY_FROZEN, row_scenario
from tests.tools.chaos.stage import Brokers, Scenario, Stage

QUIETLY = partial(
    exchange_scripts.quiet_pair,
    pings=13,
    settings={"FEED_SILENCE_LIMIT": "1"},
    ping_interval=0.3,
    limits=Limits(client_frames=None),
)
QUICK = {
    "1 cut within a frame",
    "4 shutdown announced",
    "4 maximum age",
    "5 malformed frames",
    "8 ids skipped on the stream",
    "9 a true hole, and every 2nd request fails",
    "10 REST 429",
    "10 REST away for good",
    "10 REST's body drips",
    "10 REST has rows of ids that passed",
    "11 handshake 429",
    "26 ids restart from a low number",
    "26 ids restart close to the old ones",
    "26 trades that REST only named come after all",
}
MATRIX = [*exchange_rows.SCENARIOS, *exchange_scripts.SCENARIOS]
SCENARIOS = {name: each for each in MATRIX if (name := f"{each.row} {each.title}") in QUICK}
assert SCENARIOS.keys() == QUICK
SCENARIOS["3 nothing comes"] = row_scenario(QUICKLY_FROZEN)
SCENARIOS["3 a quiet pair"] = Scenario(3, "a quiet pair", QUIETLY, anywhere=True)
_AT_ONCE = 6


def play(scenario: Scenario, broker: EmbeddedBroker | Kafka, seed: int = 1) -> None:
    """Fail unless a scenario has one line, which passed."""
    real, embedded = (None, broker) if isinstance(broker, EmbeddedBroker) else (broker, None)
    [outcome] = Stage(scenario, Brokers(real, embedded, "", Path()), seed).play()
    outcome.check()


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Mapping[str, Future[None]]:
    """The selected scenarios, each with a broker of its own; several at once, as they mostly wait."""

    def alone(scenario: Scenario) -> None:
        with EmbeddedBroker() as broker:
            play(scenario, broker)

    selected = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {name: pool.submit(alone, scenario) for name, scenario in SCENARIOS.items() if name in selected}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_trade_is_lost_by_a_fault_of_the_exchange(played: Mapping[str, Future[None]], name: str) -> None:
    played[name].result()


def test_no_trade_is_duplicated_by_replays_resets_and_shuffles(kafka: Kafka) -> None:
    play(row_scenario(ONCE[-1]), kafka)


def random_faults(stage: Stage) -> None:
    kinds = ("cut", "skip", "duplicate", "shuffle", "replay", "server-shutdown", "rest-status", "rest-lag", "malformed")
    with stage.trial(rate=2000, limits=Limits(connection_attempts=None)) as trial:
        trial.start(MAX_CONNECTION_AGE="7")
        # Not before: a loader cannot know of trades skipped before the first one it received.
        trial.let_load(500)
        trial.exchange.inflict(Random(seed=stage.seed, every=1.0, kinds=kinds))
        trial.let_strike(9)
        trial.exchange.heal()
        trial.let_load(500)
        trial.stop()
        trial.check_events()


def test_random_faults_of_all_kinds_one_after_another(kafka: Kafka, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    play(Scenario(0, f"seed {seed}", random_faults), kafka, seed)
