"""Fixtures of the unit tests."""

from __future__ import annotations

import logging

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
