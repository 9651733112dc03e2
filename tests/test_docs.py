"""The documentation says what the code does."""

from __future__ import annotations

import re

import click
import pytest

from loader_ws_trades import __version__
from loader_ws_trades.cli import cli
from loader_ws_trades.config import OPTIONS
from loader_ws_trades.lifecycle import StopReason
from tests import docs


def test_the_tables_of_the_readme_are_made_from_the_code() -> None:
    text = docs.README.read_text("utf-8")
    assert docs.readme(text) == text, "run `make docs`"


def test_the_example_of_an_env_file_is_made_from_the_code() -> None:
    assert docs.EXAMPLE.read_text("utf-8") == docs.env_example(), "run `make docs`"


def test_statuses_and_exit_codes_are_documented() -> None:
    text = docs.README.read_text("utf-8")
    reasons = [StopReason.complete(""), StopReason.by_command(), StopReason.by_signal(15), StopReason.failed("")]
    for status in {"started", "loading", *(reason.status for reason in reasons)}:
        assert f"| `{status}` |" in text
    table = text.partition("| code | when |")[2].partition("\n\n")[0]
    codes = {int(code) for row in re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert codes == {0, 1, 2, 130, 143}


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help_with_sentences(command: str) -> None:
    found = cli.commands[command]
    assert found.help
    for parameter in found.params:
        if isinstance(parameter, click.Argument):  # it has no help of its own: the command's names it
            assert parameter.make_metavar(click.Context(found)) in found.help
            continue
        assert (getattr(parameter, "help", "") or "").strip(), parameter.name


def test_help_texts_of_settings_are_sentences() -> None:
    for option in OPTIONS:
        assert option.help[0].isupper() or option.help.startswith("librdkafka"), option.name
        assert option.help.endswith("."), option.name


def test_the_changelog_says_what_the_version_brings() -> None:
    headings = re.findall(r"^## (.*)$", (docs.ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    assert re.fullmatch(rf"{re.escape(__version__)} - \d{{4}}-\d\d-\d\d", newest)
