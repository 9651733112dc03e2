"""Rows about brokers that misbehave: lost answers, rejected records, withdrawn rights, a slow broker."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

from loader_ws_trades.sandbox import Market
from tests.tools.chaos.proxy import FaultProxy
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.chaos.trial import Trial
from tests.tools.loader import loader_with


def answers_lost(stage: Stage) -> None:
    """Every 25th answer to a Produce request is lost, and the records have been written."""
    with FaultProxy(stage.cluster.nodes[0], lose_every=25) as proxy, stage.trial() as trial:
        trial.start(KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers)
        trial.let_load(20_000)
        trial.stop()
        assert proxy.lost > 10, f"{proxy.lost} answers lost"
        trial.outcome.remark = f"{proxy.lost} answers lost"


def answers_lost_without_idempotence(stage: Stage) -> None:
    """The same with the safeguard removed: passes only if duplicates are seen, which shows that the row can fail."""
    with FaultProxy(stage.cluster.nodes[0], lose_every=25) as proxy:
        with stage.trial() as trial:
            trial.expected = {"duplicated", "out_of_order"}
            trial.workflow.loader_class = loader_with("enable.idempotence=false,enable.gapless.guarantee=false")
            trial.start(KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers)
            trial.let_load(20_000)
            trial.stop()
            trial.outcome.remark = f"{proxy.lost} answers lost"
        counts = trial.outcome.counts
        if not (counts and counts.duplicated):
            trial.outcome.broken.append("no duplicates without idempotence: the row could not fail")


def right_withdrawn(stage: Stage) -> None:
    cluster = stage.cluster
    with stage.trial() as trial:
        workflow = trial.workflow
        for topic in (workflow.topic, workflow.events_topic, workflow.control_topic):
            cluster.grant("loader", topic, "READ", "WRITE")
        secured = {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.sasl_bootstrap_servers,
            "KAFKA_USER_PRODUCER": "loader",
            "KAFKA_PASSWORD_PRODUCER": cluster.users["loader"],
            "CA_PATH": cluster.ca_path,
        }
        first = trial.start(**secured)
        trial.let_load(2000)
        with trial.fault():
            cluster.revoke("loader", workflow.topic, "WRITE")
            assert first.wait(60) == 1, trial.last_words()
            _check_error(trial)
            cluster.grant("loader", workflow.topic, "WRITE")
        trial.start(**secured)
        trial.let_load(2000)
        trial.stop()


def record_rejected(stage: Stage) -> None:
    cluster = stage.cluster
    with stage.trial() as trial:
        first = trial.start()
        trial.let_load(2000)
        with trial.fault():
            cluster.alter_topic(trial.workflow.topic, "max.message.bytes", "100")
            assert first.wait(60) == 2, trial.last_words()
            _check_error(trial)
            cluster.alter_topic(trial.workflow.topic, "max.message.bytes", "1000000")
        trial.start()
        trial.let_load(2000)
        trial.stop()


def _check_error(trial: Trial) -> None:
    assert trial.workflow.events()[-1]["status"] == "error"
    assert "not delivered: trade ids" in trial.last_words(), trial.last_words()


def burst_onto_a_slow_broker(stage: Stage) -> None:
    """200 trades a second, then 10,000 in one, then 200 again, where the broker takes about 1,000 a second."""
    with tempfile.TemporaryDirectory() as folder:
        market = Market.recorded(_burst_file(Path(folder)), start="subscriber")
    with (
        FaultProxy(stage.cluster.nodes[0], bytes_per_second=200_000) as proxy,
        stage.trial(market=market) as trial,
    ):
        trial.start(KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers)
        trial.let_issue(1000)
        with trial.fault():
            trial.let_issue(11_000)
        trial.let_issue(13_000)
        trial.let_load(0)
        trial.stop()


def _burst_file(folder: Path) -> Path:
    gaps = [5.0] * 1000 + [0.1] * 10_000 + [5.0] * 2000  # milliseconds from one trade to the next
    path = folder / "frames.jsonl"
    with path.open("w") as file:
        for number, moment in enumerate(itertools.accumulate(gaps)):
            frame = {"e": "trade", "s": "POLUSDT", "t": 7_000_000 + number, "T": 1_760_000_000_000 + int(moment)}
            frame |= {"p": f"0.2{number % 9973:07}", "q": f"{number % 997}.10000000", "m": number % 3 == 0, "M": True}
            file.write(json.dumps(frame | {"E": frame["T"]}) + "\n")
    return path


SCENARIOS = [
    Scenario(14, "answers lost", answers_lost),
    Scenario(14, "the same, unguarded: must double", answers_lost_without_idempotence),
    Scenario(17, "right to write withdrawn", right_withdrawn),
    Scenario(18, "record rejected (max.message.bytes)", record_rejected),
    Scenario(24, "burst of 10,000 on a slow broker", burst_onto_a_slow_broker),
]
