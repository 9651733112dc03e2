"""asyncapi.json agrees with the code, accepts the messages the loader writes, and no commands that it rejects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

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
from tests.tools.loader import Workflow, urls, workflow_on
from tests.tools.topics import read_topic
from tests.tools.waiting import wait_for

FILE = Path(__file__).parents[2] / "loader_ws_trades" / "asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text("utf-8"), parse_float=Decimal)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
STATUSES: list[str] = SCHEMAS["event"]["properties"]["status"]["enum"]
EXAMPLES = [(name, example) for name in MESSAGES for example in SCHEMAS[name]["examples"]]


def is_valid(name: str, value: object) -> bool:
    return not list(Draft7Validator(SCHEMAS[name]).iter_errors(value))


def test_channels_are_named_by_settings() -> None:
    defaults = {option.variable: option.default for option in OPTIONS}
    named = set()
    for channel in DOCUMENT["channels"].values():
        assert re.findall(r"\{(\w+)\}", channel["address"]) == list(channel["parameters"])
        for parameter in channel["parameters"].values():
            variable = parameter["description"].rstrip(".")
            assert parameter.get("default") == defaults[variable]
            named.add(variable)
    assert named == {"KAFKA_TOPIC", "QUEUE_EVENTS_TOPIC", "QUEUE_CONTROL_TOPIC"}


def test_schemas_have_the_fields_of_the_code_in_order() -> None:
    for schema in SCHEMAS.values():
        Draft7Validator.check_schema(schema)
    for name, struct in (("record", Stored), ("event", Event), ("command", Command)):
        assert list(SCHEMAS[name]["properties"]) == SCHEMAS[name]["required"] == list(struct.__struct_fields__)
    last = {each.status for each in (StopReason.complete(""), StopReason.by_command(), StopReason.failed(""))}
    assert set(STATUSES) == {"started", "loading", *last}
    assert set(SCHEMAS["event"]["if"]["properties"]["status"]["enum"]) == last


def test_examples_of_the_document_and_the_readme_are_valid() -> None:
    for name, example in EXAMPLES:
        assert is_valid(name, example), example
    lines = re.findall(r"^    (\{\".*\})$", docs.README.read_text("utf-8"), re.MULTILINE)
    shown = [json.loads(line, parse_float=Decimal) for line in lines]
    assert len(shown) == 3
    for name, value in zip(MESSAGES, shown, strict=True):
        assert value == SCHEMAS[name]["examples"][0]


@pytest.fixture(scope="module")
def real() -> Iterator[dict[str, list[Message]]]:
    """What loaders and `stop` wrote: a run that was complete, one that was stopped, one that failed."""
    with EmbeddedBroker() as broker, Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        found: dict[str, list[Message]] = {name: [] for name in MESSAGES}
        for end in (complete, stopped, failed):
            with workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow:
                workflow.variables |= urls(exchange)
                end(workflow)
                found["record"] += workflow.records()
                found["event"] += read_topic(workflow.servers, workflow.events_topic)
                found["command"] += read_topic(workflow.servers, workflow.control_topic)
        yield found


def complete(workflow: Workflow) -> None:
    assert workflow.run("--max-records", "300", TELEMETRY_INTERVAL="0.1").wait() == 0


def stopped(workflow: Workflow) -> None:
    loader = workflow.run()
    wait_for(lambda: workflow.last_id() > 0, "records")
    stop = workflow.start("stop", SYMBOL=None, TYPE=None, KAFKA_TOPIC=None, TELEMETRY_PRODUCER_ID=None)
    assert (stop.wait(), loader.wait()) == (0, 0)


def failed(workflow: Workflow) -> None:
    assert workflow.run(BINANCE_WS_URL="ws://127.0.0.1:9/ws", FEED_OUTAGE_LIMIT="0.5").wait() == 1


def value_of(message: Message) -> Any:
    return json.loads(message.value() or b"", parse_float=Decimal)


def test_real_messages_are_valid(real: dict[str, list[Message]]) -> None:
    assert len(real["record"]) > 300
    assert len(real["command"]) == 1
    assert {value_of(event)["status"] for event in real["event"]} == set(STATUSES)
    for name, key in (("record", "symbol"), ("event", "queue_id"), ("command", "queue_id")):
        schema = Draft7Validator(SCHEMAS[name])
        keys = Draft7Validator(DOCUMENT["components"]["messages"][name]["bindings"]["kafka"]["key"])
        for message in real[name]:
            value = value_of(message)
            assert not [error.message for error in schema.iter_errors(value)], value
            assert list(value) == SCHEMAS[name]["required"], "the fields in their order"
            assert (message.key() or b"").decode() == value[key]
            assert keys.is_valid(value[key])
            assert not message.headers()


def test_loader_obeys_the_commands_that_the_schema_allows_and_no_others() -> None:
    right = SCHEMAS["command"]["examples"][0]
    for value in (right, {**right, "sent_by": "somebody"}):
        assert is_valid("command", value)
        assert parse_command(json.dumps(value).encode(), "wf-1")
    changes: list[dict[str, object]] = [{"command": "pause"}, {"command": None}, {"queue_id": 1}, {"queue_id": []}]
    without = [{key: value for key, value in right.items() if key != name} for name in right]
    for wrong in ([], "stop", None, *without, *(right | change for change in changes)):
        assert not is_valid("command", wrong)
        with pytest.raises(ValueError, match="command"):
            parse_command(json.dumps(wrong).encode(), "wf-1")


def test_schema_command_prints_the_document_and_each_schema() -> None:
    assert CliRunner().invoke(cli, ["schema"]).output == FILE.read_text("utf-8")
    for name in MESSAGES:
        printed = CliRunner().invoke(cli, ["schema", name]).output
        assert json.loads(printed, parse_float=Decimal) == SCHEMAS[name]
    assert '"price": 20000.50' in CliRunner().invoke(cli, ["schema", "record"]).output, "with its digits"
