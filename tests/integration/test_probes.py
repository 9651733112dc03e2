"""`/healthz` and the heartbeat: red when the main loop is stuck, green during outages that the loader survives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools import stuck
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.loader import Loader, Workflow, urls, workflow_on
from tests.tools.scrape import ask, scrape
from tests.tools.waiting import wait_for


class Probed:
    """Starts loaders that can get stuck and have short health limits, and probes them."""

    def __init__(self, workflow: Workflow, folder: Path) -> None:
        self.workflow = workflow
        self.port = free_port()
        self.flag = folder / "stuck"
        self.heartbeat = folder / "alive"
        workflow.variables |= {
            "METRICS_PORT": self.port,
            "HEARTBEAT_FILE": self.heartbeat,
            "FEED_SILENCE_LIMIT": "1",
            "RESUME": "off",
        }

    def run(self, exchange: Exchange, **variables: object) -> Loader:
        class StuckLoader(Loader):
            launcher = (str(stuck.__file__), str(self.flag))

        self.workflow.loader_class = StuckLoader
        return self.workflow.run(**urls(exchange) | variables)

    def health(self) -> tuple[int, str]:
        answer = ask(self.port, "/healthz")
        return answer.status, answer.text.strip()

    def let_load(self, trades: int = 300) -> None:
        """Wait until some more trades are delivered."""

        def delivered() -> float:
            try:
                return scrape(self.port)("delivered_total")
            except OSError:
                return -1

        goal = max(0, delivered()) + trades
        wait_for(lambda: delivered() >= goal, f"{goal:g} trades")

    def becomes_red(self) -> str:
        """Wait for the sentence, which the heartbeat then says too: it stands still."""
        sentence = wait_for(lambda: text if (text := self.health()[1]) != "ok" else "", "trouble")
        assert self.health()[0] == 503
        before = self.heartbeat.stat().st_mtime
        stays(lambda: self.heartbeat.stat().st_mtime == before, 2.5, "the heartbeat stands still")
        return sentence

    def stays_green(self, seconds: float) -> None:
        """Look for some time, beyond all that the health check allows."""
        stays(lambda: self.health() == (200, "ok"), seconds, "healthy")
        assert time.time() - self.heartbeat.stat().st_mtime < 3


def stays(condition: object, seconds: float, what: str) -> None:
    """Look again and again whether something is as it should be."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end or not condition(), what, seconds + 10)  # type: ignore[operator]
    assert condition(), what  # type: ignore[operator]


@pytest.fixture
def probed(broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Probed]:
    with workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow:
        yield Probed(workflow, tmp_path)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange([Market.generated("POLUSDT", rate=500)], ping_interval=0.3) as running:
        yield running


def test_a_stuck_main_loop_is_red_until_it_continues(probed: Probed, exchange: Exchange) -> None:
    loader = probed.run(exchange)
    probed.let_load()
    probed.stays_green(0.5)
    probed.flag.touch()
    assert probed.becomes_red().startswith("The main loop has been stuck while loading for ")
    probed.flag.unlink()
    wait_for(lambda: probed.health()[0] == 200, "health")
    probed.workflow.stop()
    assert loader.wait() == 0


def test_kafka_away_and_the_stream_held_back_is_green(
    probed: Probed, exchange: Exchange, broker: EmbeddedBroker
) -> None:
    loader = probed.run(exchange, KAFKA_QUEUE_RECORDS="200", SHUTDOWN_TIMEOUT="1")
    probed.let_load()
    broker.stop()
    wait_for(lambda: scrape(probed.port)("in_flight") >= 200, "a full queue")
    probed.stays_green(7)
    assert scrape(probed.port)("kafka_outages_total") == 1
    loader.process.terminate()
    assert loader.wait() == 1


def test_a_start_that_waits_for_kafka_is_green(probed: Probed, exchange: Exchange) -> None:
    loader = probed.run(exchange, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", STARTUP_TIMEOUT="6", STARTUP_GRACE="0.1")
    wait_for(lambda: probed.heartbeat.exists() and _answers(probed.port), "the probe")
    probed.stays_green(4.5)
    assert scrape(probed.port).state == "starting"
    assert loader.wait() == 1


def test_a_heartbeat_file_that_becomes_unwritable_is_one_warning(probed: Probed, exchange: Exchange) -> None:
    loader = probed.run(exchange)
    probed.let_load()
    probed.heartbeat.unlink()
    wait_for(probed.heartbeat.exists, "the file to be made again")
    probed.heartbeat.unlink()
    os.mkfifo(probed.heartbeat)  # nobody reads it: opening it must not block
    loader.wait_for_line("HEARTBEAT_FILE (--heartbeat-file)")
    stays(lambda: probed.health()[0] == 200, 2.5, "healthy")
    assert loader.errors.count("HEARTBEAT_FILE") == 1
    probed.workflow.stop()
    assert loader.wait() == 0


def _answers(port: int) -> bool:
    try:
        return ask(port, "/healthz").status == 200
    except OSError:
        return False
