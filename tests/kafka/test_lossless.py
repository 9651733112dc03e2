"""A quick selection of the fault matrix: whatever the exchange does, every trade once and in order, or named.

`make chaos` runs all rows; both use `tests/tools/chaos`. Rows that claim nothing about duplicates run on the embedded
broker, the others on Apache Kafka.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Limits, Market, Random
from tests.tools.apache_kafka import Kafka
from tests.tools.chaos.exchange_rows import ONCE, QUICKLY_FROZEN, RATE, ROWS, live_through
from tests.tools.chaos.exchange_scripts import (
    RESETS,
    USELESS_REST,
    WITHOUT_REST,
    load_through_reset,
    quiet_market,
    replay_what_rest_only_named,
    reset_market,
    stay_quiet,
    stay_without_rest,
)
from tests.tools.chaos.outcome import Outcome
from tests.tools.chaos.trial import Trial

QUICK = {
    "1 cut within a frame",
    "4 shutdown announced",
    "4 maximum age",
    "5 malformed frames",
    "8 ids skipped on the stream",
    "9 a true hole, and every 2nd request fails",
    "10 REST 429",
    "11 handshake 429",
}
QUICK_WITHOUT_REST = ("REST away for good", "REST's body drips", "REST has rows of ids that passed")
ALL_OF_IT = ONCE[-1]
_AT_ONCE = 6

Play = Callable[[EmbeddedBroker], Outcome]


def trial_on(broker: EmbeddedBroker | Kafka, name: str, market: Market | None = None, **options: object) -> Trial:
    create_topic = broker.create_topics if isinstance(broker, EmbeddedBroker) else broker.create_topic
    market = market or Market.generated("POLUSDT", rate=RATE, start="subscriber")
    return Trial(name, broker.bootstrap_servers, create_topic, market, **options)  # type: ignore[arg-type]


def scenarios() -> Mapping[str, Play]:
    def row(broker: EmbeddedBroker, index: int) -> Outcome:
        trial = trial_on(broker, rows[index].name, faults=rows[index].faults)
        live_through(rows[index], trial)
        return trial.outcome

    def quiet(broker: EmbeddedBroker) -> Outcome:
        limits = Limits(client_frames=None)
        trial = trial_on(broker, "3 a quiet pair", quiet_market(), ping_interval=0.3, limits=limits)
        stay_quiet(trial, pings=13, FEED_SILENCE_LIMIT="1")
        return trial.outcome

    def reset(broker: EmbeddedBroker, title: str) -> Outcome:
        trial = trial_on(broker, f"26 {title}", reset_market(), faults=[RESETS[title]])
        load_through_reset(trial, RESETS[title])
        return trial.outcome

    def named_by_rest(broker: EmbeddedBroker) -> Outcome:
        trial = trial_on(broker, "26 named by REST and late", Market.generated("POLUSDT", rate=300, start="subscriber"))
        replay_what_rest_only_named(trial)
        return trial.outcome

    def without_rest(broker: EmbeddedBroker, title: str) -> Outcome:
        market = Market.generated("POLUSDT", rate=200, start="subscriber")
        trial = trial_on(broker, f"10 {title}", market, faults=WITHOUT_REST)
        stay_without_rest(trial, USELESS_REST[title])
        return trial.outcome

    rows = [QUICKLY_FROZEN, *(row for row in ROWS if row.name in QUICK)]
    return {
        **{rows[index].name: partial(row, index=index) for index in range(len(rows))},
        "3 a quiet pair": quiet,
        **{f"10 {title}": partial(without_rest, title=title) for title in QUICK_WITHOUT_REST},
        **{f"26 {title}": partial(reset, title=title) for title in RESETS},
        "26 named by REST and late": named_by_rest,
    }


SCENARIOS = scenarios()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Mapping[str, Future[Outcome]]:
    """What came of the selected scenarios, each with a broker of its own; several at once, as they mostly wait."""

    def play(scenario: Play) -> Outcome:
        with EmbeddedBroker() as broker:
            return scenario(broker)

    selected = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {name: pool.submit(play, scenario) for name, scenario in SCENARIOS.items() if name in selected}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_trade_is_lost_by_a_fault_of_the_exchange(outcomes: Mapping[str, Future[Outcome]], name: str) -> None:
    outcomes[name].result().check()


def test_no_trade_is_duplicated_by_replays_resets_and_shuffles(kafka: Kafka) -> None:
    trial = trial_on(kafka, ALL_OF_IT.name, faults=ALL_OF_IT.faults)
    live_through(ALL_OF_IT, trial)
    trial.outcome.check()


def test_random_faults_of_all_kinds_one_after_another(kafka: Kafka, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    kinds = ("cut", "skip", "duplicate", "shuffle", "replay", "server-shutdown", "rest-status", "rest-lag", "malformed")
    market = Market.generated("POLUSDT", rate=2000, seed=seed, start="subscriber")
    with trial_on(kafka, f"0 seed {seed}", market, limits=Limits(connection_attempts=None)) as trial:
        trial.start(MAX_CONNECTION_AGE="7")
        # Not before: a loader cannot know of trades skipped before the first one it received.
        trial.let_load(500)
        trial.exchange.inflict(Random(seed=seed, every=1.0, kinds=kinds))
        trial.let_strike(9)
        trial.exchange.heal()
        trial.let_load(500)
        trial.stop()
        trial.check_events()
    trial.outcome.check()
