"""What came of a Job: what its status says, what its pods' logs show, what is on the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from confluent_kafka import Message

from loader_ws_trades.sandbox import Market
from tests.tools.chaos.outcome import COLUMNS
from tests.tools.chaos.witness import compare
from tests.tools.kube.life import Life
from tests.tools.kube.manifest import Manifest
from tests.tools.kube.outcome import End, Outcome


def condition(status: Mapping[str, Any]) -> str:
    """Return how a Job ended; nothing while it goes on."""
    for one in status.get("conditions", ()):
        if one["status"] == "True" and one["type"] in ("Complete", "Failed"):
            return f"Failed ({one['reason']})" if one["type"] == "Failed" else "Complete"
    return ""


def judge_job(outcome: Outcome, status: Mapping[str, Any], lives: Sequence[Life], indexes: int) -> None:
    """Fill in how the Job ended, and how its pods followed each other."""
    by_index = [[life for life in lives if life.index == index] for index in range(indexes)]
    outcome.seen = End(
        job=condition(status) or "not over",
        codes=tuple(tuple(-1 if life.code is None else life.code for life in row) for row in by_index),
        counted=status.get("failed", 0),
        failed_indexes=status.get("failedIndexes", ""),
    )
    outcome.pauses = [after.began - before.ended for row in by_index for before, after in pairwise(row)]
    if any(pause < 0 for pause in outcome.pauses):
        outcome.broken.append("a pod was started before the one in whose place it is had ended")


def judge_logs(outcome: Outcome, lives: Sequence[Life], password: str) -> None:
    """Look into the pods' logs for what must not stand there, and note which variables were overridden."""
    for life in lives:
        outcome.overridden |= life.overridden
        log = life.log.read_text(errors="replace")
        for text, what in ((password, "the password"), ("Traceback", "a stack trace")):
            if text in log:
                outcome.broken.append(f"{what} stands in {life.log}")


def judge_shares(outcome: Outcome, lives: Sequence[Life], manifest: Manifest) -> None:
    """Compare the pairs that each pod loads with its share."""
    for life in lives:
        loaded, share = life.loaded(), manifest.share(life.index)
        if loaded != share:
            outcome.broken.append(f"pod {life.index} loads {sorted(loaded)}, but its share is {sorted(share)}")


def judge_topic(
    outcome: Outcome, records: Sequence[Message], markets: Sequence[Market], goals: Mapping[str, int]
) -> None:
    """Compare the topic of trades, which may be of several pairs, with what the exchange issued."""
    outcome.records, outcome.wrong = len(records), 0
    known = {market.symbol.encode() for market in markets}
    if strangers := [record for record in records if record.key() not in known]:
        outcome.broken.append(f"{len(strangers)} records of no pair that is traded")
    for market in markets:
        own = [record for record in records if record.key() == market.symbol.encode()]
        counts = compare(market, own, goal=goals.get(market.symbol))
        outcome.wrong += sum(getattr(counts, column) for column in COLUMNS)
        outcome.broken += [f"{market.symbol}: {fault}" for fault in counts.faults()]
