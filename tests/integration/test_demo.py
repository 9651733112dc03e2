"""The demo and the sandbox command as processes, without a terminal."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from loader_ws_trades.cli.options import collect
from tests.tools.loader import Loader


def test_demo_shows_a_cut_and_a_gap_being_repaired() -> None:
    with Loader("demo", "--duration", "6s", "--rate", "300") as loader:
        output, _ = loader.process.communicate(timeout=90)
        shown = output.decode()
        assert loader.process.returncode == 0, shown + loader.errors
    story = ["started: ", "exchange +cuts", "again", "exchange +skips", "about 5 trades", "interrupted: "]
    assert re.search(".*".join(story), shown, re.DOTALL), shown
    assert 'trades        {"trade_id":' in shown
    received, repaired, delivered, read, missing, disordered = map(
        int, re.findall(r"│ +([\d,]+) +│ ok", shown.replace(",", ""))[:6]
    )
    assert received + repaired == delivered == read
    assert repaired >= 5
    assert (missing, disordered) == (0, 0)


def test_demo_ends_on_ctrl_c() -> None:
    with Loader("demo", "--duration", "60s") as loader:
        while "started" not in loader.lines()[0]:
            pass
        loader.process.send_signal(signal.SIGINT)
        output, _ = loader.process.communicate(timeout=30)
        assert loader.process.returncode == 130
        assert b"Stopped by Ctrl-C" in output
        assert "Traceback" not in loader.errors


def test_a_loader_runs_with_the_file_that_sandbox_prints(tmp_path: Path) -> None:
    # Any address of this machine will do, as in a network of containers.
    with Loader("sandbox", "--symbol", "币安usdt", "--rate", "200", "--host", "127.0.0.2") as sandbox:
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
        with Loader("run", "--max-records", "100", "--env-file", str(file)) as loader:
            assert loader.wait() == 0, loader.errors
        sandbox.process.send_signal(signal.SIGTERM)
        assert sandbox.wait() == 0
