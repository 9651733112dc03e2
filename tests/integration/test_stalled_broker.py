"""What a producer costs while its broker is connected and does not answer."""

from __future__ import annotations

import os
import signal
import time

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import trade_producer_properties
from tests.tools.loader import Loader
from tests.unit.test_config import REQUIRED

STALL = 3.0  # seconds


def produce_for(producer: Producer, seconds: float) -> float:
    """The share of a core that 50 records a second take meanwhile."""
    began, before = time.monotonic(), time.process_time()
    while time.monotonic() < began + seconds:
        producer.produce("trades", b"x" * 150, b"BTCUSDT")
        producer.poll(0.02)
    return (time.process_time() - before) / (time.monotonic() - began)


@pytest.mark.parametrize("symbols", ["BTCUSDT", "BTCUSDT,ETHUSDT"])
def test_a_broker_that_does_not_answer_costs_no_core(symbols: str) -> None:
    with Loader("sandbox", "--rate", "1") as sandbox:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("#"):
            lines += sandbox.lines()
        [servers] = [line.rpartition("=")[2].strip() for line in lines if "BOOTSTRAP" in line]
        settings = load({**REQUIRED, "kafka_bootstrap_servers": servers, "symbol": None, "symbols": symbols})
        producer = Producer(trade_producer_properties(settings), lambda *_: None, credentials="")
        produce_for(producer, 1.0)
        os.kill(sandbox.process.pid, signal.SIGSTOP)
        try:
            share = produce_for(producer, STALL)
        finally:
            os.kill(sandbox.process.pid, signal.SIGCONT)
        assert len(producer) > 5, "more than may be in flight"
        assert share < 0.5, "librdkafka's thread waits, and does not spin"
