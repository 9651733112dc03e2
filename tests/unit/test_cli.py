"""The command line as a whole: help, completion, and what it says about input it does not understand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from loader_ws_trades.cli.main import cli


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="loader-ws-trades")


@pytest.mark.parametrize(("typed", "meant"), [("aduit", "audit"), ("rnu", "run"), ("stopp", "stop"), ("dmeo", "demo")])
def test_a_mistyped_command_is_suggested(typed: str, meant: str) -> None:
    result = invoke(typed)
    assert result.exit_code == 2
    assert result.output.count("Did you mean") == 1
    assert meant in result.output.splitlines()[-1]


def test_a_range_is_given_in_one_way_and_in_order() -> None:
    both = invoke("audit", "--since", "2024-08-02", "--until", "2024-08-01", "--from-id", "9", "--to-id", "8").output
    assert "The range is given both by ids and by times" in both
    assert "--from-id is above --to-id" in both
    assert "--since is not before --until" in both


@pytest.mark.parametrize("command", [None, *cli.commands])
def test_help_is_readable_at_80_columns(command: str | None) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(cli, arguments, prog_name="loader-ws-trades", terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert "..." not in result.output.replace("[ARGS]...", "").replace(",...", "")
    assert command is None or "\n  Examples:\n    loader-ws-trades" in result.output


def test_commands_and_flags_are_completed() -> None:
    def completed(words: str, at: int) -> list[str]:
        variables = {"_LOADER_WS_TRADES_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        found = CliRunner().invoke(cli, prog_name="loader-ws-trades", env=variables).output.split()
        return [line.removeprefix("plain,") for line in found]

    assert completed("loader-ws-trades ch", 1) == ["check"]
    assert "--kafka-topic" in completed("loader-ws-trades run --kafka-t", 2)


_INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "loader_ws_trades.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from loader_ws_trades.__main__ import main
main()
"""


def test_ctrl_c_while_the_command_is_imported_shows_no_trace() -> None:
    command = [sys.executable, "-c", _INTERRUPTED_IMPORT]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=dict(os.environ))
    assert ended.returncode == -signal.SIGINT  # which a shell calls 130
    assert ended.stderr == ""
