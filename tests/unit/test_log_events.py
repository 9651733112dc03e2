"""Every log line from INFO on names its event: by that a machine tells lines apart, whatever their words become."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "loader_ws_trades"
README = FOLDER.parent / "README.md"
LEVELS = {"info", "warning", "error", "exception", "critical", "log"}
LOGGERS = {"log", "logs.LOGGER", "LOGGER", "self._log"}
TAKEN = {*vars(logging.makeLogRecord({})), "message", "asctime", "time", "level", "logger", "queue_id", "symbol"}
TAKEN.add("producer")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """The calls that log a line, with where they stand."""
    for path in sorted(FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if path.name != "logs.py" and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if ast.unparse(node.func.value) in LOGGERS:
                    if node.func.attr in LEVELS:
                        yield f"{path.name}:{node.lineno}", node
                elif node.func.attr in {"warn", "info"} or ast.unparse(node.func) == "events.error":
                    yield f"{path.name}:{node.lineno}", node


def fields(call: ast.Call) -> dict[str, ast.expr]:
    """What a line has beside its sentence, as far as it stands in the call."""
    for keyword in call.keywords:
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            return {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}  # type: ignore[misc]
    by_name = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in LOGGERS
    first = {"event": call.args[0]} if by_name else {}
    return first | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


CALLS = dict(calls())


def test_a_line_names_its_event_and_fields_that_no_record_has() -> None:
    for place, call in CALLS.items():
        found = fields(call)
        if isinstance(found.get("extra"), ast.Name):
            continue  # made before; the test of the last line sees it
        event = found["event"]
        assert isinstance(event, ast.Constant), place
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", str(event.value)), place
        assert not found.keys() & TAKEN, place


def test_the_readme_names_events_that_there_are() -> None:
    text = README.read_text("utf-8").partition("`LOG_FORMAT=json`")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", text)) - {"event"}
    known = {event.value for call in CALLS.values() if isinstance(event := fields(call).get("event"), ast.Constant)}
    assert named
    assert named <= known | {"ended", "status"}  # made by functions that are given the event
