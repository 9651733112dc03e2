"""`--stdout` with a reader that stops reading, or goes away."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.loader import Loader
from tests.tools.waiting import wait_for

COUNT = 200_000


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Loader]:
    """A replay of more trades than the pipe and the sink hold, with a full pipe."""
    path = tmp_path / "frames.jsonl"
    trade = {"e": "trade", "s": "POLUSDT", "p": "1.50", "q": "2.0", "m": True}
    frames = (json.dumps(trade | {"t": number, "T": 1_700_000_000_000 + number}) for number in range(COUNT))
    path.write_text("".join(f"{frame}\n" for frame in frames))
    loader = Loader("replay", str(path), "--speed", "max", "--stdout", SYMBOL="POLUSDT", SHUTDOWN_TIMEOUT="2")
    loader.wait_for_line("trades to load")
    wait_for(lambda: rests(loader), "a full pipe, and a full sink behind it")
    yield loader
    loader.close()


def rests(loader: Loader) -> bool:
    """Whether it uses no CPU time for a while."""
    stat = Path(f"/proc/{loader.process.pid}/stat")
    before = stat.read_text().split()[13]
    threading.Event().wait(0.3)
    return stat.read_text().split()[13] == before


def test_reader_that_closes_the_pipe_ends_the_run_however_much_is_queued(replay: Loader) -> None:
    assert replay.process.stdout is not None
    replay.process.stdout.close()
    assert replay.wait() == 0, replay.errors
    assert "not delivered" not in replay.errors
    replay.process.stdout = None


def test_ids_that_the_reader_did_not_take_are_named(replay: Loader) -> None:
    replay.process.terminate()
    wait_for(lambda: replay.process.poll() is not None, "its end")
    assert replay.process.returncode == 1
    assert "not delivered: trade ids " in replay.errors
