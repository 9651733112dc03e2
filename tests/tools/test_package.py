"""The package as users get it: built, installed without extras into an empty environment, and run from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from loader_ws_trades import __version__
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools.loader import Loader, workflow_on

ROOT = Path(__file__).parents[2]
PACKAGE = {path.relative_to(ROOT).as_posix() for path in (ROOT / "loader_ws_trades").rglob("*") if path.is_file()}
PACKAGE = {name for name in PACKAGE if "__pycache__" not in name}
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", ".*cache", ".hypothesis", "__pycache__", "build", "dist", "*.egg-info"
)
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PIP_RETRIES": "1"}


def call(*command: str | Path, at: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=ENVIRONMENT, cwd=at, capture_output=True, text=True, timeout=300, check=False)


def make(*command: str | Path) -> None:
    """Run a command of the packaging tools; skips without a package index."""
    ended = call(*command)
    if ended.returncode:
        with tempfile.TemporaryDirectory() as folder:
            if call(sys.executable, "-m", "pip", "download", "--no-deps", "setuptools", at=Path(folder)).returncode:
                pytest.skip("the package index cannot be reached")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and the wheel that was built out of it."""
    source, out = tmp_path_factory.mktemp("package") / "source", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    make(sys.executable, "-m", "build", "--outdir", out, source)
    return out / f"loader_ws_trades-{__version__}.tar.gz", out / f"loader_ws_trades-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def scripts(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripts of an environment that has the wheel, and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    make(sys.executable, "-m", "venv", "--without-pip", folder)
    make(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-compile", built[1])
    return folder / "bin"


def run(scripts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(scripts / "loader-ws-trades", *arguments, at=Path(tempfile.gettempdir()))


def test_source_distribution_has_what_building_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    documents = {"LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    assert names >= PACKAGE | documents | {"setup.cfg", "setup.py", ".manifest.in"}
    assert not [name for name in names if name.startswith("tests")], "they need more than what would be there"


def test_wheel_has_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        about = f"loader_ws_trades-{__version__}.dist-info"
        metadata = archive.read(f"{about}/METADATA").decode()
    assert {name for name in names if not name.startswith(f"{about}/")} == PACKAGE
    assert {"loader_ws_trades/py.typed", "loader_ws_trades/asyncapi.json"} <= names
    assert f"{about}/licenses/LICENSE" in names
    assert f"Version: {__version__}\n" in metadata
    assert f"## {__version__} - " in metadata, "the changelog follows the readme"


def test_installed_command_shows_version_help_and_schema(scripts: Path) -> None:
    found = call(scripts / "python", "-c", "import loader_ws_trades; print(loader_ws_trades.__file__)", at=scripts)
    assert Path(found.stdout).is_relative_to(scripts.parent)
    assert run(scripts, "--version").stdout == f"loader-ws-trades, version {__version__}\n"
    shown = run(scripts, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "  backfill " in shown.stdout
    assert run(scripts, "schema").stdout == (ROOT / "loader_ws_trades" / "asyncapi.json").read_text("utf-8")


def test_commands_of_the_extra_say_how_to_install_it(scripts: Path) -> None:
    for command in ("demo", "sandbox"):
        ended = run(scripts, command)
        assert ended.returncode == 2
        assert "install the extra with pip install '.[sandbox]' in its source directory" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_run_and_backfill_need_no_extra(scripts: Path) -> None:
    class Installed(Loader):
        interpreter = str(scripts / "python")
        launcher = (str(scripts / "loader-ws-trades"),)

    with (
        EmbeddedBroker() as broker,
        Exchange([Market.generated("POLUSDT", rate=2000)]) as exchange,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
    ):
        workflow.loader_class = Installed
        workflow.variables |= {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
        workflow.variables["PYTHONPATH"] = ""
        loader = workflow.run("--max-records", "500")
        assert loader.wait() == 0, loader.errors
        assert len(workflow.records()) == 500
        first = json.loads(workflow.records()[0].value() or b"")["trade_id"]
        loader = workflow.start("backfill", "--from-id", str(first - 300), "--to-id", str(first - 1))
        assert loader.wait() == 0, loader.errors
        assert len(workflow.records()) == 800
