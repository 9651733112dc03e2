"""The documentation says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from loader_ws_trades import __version__
from loader_ws_trades.cli.main import cli
from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.lifecycle import StopReason
from tests.tools import docs, pictures

DOCUMENTS = [docs.README, docs.ROOT / "CONTRIBUTING.md", docs.DOCKER / "README.md", docs.ROOT / "tests" / "README.md"]


@pytest.mark.parametrize("document", docs.TABLES, ids=lambda path: str(path.relative_to(docs.ROOT)))
def test_the_tables_of_a_document_are_made_from_the_code(document: Path) -> None:
    assert docs.generated(document) == document.read_text("utf-8"), "run `make docs`"


def anchors(document: Path) -> set[str]:
    """The headings that a document's links may name, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(docs.ROOT)))
def test_links_between_the_documents_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        place, _, heading = link.partition("#")
        if place.startswith("https://"):
            continue
        target = document.parent / place if place else document
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def test_modules_that_the_documents_name_exist() -> None:
    text = (docs.ROOT / "CONTRIBUTING.md").read_text("utf-8")
    package = docs.ROOT / "loader_ws_trades"
    folders = "|".join(path.name for path in package.iterdir() if path.is_dir())
    for folder, module in re.findall(rf"\b({folders})\.([a-z_]+)", text):
        assert (package / folder / f"{module}.py").exists(), f"{folder}.{module}"
    tools = (docs.ROOT / "tests" / "README.md").read_text("utf-8")
    for name in re.findall(r"`(?:tests/)?(?:\w+/)*(\w+\.py)`", f"{text}{tools}"):
        assert any(docs.ROOT.glob(f"tests/**/{name}")) or any(package.rglob(name)), name


def test_the_log_lines_of_the_readme_are_in_the_code() -> None:
    said = []
    for path in (docs.ROOT / "loader_ws_trades").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said.append(
                    "".join(str(getattr(part, "value", "")) for part in node.values if isinstance(part, ast.Constant))
                )
            elif isinstance(node, ast.Constant):
                said.append(str(node.value))
    table = docs.README.read_text("utf-8").partition("| log line | meaning | action |")[2].partition("\n\n")[0]
    lines = [line for row in table.splitlines()[2:] for line in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(lines) > 10
    for line in lines:
        for words in filter(None, (part.strip(" ;,:") for part in line.split("..."))):
            assert any(words in text for text in said), words


def test_the_example_of_an_env_file_is_made_from_the_code() -> None:
    assert docs.EXAMPLE.read_text("utf-8") == docs.env_example(), "run `make docs`"


def test_the_chart_of_the_benchmark_is_made_from_its_table() -> None:
    assert pictures.BENCHMARK.read_text("utf-8") == pictures.benchmark(), "run `make docs`"


@pytest.mark.parametrize("picture", [pictures.DEMO, pictures.BENCHMARK], ids=lambda path: str(path.name))
def test_a_picture_is_valid_and_loads_nothing(picture: Path) -> None:
    text = picture.read_text("utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - it is our own
    assert set(re.findall(r"https?://[^\"'\s)<]*", text)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}


def test_the_picture_of_the_demo_shows_that_it_lost_nothing() -> None:
    text = re.sub(r"<[^>]*>|&#160;", " ", pictures.DEMO.read_text("utf-8"))
    assert "Gap closed after" in re.sub(r" +", " ", text)
    assert re.search(r"missing +│ +0 +│ +ok", text)
    assert "wrong" not in text


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
