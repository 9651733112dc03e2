"""Fixtures that all tests share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.tools.apache_kafka.fixtures"]

# Set before any test module is imported. On a loaded machine, a correct example may take long.
settings.register_profile("unlimited", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unlimited")

_SECONDS_TO_END = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="Seed of the tests with random faults.")


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    # An exception that reaches threading.excepthook fails the test as well: pytest makes it a warning, and
    # setup.cfg makes warnings errors.
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _SECONDS_TO_END
    while left := [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {[thread.name for thread in left]}")
        left[0].join(0.05)
