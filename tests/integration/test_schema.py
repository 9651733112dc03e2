"""The contract as a file: it is AsyncAPI, the loader's real messages keep it, and other ones do not."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from confluent_kafka import Message
from jsonschema import Draft7Validator

from loader_ws_trades.cli.inspect import MESSAGES
from loader_ws_trades.cli.main import cli
from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.kafka.control import Command, parse_command
from loader_ws_trades.kafka.telemetry import Event
from loader_ws_trades.lifecycle import StopReason
from loader_ws_trades.pipeline.records import Stored
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools import docs
from tests.tools.loader import Loader, Workflow, workflow_on
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

FILE = Path(__file__).parents[2] / "loader_ws_trades" / "asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text("utf-8"), parse_float=Decimal)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
EXAMPLES = [(name, example) for name in MESSAGES for example in SCHEMAS[name]["examples"]]
# Of the parts that the document has: the fields that AsyncAPI 3.0 demands, and the others that it allows.
FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "": ({"asyncapi", "info"}, {"defaultContentType", "channels", "operations", "components"}),
    "info": ({"title", "version"}, {"description", "license"}),
    "channels/*": ({"address", "messages"}, {"title", "description", "parameters"}),
    "channels/*/parameters/*": (set(), {"description", "default"}),
    "operations/*": ({"action", "channel"}, {"summary", "messages"}),
    "components": (set(), {"messages", "schemas"}),
    "components/messages/*": (
        {"payload"},
        {"name", "title", "description", "contentType", "headers", "bindings"},
    ),
    "components/messages/*/bindings": (set(), {"kafka"}),
    "components/messages/*/bindings/kafka": ({"bindingVersion"}, {"key"}),
}


def is_valid(name: str, value: object) -> bool:
    return not list(Draft7Validator(SCHEMAS[name]).iter_errors(value))


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def parts(path: str) -> Iterator[dict[str, Any]]:
    """The parts of the document at a path, in which `*` is any name."""
    found: list[dict[str, Any]] = [DOCUMENT]
    for name in filter(None, path.split("/")):
        found = [each for part in found for each in (part.values() if name == "*" else [part.get(name, {})])]
    yield from found


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from references(each)


@pytest.mark.parametrize("path", FIELDS)
def test_every_part_has_the_fields_that_asyncapi_gives_it(path: str) -> None:
    demanded, allowed = FIELDS[path]
    found = list(parts(path))
    assert found
    for part in found:
        assert demanded <= part.keys() <= demanded | allowed, part


def test_the_document_is_asyncapi_3_and_hangs_together() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    named = set(references(DOCUMENT))
    for reference in named:
        assert isinstance(resolve(reference), dict), reference
    for kind in ("messages", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in named, "nobody refers to it"
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")


def test_the_topics_are_named_by_the_settings_that_name_them() -> None:
    defaults = {option.variable: option.default for option in OPTIONS}
    named = set()
    for channel in DOCUMENT["channels"].values():
        assert re.findall(r"\{(\w+)\}", channel["address"]) == list(channel["parameters"])
        for parameter in channel["parameters"].values():
            variable = parameter["description"].rstrip(".")
            assert parameter.get("default") == defaults[variable]
            named.add(variable)
    assert named == {"KAFKA_TOPIC", "QUEUE_EVENTS_TOPIC", "QUEUE_CONTROL_TOPIC"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    Draft7Validator.check_schema(SCHEMAS[name])


def test_the_schemas_name_the_fields_of_the_code_in_their_order() -> None:
    for name, struct in (("record", Stored), ("event", Event), ("command", Command)):
        assert list(SCHEMAS[name]["properties"]) == SCHEMAS[name]["required"] == list(struct.__struct_fields__)
    last = [StopReason.complete(""), StopReason.by_command(), StopReason.failed("")]
    assert set(SCHEMAS["event"]["properties"]["status"]["enum"]) == {
        "started",
        "loading",
        *(each.status for each in last),
    }
    assert set(SCHEMAS["event"]["if"]["properties"]["status"]["enum"]) == {each.status for each in last}


def test_the_examples_of_the_document_and_of_the_readme_keep_it() -> None:
    for name, example in EXAMPLES:
        assert is_valid(name, example), example
    lines = re.findall(r"^    (\{\".*\})$", docs.README.read_text("utf-8"), re.MULTILINE)
    shown = [json.loads(line, parse_float=Decimal) for line in lines]
    assert len(shown) == 3
    for name, value in zip(MESSAGES, shown, strict=True):
        assert value == SCHEMAS[name]["examples"][0]


class Messages(NamedTuple):
    """All that was on the topics of some workflows."""

    records: list[Message]
    events: list[Message]
    commands: list[Message]


@pytest.fixture(scope="module")
def real() -> Iterator[Messages]:
    """What loaders and `stop` wrote: one run that was complete, one that was stopped, one by a signal, one in error."""
    with EmbeddedBroker() as broker, Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        found = Messages([], [], [])
        for end in (complete, stopped, terminated, failed):
            with workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow:
                workflow.variables |= {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
                end(workflow)
                found.records.extend(workflow.records())
                found.events.extend(read_topic(workflow.servers, workflow.events_topic))
                found.commands.extend(read_topic(workflow.servers, workflow.control_topic))
        yield found


def complete(workflow: Workflow) -> None:
    assert workflow.run("--max-records", "300", TELEMETRY_INTERVAL="0.1").wait() == 0


def loaded(workflow: Workflow) -> Loader:
    loader = workflow.run()
    wait_for(lambda: len(workflow.records()) > 10, "records")
    return loader


def stopped(workflow: Workflow) -> None:
    loader = loaded(workflow)
    needed = ("QUEUE_ID", "KAFKA_BOOTSTRAP_SERVERS", "QUEUE_CONTROL_TOPIC", "QUEUE_EVENTS_TOPIC")
    stop = Loader("stop", **{name: workflow.variables[name] for name in needed})
    try:
        assert (stop.wait(), loader.wait()) == (0, 0)
    finally:
        stop.close()


def terminated(workflow: Workflow) -> None:
    loader = loaded(workflow)
    loader.process.terminate()
    assert loader.wait() == 143


def failed(workflow: Workflow) -> None:
    assert workflow.run(BINANCE_WS_URL="ws://127.0.0.1:9/ws", FEED_OUTAGE_LIMIT="0.5").wait() == 1


def value_of(message: Message) -> Any:
    return json.loads(message.value() or b"", parse_float=Decimal)


def test_real_messages_keep_the_contract(real: Messages) -> None:
    assert len(real.records) > 300
    assert len(real.commands) == 1
    assert {value_of(event)["status"] for event in real.events} == set(SCHEMAS["event"]["properties"]["status"]["enum"])
    for name, key, messages in (
        ("record", "symbol", real.records),
        ("event", "queue_id", real.events),
        ("command", "queue_id", real.commands),
    ):
        schema = Draft7Validator(SCHEMAS[name])
        keys = Draft7Validator(DOCUMENT["components"]["messages"][name]["bindings"]["kafka"]["key"])
        for message in messages:
            value = value_of(message)
            assert not [error.message for error in schema.iter_errors(value)], value
            assert list(value) == SCHEMAS[name]["required"], "the fields in their order"
            assert (message.key() or b"").decode() == value[key]
            assert keys.is_valid(value[key])
            assert not message.headers()


WRONG_TYPES: dict[str, list[object]] = {
    "string": [None, 1, True, [], {}, ""],
    "number": [None, "1.5", True, [], {}, -1],
    "integer": [None, "1", True, [], {}, -1, Decimal("1.5")],
    "boolean": [None, "true", 1, [], {}],
}


def mutations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Messages that are wrong in one thing, with their kind and what is wrong."""
    for name, example in ((name, SCHEMAS[name]["examples"][0]) for name in MESSAGES):
        for field, rule in SCHEMAS[name]["properties"].items():
            yield name, f"{field} is missing", {key: value for key, value in example.items() if key != field}
            for wrong in WRONG_TYPES[rule.get("type", "string")]:
                yield name, f"{field} is {wrong!r}", {**example, field: wrong}
        if name != "command":
            yield name, "another field", {**example, "more": 1}
    event = SCHEMAS["event"]["examples"][0]
    for status in ("finished", "interrupted", "error"):
        yield "event", f"{status} is not the last", {**event, "status": status, "message": "Stopped by command"}
    for status in ("started", "loading"):
        yield "event", f"{status} is the last", {**event, "status": status, "finished": True}
    yield "event", "an unknown status", {**event, "status": "done"}
    yield "event", "interrupted by nobody", {**event, "status": "interrupted", "finished": True, "message": "Over"}
    yield "command", "an unknown command", {"command": "pause", "queue_id": "wf-1"}


