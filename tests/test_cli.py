"""The command line as a whole: help, and what is said of what cannot be understood."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from loader_ws_trades.cli import cli


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="loader-ws-trades")


@pytest.mark.parametrize(("typed", "meant"), [("aduit", "audit"), ("rnu", "run"), ("stopp", "stop"), ("dmeo", "demo")])
def test_a_mistyped_command_is_recognized(typed: str, meant: str) -> None:
    result = invoke(typed)
    assert result.exit_code == 2
    assert result.output.count("Did you mean") == 1
    assert meant in result.output.splitlines()[-1]


def test_what_is_like_no_command_is_not_guessed() -> None:
    result = invoke("xyzzy")
    assert result.exit_code == 2
    assert "No such command 'xyzzy'" in result.output
    assert "Did you mean" not in result.output


def test_a_mistyped_flag_is_recognized() -> None:
    result = invoke("run", "--sybmol", "btcusdt")
    assert result.exit_code == 2
    assert "--symbol" in result.output


@pytest.mark.parametrize("command", ["run", "audit", "stop"])
def test_help_shows_examples_as_they_are_typed(command: str) -> None:
    lines = invoke(command, "--help").output.splitlines()
    examples = lines[lines.index("  Examples:") + 1 :]
    assert len(examples) >= 2
    for line in examples:
        assert f"loader-ws-trades {command} " in line


def test_a_range_is_asked_for_in_one_way_and_the_right_way_round() -> None:
    both = invoke("audit", "--since", "2024-08-02", "--until", "2024-08-01", "--from-id", "9", "--to-id", "8").output
    assert "A range is given by ids and by times" in both
    assert "--from-id is above --to-id" in both
    assert "--since is not before --until" in both
