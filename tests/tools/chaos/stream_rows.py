"""Rows 27 to 29: subscriptions that are alive but silent, shutdowns announced without end, and two connections."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from loader_ws_trades.sandbox import (
    Cut,
    Delay,
    Exchange,
    Fault,
    Freeze,
    HalfOpen,
    Market,
    RestCut,
    RestLag,
    RestStatus,
    ServerShutdown,
    Shuffle,
    Skip,
)
from tests.tools.chaos.exchange_rows import REPAIR, Row, row_scenario
from tests.tools.chaos.exchange_scripts import QUIET, quiet_market
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.chaos.trial import Trial
from tests.tools.waiting import wait_for

TICKER, HISTORICAL = "/api/v3/ticker/24hr", f"/api/v3/{REPAIR}"
INTERVAL = 3  # seconds without a trade, after which REST is asked
CHECKED = {"STREAM_CHECK_INTERVAL": str(INTERVAL)}
SILENT, SPEAKS = "No trade from the stream for", "Trades from the stream again"
SILENCE = Freeze(connection=1, after=300, pings=True)
TWO = {"FEED_CONNECTIONS": "2"}


def _noticed_once(trial: Trial) -> None:
    counters = trial.exchange.counters
    assert trial.log.count(SILENT) == 1, "silence was not noticed once"
    assert counters.connections == 2, f"{counters.connections} connections"
    _check_weight(trial)


def _check_weight(trial: Trial) -> None:
    """A check costs a weight of 2, and there is one an interval."""
    times = [request.at for request in trial.exchange.counters.history if request.path == TICKER]
    assert times, "REST was not asked"
    assert all(later - sooner > 0.9 * INTERVAL for sooner, later in pairwise(times)), "more than one check an interval"


def _no_repair(trial: Trial) -> None:
    asked = trial.exchange.counters.requests[HISTORICAL]
    assert not asked, f"{asked} requests for what the other connection brings"


def _one_replaced(trial: Trial) -> None:
    _no_repair(trial)
    assert trial.log.count("One of the connections brought no trades") == 1, "the silence of one was not noticed"
    assert trial.exchange.counters.connections == 3, f"{trial.exchange.counters.connections} connections"


# From when both connections are open: with one a gap is repaired after 0.25 s.
LATE_AND_LOSSY = (Delay(0.3, connection=2), *(Skip(10, connection=1, after=after) for after in range(1000, 4000, 100)))
REORDERED = tuple(Shuffle(2000, window=20, seed=number, connection=number, after=1000) for number in (1, 2))
ROWS = [
    *(
        Row(f"27 alive but silent{title}", (*faults, SILENCE), CHECKED, rate=200, seen_within=seen, also=_noticed_once)
        for title, faults, seen in (
            ("", (), 30.0),
            (", REST lags by 5 s", (RestLag(5.0),), 30.0),
            (", REST away for 30 s", (RestCut(after=290, lasting=30),), 60.0),
            (", no repair for 30 s", (RestStatus(503, after=290, lasting=30, path=REPAIR),), 30.0),
        )
    ),
    *(
        Row(f"29 {title}", faults, TWO, rate=500, also=_no_repair)
        for title, faults in (
            ("cut of one, then of the other", (Cut(connection=1, after=1000), Cut(connection=2, after=2000))),
            ("one stalls for 3 s", (Freeze(connection=1, after=1000, lasting=3),)),
            ("one stalls within a frame", (HalfOpen(connection=2, after=1000, lasting=3),)),
            ("one is late by 300 ms, the other loses a tenth", LATE_AND_LOSSY),
            ("one is late by 300 ms with a tenth", (Delay(0.3, share=10, overtaking=True, connection=1, after=1000),)),
            ("both reordered", REORDERED),
        )
    ),
    # 18 s of silence, in 40 s.
    Row("29 one falls silent", (SILENCE,), TWO | CHECKED, rate=100, also=_one_replaced),
    Row("29 cut of both", (Cut(after=1500),), TWO, rate=500, recovered_within=3),
    Row("29 rotation of both", (), TWO | {"MAX_CONNECTION_AGE": "2"}, rate=500, overlaps=True),
]


def quiet_pair(stage: Stage) -> None:
    """REST is asked again and again, and nothing else happens."""
    with stage.trial(market=quiet_market()) as trial:
        trial.start(**CHECKED)
        trial.let_issue(QUIET)
        counters = trial.exchange.counters
        wait_for(lambda: counters.requests[TICKER] >= 8, "8 stream checks", 60)
        assert counters.connections == 1, "a false alarm"
        assert SILENT not in trial.log, "a false alarm"
        _no_repair(trial)
        trial.let_load(0)
        trial.stop()
        _check_weight(trial)


def still_silent(stage: Stage) -> None:
    """The replacements are silent too, for a minute: REST carries the pair, and they come more and more rarely."""
    later = Freeze(connection=2, each=True, until=60.0, pings=True)
    with stage.trial(rate=100, faults=[SILENCE, later], ping_interval=5.0) as trial:
        loader = trial.start(**CHECKED, TELEMETRY_INTERVAL="5")
        loader.wait_for_line(SILENT, 60)
        trial.let_load(500)
        loader.wait_for_line(SPEAKS, 180)
        assert trial.log.count(SPEAKS) == 1, "it took a silent stream for one that speaks"
        trial.let_load(500)
        trial.stop()
        opened = [session.opened for session in trial.exchange.counters.sessions]
        pauses = [new - old for old, new in pairwise(opened[1:])]
        trial.outcome.remark = f"{len(pauses)} further replacements, {min(pauses):.0f} to {max(pauses):.0f} s apart"
        assert min(pauses) > 0.9 * INTERVAL, "more than one connection replaced an interval"
        messages = [event["message"] for event in trial.workflow.events()]
        assert any("silent" in message for message in messages), "telemetry does not say that the stream is silent"
        _check_weight(trial)


def foreign_rest(stage: Stage) -> None:
    """REST belongs to another exchange, whose ids are far ahead: nothing is fetched, replaced or skipped."""
    other = Market.generated("POLUSDT", rate=100, first_id=10**12)
    silence = Freeze(connection=1, after=300, lasting=30, pings=True)
    with Exchange([other]) as elsewhere, stage.trial(rate=200, faults=[silence]) as trial:
        trial.start(**CHECKED, BINANCE_REST_URL=elsewhere.rest_url).wait_for_line("more than RESUME_LIMIT", 60)
        trial.let_load(500)
        trial.stop()
        trial.struck_with(silence.after or 0)
        assert trial.exchange.counters.connections == 1, "replaced for another exchange's trades"
        assert not elsewhere.counters.requests[HISTORICAL], "another exchange's trades were asked for"


def storm(stage: Stage, fault: Fault) -> None:
    """Play a fault that strikes each connection for 100 s: attempts stay few, and none waits for the limit."""
    with stage.trial(rate=100, faults=[fault], ping_interval=5.0) as trial:
        trial.start()
        trial.let_load(500)
        with trial.fault():
            trial.let_pass(100)
            trial.exchange.heal()
        trial.let_load(500)
        trial.stop()
        trial.check_events()
        counters = trial.exchange.counters
        attempts = counters.most_attempts(300)
        trial.outcome.remark = f"{attempts} connection attempts in 100 s"
        assert attempts < 30, f"{attempts} connection attempts"
        assert not counters.refused, f"{counters.refused} attempts beyond the exchange's limit"
        ends = [new.opened - (old.closed or new.opened) for old, new in pairwise(counters.sessions)]
        # The delay between two attempts is 30 s at most.
        assert max(ends) < 35, f"{max(ends):.0f} s without a connection"


STORMS: dict[str, Fault] = {
    "every connection announces its shutdown, and is closed after 20 s": ServerShutdown(
        lead=20.0, connection=1, each=True
    ),
    "every connection ends after five trades": Cut(connection=1, each=True, after=5),
}
_scenario = partial(Scenario, alone=False, anywhere=True)
SCENARIOS = [
    _scenario(27, "still silent after the replacement", still_silent),
    _scenario(27, "a quiet pair", quiet_pair),
    _scenario(27, "REST of another exchange", foreign_rest),
    *(_scenario(28, title, partial(storm, fault=fault)) for title, fault in STORMS.items()),
    *(row_scenario(row) for row in ROWS),
]
