"""Rows 30 and 31: many pairs in one process, and what happens to one of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from loader_ws_trades.sandbox import Cut, Delist, List, Market, RestStatus, Silent, Skip, crowd
from tests.tools.chaos.exchange_rows import REPAIR
from tests.tools.chaos.outage_rows import broker_down
from tests.tools.chaos.process_rows import killed
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.chaos.trial import Trial
from tests.tools.loader import check_events
from tests.tools.waiting import wait_for

_PAIRS = 20
_TRANSACTIONAL = {"DELIVERY": "transactional"}
_NEW = "NEWUSDT"


def _markets(stage: Stage) -> list[Market]:
    """Every tenth of the 200 most active pairs: from 250 trades a second to one in two."""
    return crowd(1600, 3000.0, seed=stage.seed, start="subscriber")[: 10 * _PAIRS : 10]


def _check_events(trial: Trial) -> None:
    """Check the events of pairs that were stopped by command, in a trial of one loader."""
    events = trial.workflow.events()
    for market in trial.markets:
        own = [event for event in events if event["symbol"] == market.symbol]
        check_events(own, trial.workflow, "interrupted", market.symbol)


def cut_skipped_rejected(stage: Stage, **settings: str) -> None:
    """Cuts, ids that the stream skips in half of the pairs, and a REST that rejects requests meanwhile."""
    with stage.trial(markets=_markets(stage)) as trial:
        trial.start(**settings)
        trial.let_load(1000)
        for _ in range(4):
            skips = [Skip(7, symbol=market.symbol) for market in trial.markets[::2]]
            with trial.fault():
                trial.exchange.inflict(RestStatus(429, retry_after=2, times=2, path=REPAIR), *skips)
                trial.let_load(300)
                trial.exchange.inflict(Cut(1001), *skips)
            trial.let_load(300)
        trial.stop()
        _check_events(trial)
    _is_fair(trial)


def _is_fair(trial: Trial) -> None:
    counters = trial.exchange.counters
    with trial.promise():
        assert len(counters.attempts) < 20, "a storm of connections"
        assert counters.requests.total() < 300, "a storm of requests"


def broker_restarted(stage: Stage, **settings: str) -> None:
    with stage.trial(markets=_markets(stage)) as trial:
        trial.start(**settings)
        trial.let_load(1000)
        with trial.fault(), broker_down(stage.cluster):
            trial.let_pass(5)
        trial.let_load(500)
        trial.stop()
        _check_events(trial)


def come_and_gone(stage: Stage, **settings: str) -> None:
    """With a pattern: one pair is listed, one vanishes, one stops trading, and one falls silent among live ones."""
    # One of twenty: a look-up that lost more than a tenth of the pairs is not believed.
    markets = _markets(stage)
    with stage.trial(markets=markets) as trial:
        trial.start(**({"SYMBOLS": "*", "SYMBOLS_REFRESH": "5", "STREAM_CHECK_INTERVAL": "5"} | settings))
        trial.let_load(500)
        _, gone, broken, silent, *_ = markets
        trial.exchange.inflict(
            List(symbol=_NEW, rate=50),
            Delist(symbol=gone.symbol),
            Delist(symbol=broken.symbol, status="BREAK"),
            Silent(symbol=silent.symbol),
        )
        listed = trial.exchange.markets[-1]
        with trial.fault():
            wait_for(lambda: trial.on_topic(listed.first_id), "the first trade of the pair that was listed", 60)
            trial.markets.append(listed)
            trial.let_load(500, 120)
            wait_for(lambda: _last(trial, gone)["finished"], "the end of the pair that vanished", 60)
        assert _last(trial, gone)["status"] == "finished"
        assert not any(_last(trial, market)["finished"] for market in [*trial.markets] if market is not gone)
        trial.let_load(500)
        trial.stop()


def _last(trial: Trial, market: Market) -> dict[str, object]:
    return [event for event in trial.workflow.events() if event["symbol"] == market.symbol][-1]


def topic_missing(stage: Stage, **settings: str) -> None:
    """Each pair has a topic, but for one: that one ends, the others go on."""
    markets = _markets(stage)[:5]
    with stage.trial(markets=markets, topic_each=True, faults=[List(symbol=_NEW)]) as trial:
        names = [_NEW, *(market.symbol for market in markets)]
        loader = trial.start(SYMBOLS=",".join(names), **settings)
        trial.let_load(1000)
        [*_, last] = [event for event in trial.workflow.events() if event["symbol"] == _NEW]
        assert (last["status"], last["finished"]) == ("error", True), last
        assert loader.process.poll() is None
        trial.stop()
        _check_events(trial)


def unknown_pairs(stage: Stage) -> None:
    """Unknown pairs in a list end the start with 2, and all of them are named at once."""
    with stage.trial(markets=_markets(stage)[:2]) as trial:
        names = [*(market.symbol for market in trial.markets), "NOSUCHUSDT", "NOTHISUSDT"]
        loader = trial.start(SYMBOLS=",".join(names))
        assert loader.wait(30) == 2, trial.last_words()
        assert re.search("NOSUCHUSDT.*NOTHISUSDT", trial.log), trial.last_words()
        assert not trial.loaded


def _both(row: int, title: str, play: Callable[..., None], *, alone: bool) -> list[Scenario]:
    return [
        Scenario(row, title, play, alone=alone),
        Scenario(row, f"{title}; transactional", partial(play, **_TRANSACTIONAL), alone=alone),
    ]


SCENARIOS = [
    *_both(30, f"{_PAIRS} pairs: cuts, skipped ids, REST 429", cut_skipped_rejected, alone=False),
    *_both(30, f"{_PAIRS} pairs: kill -9, 6 times", partial(killed, lives=6, markets=_markets), alone=False),
    *_both(30, f"{_PAIRS} pairs: broker restarted", broker_restarted, alone=True),
    *_both(31, "pairs listed, delisted, halted and silent among live ones", come_and_gone, alone=False),
    *_both(31, "a topic missing among several", topic_missing, alone=False),
    Scenario(31, "unknown pairs", unknown_pairs, alone=False),
]
