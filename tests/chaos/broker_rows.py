"""Rows about the brokers: restarted, gone, frozen, slow, losing answers, refusing records and rights."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from loader_ws_trades.sandbox import Limits, Market, RestStatus, ServerShutdown, Skip
from tests.apache_kafka import Cluster
from tests.chaos.proxy import FaultProxy
from tests.chaos.stage import Scenario, Stage
from tests.chaos.trial import Trial
from tests.waiting import wait_for


@contextmanager
def broker_down(cluster: Cluster) -> Iterator[None]:
    """Stop the only broker, and start it again."""
    [node] = cluster.nodes
    node.stop()
    try:
        yield
    finally:
        node.start()


def restarted(stage: Stage) -> None:
    with stage.trial("12 broker restarted (5 s)") as trial:
        trial.start()
        trial.let_load(2000)
        with trial.fault(), broker_down(stage.cluster):
            trial.let_pass(5)
        trial.let_load(3000)
        trial.stop()


def leader_killed(stage: Stage) -> None:
    """The leader of three, with kill -9: replication 3, at least 2 in sync."""
    with stage.three_brokers() as cluster:
        replicated = partial(cluster.create_topic, replication=3, config={"min.insync.replicas": "2"})
        with stage.trial("12 leader of three killed", kafka=cluster, create_topic=replicated) as trial:
            trial.start()
            trial.let_load(2000)
            topic = trial.workflow.topic
            leader = cluster.admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader
            node = next(node for node in cluster.nodes if node.node_id == leader)
            with trial.fault():
                node.kill()
                trial.let_pass(5)
                node.start()
            trial.let_load(3000)
            trial.stop()


def gone(stage: Stage) -> None:
    """One outage of a minute for several loaders, each on a topic of its own and with another load."""
    with ExitStack() as stack:
        lines = [
            (stage.trial("13 gone 60 s, 1,500/s"), {}),
            (stage.trial("13 gone 60 s, 5,000/s", rate=5000), {}),
            # The kernel's buffers take megabytes before the exchange sees that nobody reads.
            (
                stage.trial("13 gone 60 s, queue of 50,000", limits=Limits(connection_age=None, backlog=65536)),
                {"KAFKA_QUEUE_RECORDS": "50000"},
            ),
        ]
        trials = [stack.enter_context(trial) for trial, _ in lines]
        for trial, settings in lines:
            trial.start(**settings)
            trial.let_load(2000)
        for trial in trials:
            trial.struck_now()
        with broker_down(stage.cluster):
            trials[0].let_pass(60)
        for trial in trials:
            trial.healed_now()
        for trial in trials:
            trial.let_load(5000, 180)
        for trial in trials:
            trial.stop()
            assert (trial.peak_memory or 0) < 350, f"{trial.peak_memory} MB"
        cut_off = trials[-1].exchange.counters.cut_off
        assert cut_off, "the exchange did not cut the loader off"


def gone_in_a_transaction(stage: Stage) -> None:
    """The transaction may expire: then the run ends with 1 and says so, and the next one completes the topic."""
    with stage.trial("13 gone 60 s, transactional") as trial:
        first = trial.start(DELIVERY="transactional")
        trial.let_load(2000)
        with trial.fault(), broker_down(stage.cluster):
            trial.let_pass(60)
        goal = trial.market.last_id or 0
        wait_for(lambda: first.process.poll() is not None or trial.on_topic(goal), "the end, or the topic", 120)
        if first.process.poll() is not None:
            assert first.process.returncode == 1, trial.last_words()
            assert "transaction" in trial.last_words(), trial.last_words()
            trial.start(DELIVERY="transactional")
        trial.let_load(3000)
        trial.stop()


def answers_lost(stage: Stage) -> None:
    """Every 25th answer to a Produce request is lost, and the records have been written."""
    with FaultProxy(stage.cluster.nodes[0], lose_every=25) as proxy, stage.trial("14 answers lost") as trial:
        trial.start(KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers)
        trial.let_load(20_000)
        trial.stop()
        assert proxy.lost > 10, f"{proxy.lost} answers lost"
        trial.outcome.remark = f"{proxy.lost} answers lost"


def answers_lost_without_idempotence(stage: Stage) -> None:
    """The same without what guards against it: this line passes if it shows duplicates, for then the row can fail."""
    with FaultProxy(stage.cluster.nodes[0], lose_every=25) as proxy:
        with stage.trial("14 the same, unguarded: must double") as trial:
            trial.expected = {"duplicated", "out_of_order"}
            trial.start(
                *("-X", "enable.idempotence=false", "-X", "enable.gapless.guarantee=false"),
                KAFKA_BOOTSTRAP_SERVERS=proxy.bootstrap_servers,
            )
            trial.let_load(20_000)
            trial.stop()
            trial.outcome.remark = f"{proxy.lost} answers lost"
        counts = trial.outcome.counts
        if not (counts and counts.duplicated):
            trial.outcome.broken.append("no duplicates without idempotence: the row could not fail")


def frozen(stage: Stage) -> None:
    [node] = stage.cluster.nodes
    with stage.trial("15 broker frozen 30 s") as trial:
        trial.start()
        trial.let_load(2000)
        with trial.fault():
            node.freeze()
            try:
                trial.let_pass(30)
            finally:
                node.thaw()
        trial.let_load(3000, 120)
        trial.stop()


def right_withdrawn(stage: Stage) -> None:
    cluster = stage.cluster
    with stage.trial("17 right to write withdrawn") as trial:
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


def record_refused(stage: Stage) -> None:
    cluster = stage.cluster
    with stage.trial("18 record refused (max.message.bytes)") as trial:
        first = trial.start()
        trial.let_load(2000)
        with trial.fault():
            _alter_topic(cluster, trial.workflow.topic, "max.message.bytes", "100")
            assert first.wait(60) == 1, trial.last_words()
            _check_error(trial)
            _alter_topic(cluster, trial.workflow.topic, "max.message.bytes", "1000000")
        trial.start()
        trial.let_load(2000)
        trial.stop()


def _check_error(trial: Trial) -> None:
    assert trial.workflow.events()[-1]["status"] == "error"
    assert "not delivered: trade ids" in trial.last_words(), trial.last_words()


def _alter_topic(cluster: Cluster, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for answer in cluster.admin.incremental_alter_configs([resource]).values():
        answer.result(30)


def burst_onto_a_slow_broker(stage: Stage) -> None:
    """200 trades a second, then 10,000 in one, then 200 again, where the broker takes about 1,000 a second."""
    with tempfile.TemporaryDirectory() as folder:
        market = Market.recorded(_burst_file(Path(folder)), start="subscriber")
    with (
        FaultProxy(stage.cluster.nodes[0], bytes_per_second=200_000) as proxy,
        stage.trial("24 burst of 10,000 on a slow broker", market=market) as trial,
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


def all_at_once(stage: Stage) -> None:
    with stage.trial("25 rotation, restart and REST 429") as trial:
        trial.start()
        trial.let_load(2000)
        with trial.fault():
            trial.exchange.inflict(RestStatus(429, retry_after=3, lasting=6), Skip(50), ServerShutdown(lead=1.0))
            with broker_down(stage.cluster):
                trial.let_pass(5)
        trial.let_load(3000)
        trial.stop()
        assert trial.exchange.counters.answers["/api/v3/historicalTrades", 429], "REST was not asked in its bad time"


SCENARIOS = [
    Scenario(12, restarted),
    Scenario(12, leader_killed),
    Scenario(13, gone),
    Scenario(13, gone_in_a_transaction),
    Scenario(14, answers_lost),
    Scenario(14, answers_lost_without_idempotence),
    Scenario(15, frozen),
    Scenario(17, right_withdrawn),
    Scenario(18, record_refused),
    Scenario(24, burst_onto_a_slow_broker),
    Scenario(25, all_at_once),
]
