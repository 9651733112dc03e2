"""Rows about brokers that are down: restarted, killed, gone for a minute, frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from loader_ws_trades.sandbox import Limits, RestStatus, ServerShutdown, Skip
from tests.tools.apache_kafka import Cluster
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.waiting import wait_for


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
    with stage.trial() as trial:
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
        with stage.trial(kafka=cluster, create_topic=replicated) as trial:
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
            (stage.trial("gone 60 s, 1,500/s"), {}),
            (stage.trial("gone 60 s, 5,000/s", rate=5000), {}),
            # The kernel's buffers take megabytes before the exchange sees that nobody reads.
            (
                stage.trial("gone 60 s, queue of 50,000", limits=Limits(connection_age=None, backlog=65536)),
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
            with trial.promise():
                trial.let_load(5000, 180)
                trial.stop()
                assert trial.peak_memory < 350, f"{trial.peak_memory} MB"
        with trials[-1].promise():
            assert trials[-1].exchange.counters.cut_off, "the exchange did not cut the loader off"


def gone_in_a_transaction(stage: Stage) -> None:
    """The transaction may expire: then the run ends with 1 and says so, and the next one completes the topic.

    At a rate at which it has caught up before it is stopped.
    """
    with stage.trial(rate=500) as trial:
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


def gone_too_long(stage: Stage) -> None:
    with stage.trial() as trial:
        first = trial.start(KAFKA_OUTAGE_LIMIT="5", SHUTDOWN_TIMEOUT="4")
        trial.let_load(2000)
        with trial.fault(), broker_down(stage.cluster):
            assert first.wait(40) == 1, trial.last_words()
            assert "No delivery acknowledged for 5 s" in trial.last_words(), trial.last_words()
        trial.start()
        trial.let_load(3000)
        trial.stop()


def frozen(stage: Stage) -> None:
    [node] = stage.cluster.nodes
    with stage.trial() as trial:
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


def all_at_once(stage: Stage) -> None:
    with stage.trial() as trial:
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
    Scenario(12, "broker restarted (5 s)", restarted),
    Scenario(12, "leader of three killed", leader_killed),
    Scenario(13, "gone 60 s", gone),
    Scenario(13, "gone 60 s, transactional", gone_in_a_transaction),
    Scenario(13, "gone past the outage limit", gone_too_long),
    Scenario(15, "broker frozen 30 s", frozen),
    Scenario(25, "rotation, restart and REST 429", all_at_once),
]
