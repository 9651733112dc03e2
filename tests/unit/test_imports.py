"""The architecture as CONTRIBUTING.md draws it: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = "loader_ws_trades"
ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / PACKAGE
MODULES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.py"))

# Packages and top modules; each imports only from what stands behind it. `sandbox` imports none of them.
LAYERS = ["__main__", "cli", "check", "audit", "run", "monitoring", "kafka", "binance", "pipeline", "logs", "config"]
LAYERS += ["lifecycle", "errors", "text", "streams", "__init__"]
SANDBOX_LAYERS = ["__init__", "serve", "demo", "server", "faults", "exchange", "market", "counters", "broker"]

# Libraries, and the only packages or modules that import them.
OWNERS = {
    "click": {"cli"},
    "dotenv": {"cli/options"},
    "confluent_kafka": {"kafka", "sandbox"},
    "websocket": {"binance"},
    "urllib3": {"binance"},
    "prometheus_client": {"monitoring/server"},
    "pythonjsonlogger": {"logs"},
    "rich": {"monitoring/progress", "audit/report", "check/report", "sandbox"},
    "websockets": {"sandbox"},
}


@cache
def imported(module: str) -> list[tuple[str, str]]:
    return list(_imported(module))


def _imported(module: str) -> Iterator[tuple[str, str]]:
    """What a module imports: the package or top module if it is ours or else "", and the name in full."""
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {module}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            is_ours = top == PACKAGE
            there = rest[0] if is_ours and ((FOLDER / rest[0]).is_dir() or (FOLDER / f"{rest[0]}.py").exists()) else ""
            yield (there or "__init__") if is_ours else "", name


def imported_modules(module: str) -> Iterator[str]:
    """Our own modules among what a module imports."""
    for there, name in imported(module):
        path = name.removeprefix(f"{PACKAGE}.").replace(".", "/")
        if there:
            yield next((one for one in (path, path.rpartition("/")[0]) if one in MODULES), there)


def layer(module: str) -> str:
    return module.split("/", maxsplit=1)[0]


def test_imports_between_packages_point_down() -> None:
    for module in MODULES:
        here = layer(module)
        for there, name in imported(module):
            if there and there != here:
                assert "sandbox" not in (here, there) or module == "cli/main", f"{module} imports {name}"
                assert here == "sandbox" or there == "sandbox" or LAYERS.index(there) > LAYERS.index(here), (
                    f"{module} imports {name}, which stands above it"
                )


def test_a_library_has_one_owner() -> None:
    for module in MODULES:
        for there, name in imported(module):
            library = name.split(".", maxsplit=1)[0]
            if not there and library in OWNERS:
                assert {module, layer(module)} & OWNERS[library], f"{module} imports {library}"


def test_the_pipeline_has_no_io() -> None:
    for module in (module for module in MODULES if layer(module) == "pipeline"):
        found = {name.split(".", maxsplit=1)[0] for there, name in imported(module) if not there}
        assert not found & {"socket", "select", "ssl", "os", "subprocess", "asyncio", "pathlib"}


def test_what_decides_about_trades_knows_no_thread_and_no_clock() -> None:
    for module in ("trade", "sequencer", "id_ranges", "records"):
        assert not {name for _, name in imported(f"pipeline/{module}") if name in {"threading", "time"}}


def test_imports_within_the_sandbox_point_down() -> None:
    for module in (module for module in MODULES if layer(module) == "sandbox"):
        here, *targets = (one.split("/")[1] for one in (module, *imported_modules(module)) if "/" in one)
        for there in targets:
            assert here == there or SANDBOX_LAYERS.index(there) > SANDBOX_LAYERS.index(here), (
                f"{module} imports {there}"
            )


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({module: set(imported_modules(module)) for module in MODULES}).prepare()


def test_contributing_names_every_package_and_nothing_else() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## Packages")[1].split("\n## ")[0]
    table = re.findall(r"^\| `(\w+)/?`", section, re.MULTILINE)
    here = {layer(module) for module in MODULES} - {"__main__", "__init__"}
    assert here == set(table)


def count() -> None:
    """Print how many imports there are between packages, and which."""
    arrows = Counter((layer(module), there) for module in MODULES for there, _ in imported(module) if there)
    arrows = Counter({arrow: number for arrow, number in arrows.items() if arrow[0] != arrow[1]})
    for (here, there), number in sorted(arrows.items()):
        sys.stdout.write(f"{here:>12} -> {there:12} {number:4}\n")
    sys.stdout.write(f"{len(MODULES)} modules, {len(arrows)} arrows between packages\n")


if __name__ == "__main__":
    count()
