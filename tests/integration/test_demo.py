"""What a newcomer sees first, without a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loader_ws_trades.cli.options import collect
from tests.tools.loader import Loader


def test_the_demo_ends_well_and_shows_records_events_and_a_summary() -> None:
    loader = Loader("demo", "--duration", "3s", "--rate", "300")
    try:
        output, _ = loader.process.communicate(timeout=60)
        shown = output.decode()
        assert loader.process.returncode == 0, shown + loader.errors
    finally:
        loader.close()
    assert '"status": "started"' in shown
    assert '"status": "loading"' in shown
    assert '"message": "Stopped by command' in shown
    assert 'trades  {"trade_id":' in shown
    assert shown.count("ok") == 6
    assert "wrong" not in shown


def test_the_demo_can_be_left_with_ctrl_c() -> None:
    loader = Loader("demo", "--duration", "60s")
    try:
        while "started" not in loader.lines()[0]:
            pass
        loader.process.send_signal(signal.SIGINT)
        output, _ = loader.process.communicate(timeout=30)
        assert loader.process.returncode == 130
        assert b"Stopped by Ctrl-C" in output
        assert "Traceback" not in loader.errors
    finally:
        loader.close()


def test_a_loader_runs_on_the_sandbox_with_the_file_that_it_prints(tmp_path: Path) -> None:
    # Any address of this machine will do, as in a network of containers.
    sandbox = Loader("sandbox", "--symbol", "币安usdt", "--rate", "200", "--host", "127.0.0.2")
    try:
        lines: list[str] = []
        while not lines or not lines[-1].startswith("#"):
            lines += sandbox.lines()
        file = tmp_path / "sandbox.env"
        file.write_text("".join(lines))
        variables, faults, notes = collect({}, str(file))
        assert not faults
        assert not notes
        assert variables["symbol"] == "币安USDT"
        assert variables["binance_ws_url"].startswith("ws://127.0.0.2:")
        loader = Loader("run", "--max-records", "100", "--env-file", str(file))
        try:
            assert loader.wait() == 0, loader.errors
        finally:
            loader.close()
        sandbox.process.send_signal(signal.SIGTERM)
        assert sandbox.wait() == 0
    finally:
        sandbox.close()


@pytest.mark.parametrize("command", ["demo", "sandbox"])
def test_without_the_extra_it_says_which_one_is_wanted(command: str) -> None:
    code = (
        f"import sys; sys.modules['websockets'] = None; sys.argv[1:] = ['{command}']; "
        "from loader_ws_trades.__main__ import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "pip install '.[sandbox]' where its sources are" in ended.stderr
    assert "Traceback" not in ended.stderr
