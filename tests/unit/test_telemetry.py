"""Telemetry that the cluster rejects."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from loader_ws_trades.config.loading import load
from loader_ws_trades.kafka.telemetry import Telemetry
from tests.unit.test_config import REQUIRED


def test_rejected_telemetry_does_not_flood_the_log(logged: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(load(REQUIRED))
    for _ in range(500):
        telemetry._report(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), cast("Any", None))
    assert len(logged.messages) == 30