MUTATIONS = list(mutations())


@pytest.mark.parametrize(("name", "wrong"), [pytest.param(m[0], m[2], id=f"{m[0]}: {m[1]}") for m in MUTATIONS])
def test_what_is_wrong_is_refused(name: str, wrong: dict[str, Any]) -> None:
    assert not is_valid(name, wrong)


@pytest.mark.parametrize("value", [None, [], "stop", 1, True])
@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_no_object_is_refused(name: str, value: object) -> None:
    assert not is_valid(name, value)


def test_the_loader_takes_for_a_command_what_the_schema_calls_one() -> None:
    right = copy.deepcopy(SCHEMAS["command"]["examples"][0])
    for value in (right, {**right, "sent_by": "somebody"}):
        assert is_valid("command", value)
        assert parse_command(json.dumps(value).encode(), "wf-1")
    refused = [wrong for name, _, wrong in MUTATIONS if name == "command" and wrong.get("queue_id") != ""]
    assert len(refused) > 10
    for wrong in refused:
        with pytest.raises(ValueError, match="command"):
            parse_command(json.dumps(wrong, default=float).encode(), "wf-1")


def test_it_is_printed_as_it_is() -> None:
    assert CliRunner().invoke(cli, ["schema"]).output == FILE.read_text("utf-8")
    for name in MESSAGES:
        printed = CliRunner().invoke(cli, ["schema", name]).output
        assert json.loads(printed, parse_float=Decimal) == SCHEMAS[name]
    assert '"price": 20000.50' in CliRunner().invoke(cli, ["schema", "record"]).output, "with its digits"
