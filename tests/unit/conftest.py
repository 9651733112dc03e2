"""Fixtures of the unit tests."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from loader_ws_trades.logs import LOGGER
from tests.unit.clock import clock

__all__ = ["clock"]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the loader logs at INFO and above."""
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level(logging.INFO, LOGGER.name)
    return caplog


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals are handled as before, after each test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
