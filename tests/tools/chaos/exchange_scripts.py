"""Scripted rows about the exchange: a quiet pair, REST that stays away, a name that does not resolve, id resets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from loader_ws_trades.sandbox import (
    Fault,
    HandshakeStatus,
    IdReset,
    Market,
    Replay,
    RestCut,
    RestDrip,
    RestOtherRows,
    RestStatus,
    Skip,
)
from tests.tools.chaos.exchange_rows import REPAIR, RESET_LINE
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.waiting import wait_for

QUIET = 200  # trades, after which a quiet pair has no more


def quiet_market() -> Market:
    """A market that stops after a few trades."""
    return Market.generated("POLUSDT", rate=1000, count=QUIET, start="subscriber")


def quiet_pair(stage: Stage, pings: int = 4, settings: Mapping[str, str] | None = None, **options: Any) -> None:
    """Four pings come 20 s apart: 80 s without a trade, where 60 s without any frame is the limit."""
    with stage.trial(market=quiet_market(), **options) as trial:
        trial.start(**settings or {})
        trial.let_issue(QUIET)
        wait_for(lambda: trial.exchange.counters.pings >= pings, f"{pings} pings", 150)
        assert trial.exchange.counters.connections == 1, "a false alarm"
        trial.let_load(0)
        trial.stop()
        trial.check_events()


REST_SKIPS = (Skip(5, after=200), Skip(1, after=400))
_LASTING = 600.0
_FIRST_ID = Market.generated().first_id
USELESS_REST: dict[str, Fault] = {
    "REST 451 for good": RestStatus(451, lasting=_LASTING),
    "REST away for good": RestCut(lasting=_LASTING),
    "a ban beyond the limit": RestStatus(418, retry_after=120, lasting=_LASTING),
    "REST's head drips": RestDrip(lasting=_LASTING),
    "REST's body drips": RestDrip(body=True, lasting=_LASTING),
    "REST has rows of low ids": RestOtherRows(1, lasting=_LASTING),
    # An answer has 1,000 rows at most: neither these nor those reach what is asked for.
    "REST has rows of ids that passed": RestOtherRows(_FIRST_ID - 850, lasting=_LASTING),
    "REST has rows of ids to come": RestOtherRows(_FIRST_ID + 401, lasting=_LASTING),
    "REST has rows of high ids": RestOtherRows(10**12, lasting=_LASTING),
}


def rest_stays_away(stage: Stage, fault: Fault) -> None:
    """Trades are skipped while REST does not give them: they are named, and the stream goes on."""
    with stage.trial(rate=200, faults=(RestStatus(503, times=1), *REST_SKIPS)) as trial:
        trial.start(REPAIR_DEADLINE="2", REPAIR_OUTAGE_LIMIT="2", RESUME="off")
        wait_for(lambda: "Connected" in trial.log, "the connection")
        trial.exchange.inflict(fault)
        trial.let_issue(1500)
        trial.excused = {trial_id for skip in REST_SKIPS for trial_id in _ids_of(trial.market, skip)}
        trial.let_load(100)
        trial.stop()
        trial.struck_with(REST_SKIPS[0].after or 0)
        missing = [trade_id for trade_id in trial.excused if not trial.on_topic(trade_id)]
        assert len(missing) == 6, f"{len(missing)} missing"
        assert trial.exchange.counters.requests.total() < 25, "a storm of requests"
        assert RESET_LINE not in trial.log, "a false id reset"


def _ids_of(market: Market, skip: Skip) -> list[int]:
    return market.ids(skip.after or 0, (skip.after or 0) + skip.count)


def no_name(stage: Stage) -> None:
    with stage.trial() as trial:
        trial.struck_now()
        lost = trial.start(BINANCE_WS_URL="ws://no-such-name.invalid/ws", FEED_OUTAGE_LIMIT="8")
        assert lost.wait(60) == 1, lost.errors
        assert 2 <= lost.errors.count("reconnecting in") < 20, "a storm of attempts"
        trial.start()
        trial.let_load(500)
        trial.stop()


# The exchange does not pause. No id occurs in both sequences, so that a duplicate can be recognized.
RESETS = {
    "ids restart from a low number": IdReset(1, after=300),
    "ids restart close to the old ones": IdReset(4_990_500, after=300),
}


def ids_reset(stage: Stage, reset: IdReset) -> None:
    market = Market.generated("POLUSDT", rate=200, start="subscriber", first_id=5_000_000)
    with stage.trial(market=market, faults=[reset]) as trial:
        loader = trial.start()
        loader.wait_for_line(RESET_LINE)
        wait_for(lambda: trial.on_topic(reset.first_id + 500), "trades of the new sequence")
        trial.let_load(100)
        trial.stop()
        trial.struck_with(reset.after or 0)
        assert trial.log.count(RESET_LINE) == 1, "more than one reset"
        assert trial.exchange.counters.requests["/api/v3/historicalTrades"] < 5, "endless repair"


def named_by_rest(stage: Stage) -> None:
    """A connection begins with trades that REST named as its newest and did not return: none of them is given up."""
    with stage.trial(rate=300) as trial:
        first = trial.start()
        trial.let_load(500)
        first.process.terminate()
        assert first.wait(25) == 143, trial.last_words()
        trial.exchange.inflict(
            HandshakeStatus(429, retry_after=5), RestCut(path=REPAIR, lasting=_LASTING), Replay(5000)
        )
        trial.let_pass(1)
        trial.start(REPAIR_OUTAGE_LIMIT="1").wait_for_line("as its newest trade id")
        trial.let_load(500)
        trial.stop()
        assert RESET_LINE not in trial.log, "a false id reset"


_scenario = partial(Scenario, alone=False, anywhere=True)
SCENARIOS = [
    _scenario(3, "a quiet pair whose pings come", quiet_pair),
    *(_scenario(10, title, partial(rest_stays_away, fault=fault)) for title, fault in USELESS_REST.items()),
    _scenario(11, "the name does not resolve", no_name),
    *(_scenario(26, title, partial(ids_reset, reset=reset)) for title, reset in RESETS.items()),
    _scenario(26, "trades that REST only named come after all", named_by_rest),
]
