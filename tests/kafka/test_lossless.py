"""Rows 1 to 11 and 26 of the fault matrix: whatever the exchange does, each trade once and in order, or named.

The rows and what is checked are in `tests/tools/chaos`; here are those that take seconds. The embedded broker serves
where nothing is claimed about "once"; Apache Kafka where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Limits, Market, Random
from tests.tools.apache_kafka import Kafka
from tests.tools.chaos.exchange_rows import ONCE, QUICKLY_FROZEN, ROWS, Row, live_through
from tests.tools.chaos.exchange_scripts import (
    RESETS,
    USELESS_REST,
    WITHOUT_REST,
    begin_anew,
    quiet_market,
    repeat_what_was_given_up,
    reset_market,
    stay_quiet,
    stay_without_rest,
)
from tests.tools.chaos.outcome import Outcome
from tests.tools.chaos.trial import Trial

QUICK = [QUICKLY_FROZEN, *ROWS]
_AT_ONCE = 6


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


def on(broker: EmbeddedBroker | Kafka, row: Row) -> Outcome:
    """What comes of a row on a broker."""
    create_topic = broker.create_topics if isinstance(broker, EmbeddedBroker) else broker.create_topic
    market = Market.generated("POLUSDT", rate=row.rate, start="subscriber")
    trial = Trial(row.name, broker.bootstrap_servers, create_topic, market, faults=row.faults)
    live_through(row, trial)
    return trial.outcome


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Future[Outcome]]:
    """What became of each of `QUICK`."""

    def live(row: Row) -> Outcome:
        with EmbeddedBroker() as broker:
            return on(broker, row)

    return several_at_once(live, QUICK)


@pytest.fixture(scope="module")
def outcomes_once(kafka: Kafka) -> dict[str, Future[Outcome]]:
    """What became of each of `ONCE`."""
    return several_at_once(lambda row: on(kafka, row), ONCE)


def several_at_once(live: Callable[[Row], Outcome], rows: list[Row]) -> dict[str, Future[Outcome]]:
    """Live through all rows, a few at a time: they spend their time waiting."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {row.name: pool.submit(live, row) for row in rows}


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name)
def test_nothing_is_lost_by_a_fault(outcomes: dict[str, Future[Outcome]], row: Row) -> None:
    outcomes[row.name].result().check()


@pytest.mark.parametrize("row", ONCE, ids=lambda row: row.name)
def test_nothing_comes_twice_or_out_of_order(outcomes_once: dict[str, Future[Outcome]], row: Row) -> None:
    outcomes_once[row.name].result().check()


def trial_on(broker: EmbeddedBroker, name: str, market: Market, **options: object) -> Trial:
    return Trial(name, broker.bootstrap_servers, broker.create_topics, market, **options)  # type: ignore[arg-type]


def test_a_quiet_pair_whose_pings_come_is_left_alone(embedded: EmbeddedBroker) -> None:
    limits = Limits(client_frames=None)
    trial = trial_on(embedded, "3 a quiet pair", quiet_market(), ping_interval=0.3, limits=limits)
    stay_quiet(trial, pings=13, FEED_SILENCE_LIMIT="1")
    trial.outcome.check()


@pytest.mark.parametrize("title", RESETS)
def test_ids_that_begin_anew_are_a_new_sequence(embedded: EmbeddedBroker, title: str) -> None:
    trial = trial_on(embedded, f"26 {title}", reset_market(), faults=[RESETS[title]])
    begin_anew(trial, RESETS[title])
    trial.outcome.check()


def test_trades_that_come_after_they_were_given_up_are_no_reset(embedded: EmbeddedBroker) -> None:
    market = Market.generated("POLUSDT", rate=300, start="subscriber")
    trial = trial_on(embedded, "26 given up and late", market)
    repeat_what_was_given_up(trial)
    trial.outcome.check()


@pytest.fixture(scope="module")
def outcomes_without_rest() -> dict[str, Future[Outcome]]:
    """What became of each of `USELESS_REST`."""

    def live(title: str) -> Outcome:
        market = Market.generated("POLUSDT", rate=200, start="subscriber")
        with EmbeddedBroker() as broker:
            trial = trial_on(broker, f"10 {title}", market, faults=WITHOUT_REST)
            stay_without_rest(trial, USELESS_REST[title])
        return trial.outcome

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {title: pool.submit(live, title) for title in USELESS_REST}


@pytest.mark.parametrize("title", USELESS_REST)
def test_where_rest_is_of_no_use_the_stream_goes_on_and_the_gaps_are_named(
    outcomes_without_rest: dict[str, Future[Outcome]], title: str
) -> None:
    outcomes_without_rest[title].result().check()


def test_random_faults_of_all_kinds_one_after_another(kafka: Kafka, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--seed")
    kinds = ("cut", "skip", "duplicate", "shuffle", "replay", "server-shutdown", "rest-status", "rest-lag", "malformed")
    market = Market.generated("POLUSDT", rate=2000, seed=seed, start="subscriber")
    limits = Limits(connection_attempts=None)
    name = f"0 seed {seed}"
    with Trial(name, kafka.bootstrap_servers, kafka.create_topic, market, limits=limits) as trial:
        trial.start(MAX_CONNECTION_AGE="7")
        # Not before: a loader cannot know of trades that were skipped before the first one that it saw.
        trial.let_load(500)
        trial.exchange.inflict(Random(seed=seed, every=1.5, kinds=kinds))
        trial.let_issue(50_000, 120)
        trial.exchange.heal()
        trial.let_load(500)
        trial.stop()
        trial.check_events()
    trial.outcome.check()
    assert len(trial.exchange.struck) > 8
