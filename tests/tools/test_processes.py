"""Processes that tests start: a Ctrl-C reaches them wherever the tests run, and none outlives its test or hangs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.tools.apache_kafka.distribution import REPOSITORY
from tests.tools.processes import kill, limited, start

# What it starts says how it takes SIGINT.
_ASK = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
_STARTS = f"import tests, subprocess, sys; subprocess.run([sys.executable, '-c', {_ASK!r}], check=True, timeout=30)"


def test_what_tests_start_in_the_background_can_be_interrupted() -> None:
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, _STARTS]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout == "True\n"


def test_what_a_process_started_ends_with_it() -> None:
    with start(["/bin/sh", "-c", "sleep 600 & echo up; wait"], stdout=subprocess.PIPE) as process, limited(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert os.getpgid(process.pid) == process.pid
        kill(process)
        assert process.stdout.read() == b"", "nobody has the pipe open any more"
    assert process.returncode == -signal.SIGKILL


def test_a_wait_for_output_has_an_end() -> None:
    with (
        pytest.raises(AssertionError, match=r"not within 0.1 s: .*'sleep'"),
        start(["sleep", "600"], stdout=subprocess.PIPE) as process,
        limited(process, 0.1),
    ):
        process.communicate()
