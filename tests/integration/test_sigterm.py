"""SIGTERM where no run is there to obey it, during the imports and in other commands; also as the first process."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.loader import Loader
from tests.tools.waiting import wait_for

EXIT_CODE = 128 + signal.SIGTERM

# A container's first process ignores each signal that it has no handler for.
FIRST_PROCESS = (shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child")


def _can_be_first() -> bool:
    try:
        return subprocess.run([*FIRST_PROCESS, "true"], capture_output=True, check=False, timeout=10).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=[(), FIRST_PROCESS], ids=["a process", "the first process"])
def within(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What the interpreter's command line begins with."""
    if request.param and not _can_be_first():
        pytest.skip("unshare cannot make a PID namespace here: SIGTERM to a first process was not tried")
    prefix: tuple[str, ...] = request.param
    return prefix


_TERMINATED_IN_AN_IMPORT = """
import os, signal, sys
class Terminating:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Terminating())
from loader_ws_trades.__main__ import main
main(); print("It went on")
"""


@pytest.mark.parametrize("module", ["loader_ws_trades.cli.main", "confluent_kafka"])
def test_sigterm_during_the_imports_ends_the_process_without_a_trace(within: tuple[str, ...], module: str) -> None:
    script = f"MODULE = {module!r}{_TERMINATED_IN_AN_IMPORT}"
    ended = subprocess.run(
        [*within, sys.executable, "-c", script, "run", "--stdout", "--symbol", "BTCUSDT", "--duration", "0.1"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"BINANCE_WS_URL": "ws://127.0.0.1:9/ws", "BINANCE_REST_URL": "http://127.0.0.1:9"},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (EXIT_CODE, "", "")


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


COMMANDS = {
    "run": ("run",),
    "audit": ("audit",),
    "check": ("check",),
    "stop": ("stop", "--wait"),
    "backfill": ("backfill", "--dry-run", "--from-id", "1", "--to-id", "9"),
}


@pytest.mark.parametrize(
    ("command", "moment"), [("run", "at once"), *((command, "waiting for an answer") for command in COMMANDS)]
)
def test_every_command_ends_by_sigterm(
    within: tuple[str, ...], command: str, moment: str, silent: socket.socket
) -> None:
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    begins = (*within, Loader.interpreter, *Loader.launcher)

    class LoaderWithin(Loader):
        interpreter, launcher = begins[0], begins[1:]

    with LoaderWithin(
        *COMMANDS[command],
        QUEUE_ID="wf-1",
        SYMBOL="BTCUSDT",
        TYPE="ws_trade",
        KAFKA_TOPIC="trades",
        TELEMETRY_PRODUCER_ID="loader-1",
        KAFKA_BOOTSTRAP_SERVERS=address,
        BINANCE_WS_URL=f"ws://{address}/ws",
        BINANCE_REST_URL=f"http://{address}",
    ) as loader:
        pid = wait_for(lambda: _child(loader.process.pid), "the process") if within else loader.process.pid
        if moment == "at once":
            wait_for(lambda: int(_status(pid, "SigCgt"), 16) >> signal.SIGTERM - 1 & 1, "the handler")
        else:
            wait_for(lambda: select.select([silent], [], [], 0)[0], "a question")
        os.kill(pid, signal.SIGTERM)
        assert loader.wait() == EXIT_CODE
        assert "Traceback" not in loader.errors
        assert loader.errors == "" or moment != "at once" or command == "run"


def _child(pid: int) -> int:
    """The only process that `pid` has started; 0 if there is none yet."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii") or 0)


def _status(pid: int, name: str) -> str:
    """A line of what Linux says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(value.strip() for key, _, value in (line.partition(":") for line in lines) if key == name)
