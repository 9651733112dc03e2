"""Rows about what a restart finds on the topic: records that are not trades, and a hole that was backfilled."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial

from loader_ws_trades.sandbox import Skip
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.chaos.trial import Trial

_DOWN = 1.0  # seconds between two loaders, in which the exchange goes on
_FILLED = Skip(20, after=1500)  # what the first loader lets go, and backfill brings


def _trade(**other: object) -> bytes:
    """A trade that happens now, with `other` fields; one that is None is left out."""
    fields: dict[str, object] = {"trade_id": 10**12, "price": 1.5, "quantity": 2.5, "is_buyer_maker": True}
    fields |= {"timestamp": time.time_ns() // 1_000_000, "symbol": "POLUSDT", **other}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def _bad_records() -> dict[str, bytes | None]:
    return {
        "no JSON": b"hello",
        "no object": b"[1]",
        "no trade_id": _trade(trade_id=None),
        "trade_id is a text": _trade(trade_id="7"),
        "another symbol": _trade(symbol="BTCUSDT"),
        "a tombstone": None,
    }


def _end_by_signal(trial: Trial) -> None:
    process = trial.loaders[-1]
    process.process.terminate()
    assert process.wait(25) == 143, trial.last_words()


def bad_records(stage: Stage, count: int) -> None:
    """Each kind of bad record is found by a restart of its own; the newest record of the topic is one of it."""
    with stage.trial() as trial:
        trial.start()
        for value in _bad_records().values():
            trial.let_load(1000)
            _end_by_signal(trial)
            trial.write(*[value] * count)
            trial.let_pass(_DOWN)
            trial.start()
        trial.let_load(1000)
        trial.stop()


def filled_in(stage: Stage, config: Mapping[str, str]) -> None:
    """A hole of the first loader is filled by `backfill`, so that old trades are the newest records."""
    create_topic = partial(stage.cluster.create_topic, config=config)
    with stage.trial(create_topic=create_topic, faults=[_FILLED]) as trial:
        trial.expected = {"out_of_order"}
        trial.start(GAP_REPAIR="off")
        trial.let_load(3000)
        _end_by_signal(trial)
        ids = trial.market.ids(_FILLED.after or 0, (_FILLED.after or 0) + _FILLED.count)
        trial.excused = set(ids)
        flags = ("--from-id", str(ids[0]), "--to-id", str(ids[-1]))
        backfill = trial.workflow.start("backfill", *flags, BINANCE_REST_URL=trial.exchange.rest_url)
        assert backfill.wait() == 0, backfill.errors
        trial.let_pass(_DOWN)
        trial.start()
        trial.let_load(3000)
        trial.stop()
        assert all(map(trial.on_topic, ids)), "backfill did not fill the hole"
    counts = trial.outcome.counts
    if counts and counts.out_of_order != len(ids):
        trial.outcome.broken.append(f"{counts.out_of_order} out of order, where {len(ids)} were filled in")


SCENARIOS = [
    Scenario(20, "bad records before a restart", partial(bad_records, count=1), alone=False),
    Scenario(20, "1,000 bad records before a restart", partial(bad_records, count=1000), alone=False),
    Scenario(20, "a hole filled in before a restart", partial(filled_in, config={}), alone=False),
    Scenario(
        20,
        "the same by LogAppendTime",
        partial(filled_in, config={"message.timestamp.type": "LogAppendTime"}),
        alone=False,
    ),
]
