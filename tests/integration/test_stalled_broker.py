"""What a sink costs while its broker is connected and does not answer."""

from __future__ import annotations

import os
import signal
import time

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.kafka.publisher import Publisher
from loader_ws_trades.lifecycle import Deadline, Startup
from tests.tools.loader import Loader
from tests.unit.lanes import Pipeline
from tests.unit.scripted_producer import trade
from tests.unit.test_config import REQUIRED


class Sink:
    """A publisher and its lane, with the trades that come every 20 ms."""

    def __init__(self, settings: Settings, together: int) -> None:
        self._publisher = Publisher(settings)
        self._publisher.open(Startup(Deadline(10), 0))
        self._lane = Pipeline().lane
        self._lane.settings = settings
        self._together = together

    @property
    def in_flight(self) -> int:
        return self._publisher.in_flight

    def take(self, seconds: float) -> float:
        """The share of a core that trades take for so long."""
        began, before = time.monotonic(), time.process_time()
        while time.monotonic() < began + seconds:
            self._publisher.put([trade(1)] * self._together, self._lane)
            self._publisher.poll(0.02)
        return (time.process_time() - before) / (time.monotonic() - began)


@pytest.mark.parametrize(("symbols", "together"), [("BTCUSDT", 1), ("BTCUSDT", 7), ("BTCUSDT,ETHUSDT", 2)])
def test_a_broker_that_does_not_answer_costs_no_core(symbols: str, together: int) -> None:
    with Loader("sandbox", "--rate", "1") as sandbox:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("#"):
            lines += sandbox.lines()
        [servers] = [line.rpartition("=")[2].strip() for line in lines if "BOOTSTRAP" in line]
        settings = load({**REQUIRED, "kafka_bootstrap_servers": servers, "symbol": None, "symbols": symbols})
        sink = Sink(settings, together)
        sink.take(1.0)
        os.kill(sandbox.process.pid, signal.SIGSTOP)
        try:
            sink.take(1.0)  # until that is noticed
            share = sink.take(2.0)
        finally:
            os.kill(sandbox.process.pid, signal.SIGCONT)
        assert sink.in_flight > 5 * together
        assert share < 0.5, "librdkafka's thread waits, and does not spin"
