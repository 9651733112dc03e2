"""The architecture as CONTRIBUTING.md draws it: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = "loader_ws_trades"
FOLDER = Path(__file__).parent.parent / PACKAGE

PURE = {"errors", "lifecycle", "config", "values", "files", "fleet", "properties", "trade", "sequence"}
PURE |= {"idset", "newest", "records", "findings", "line", "examination", "archive_rows", "archive_tally"}
PURE |= {"health", "latency", "proxies", "rate_limits"}
BASE = {"kafka", "clients", "topics", "offsets", "reading", "trouble", "listener", "logs", "ports", "progress"}
COMMANDS = {
    "replay",
    "recording",
    "status",
    "backfill",
    "bounded",
    "live",
    "publisher",
    "output",
    "service",
    "audit",
    "report",
    "stop",
}
PARTS = {
    "feed",
    "connection",
    "wire",
    "transport",
    "rest",
    "http_client",
    "repair",
    "repair_clocks",
    "checkpoint",
    "ingest",
    "publisher",
    "transactions",
    "control",
    "telemetry",
    "output",
    "archive",
    "archive_file",
    "recording",
    "capture",
    "pacing",
}
CHECK = {"probes", "check_names", "check_exchange", "check_kafka"}

# Which modules of ours each may import.
ALLOWED = {
    "__init__": set[str](),
    "__main__": {"cli", "streams"},
    "streams": set[str](),
    "cli": {
        *COMMANDS,
        "cli_check",
        "cli_group",
        "cli_options",
        "cli_schema",
        "sandbox",
        "logs",
        "config",
        "values",
        "ports",
        "errors",
        "__init__",
    },
    "cli_check": {"cli_group", "cli_options", "check", "check_report", "probes", "logs"},
    "cli_schema": {"cli_group"},
    "cli_group": {"config", "errors"},
    "cli_options": PURE | {"logs"},
    "probes": {"config", "errors"},
    "check": CHECK | PURE,
    "check_names": {"probes", "listener"} | PURE,
    "check_exchange": {"probes", "check_names", "endings", "connection", "rest", "transport"} | PURE,
    "check_kafka": {"probes", "check_names", "checkpoint"} | BASE | PURE,
    "check_report": {"probes"},
    "sending": {"control", "kafka"} | PURE,
    "audit": PARTS | BASE | PURE,
    "report": PURE | {"audit"},
    "stop": PARTS | BASE | PURE | {"sending"},
    "service": {"status", "ingest", "missing", "control", "telemetry", "vitals", "monitor"} | BASE | PURE,
    "monitor": {"vitals", "heartbeat", "exposition"},
    "exposition": {"metrics", "vitals"} | PURE,
    "heartbeat": {"config", "errors"},
    "metrics": {"vitals", "health", "latency", "streams", "__init__"},
    "vitals": {"ingest", "ports", "status"} | PURE,
    "health": set[str](),
    "latency": set[str](),
    "live": PARTS | BASE | PURE | {"resume"},
    "resume": {"checkpoint"} | BASE | PURE,
    "bounded": {"checkpoint"} | BASE | PURE,
    "backfill": {"bounded", "archive", "rest", "repair"} | BASE | PURE,
    "replay": {"bounded", "capture", "pacing"} | BASE | PURE,
    "feed": PURE | {"connection", "endings", "logs", "transport"},
    "connection": {"proxies", "transport", "wire"},
    "endings": {"config", "errors", "proxies", "transport", "values", "wire"},
    "wire": {"transport"},
    "transport": {"lifecycle", "proxies", "values"},
    "kafka": PURE | {"clients", "topics", "trouble"},
    "clients": {"config", "errors", "properties", "trouble"},
    "topics": PURE | {"clients", "listener", "trouble"},
    "trouble": {"config", "errors", "properties", "listener", "values"},
    "listener": {"lifecycle"},
    "offsets": PURE | {"clients", "kafka", "topics"},
    "reading": PURE | {"clients", "kafka", "offsets", "topics"},
    "ports": PURE | {"kafka"},
    "logs": PURE | {"streams"},
    "status": set[str](),
    "progress": set[str](),
    "errors": set[str](),
    "lifecycle": set[str](),
    "config": {"errors", "fleet", "overrides", "values"},
    "fleet": {"values"},
    "values": {"files"},
    "files": {"lifecycle"},
    "overrides": set[str](),
    "proxies": {"errors"},
    "properties": {"config"},
    "trade": set[str](),
    "sequence": {"given_up", "trade"},
    "given_up": set[str](),
    "idset": {"sequence"},
    "newest": {"sequence"},
    "missing": {"idset", "sequence"},
    "records": {"trade"},
    "findings": {"sequence"},
    "line": {"findings", "idset", "sequence"},
    "examination": {"findings", "line", "records", "sequence", "trade"},
    "archive_rows": {"trade"},
    "archive_tally": {"errors", "sequence", "trade"},
    "archive": PURE | BASE | {"archive_file"},
    "publisher": PURE | BASE | {"transactions"},
    "rest": PURE | BASE | {"http_client"},
    "repair": PURE | BASE | {"repair_clocks"},
    "repair_clocks": {"sequence", "trade"},
    "rate_limits": set[str](),
    "http_client": {"errors", "lifecycle"},
    **dict.fromkeys(
        PARTS
        - {
            "feed",
            "connection",
            "wire",
            "transport",
            "rest",
            "http_client",
            "repair",
            "repair_clocks",
            "publisher",
            "archive",
        },
        PURE | BASE,
    ),
}

# The only modules that may import each library.
OWNERS = {
    "click": {"cli", "cli_check", "cli_group", "cli_options", "cli_schema"},
    "dotenv": {"cli_options"},
    "confluent_kafka": {"kafka", "clients", "offsets", "reading", "topics"},
    "websocket": {"connection", "endings", "transport", "wire"},
    "urllib3": {"rest", "http_client"},
    "pythonjsonlogger": {"logs"},
    "rich": {"progress", "report", "check_report"},
    "websockets": set[str](),
    "prometheus_client": {"exposition"},
}


def imports(path: Path) -> tuple[set[str], set[str]]:
    """Names of our modules and of other packages that a file imports, wherever in it."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {path.name}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top == PACKAGE:
                is_module = (FOLDER / f"{rest[0]}.py").exists() or (FOLDER / rest[0]).is_dir()
                ours.add(rest[0] if is_module else "__init__")
            else:
                others.add(top)
    return ours, others


MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_is_below_it(module: str) -> None:
    assert module in ALLOWED, f"{module} has no place in the picture: give it one here and in CONTRIBUTING.md"
    ours, others = imports(FOLDER / f"{module}.py")
    assert ours <= ALLOWED[module]
    for library, owners in OWNERS.items():
        assert library not in others or module in owners, f"{library} is imported by {module}"


def test_pure_modules_know_no_socket_thread_clock_or_broker() -> None:
    for module in PURE - {"files", "lifecycle", "rate_limits"}:
        _, others = imports(FOLDER / f"{module}.py")
        assert not others & {"socket", "threading", "time", "select", "os", "subprocess", "asyncio"}, module


def test_the_sandbox_is_an_independent_witness() -> None:
    for path in (FOLDER / "sandbox").glob("*.py"):
        ours, _ = imports(path)
        assert ours <= {"sandbox"}, path.name


def test_contributing_names_every_module() -> None:
    text = (FOLDER.parent / "CONTRIBUTING.md").read_text("utf-8")
    for module in MODULES:
        assert module.startswith("__") or f"| `{module}` |" in text, module
