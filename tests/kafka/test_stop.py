"""`stop` as a process on Apache Kafka, with and without `--wait`."""

from __future__ import annotations

import json

import pytest

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.loader import Loader, Workflow, check_events, urls
from tests.tools.topics import read_topic, write_topic
from tests.tools.waiting import wait_for

NEEDED = {"QUEUE_ID", "KAFKA_BOOTSTRAP_SERVERS", "QUEUE_CONTROL_TOPIC", "QUEUE_EVENTS_TOPIC"}


def stop(workflow: Workflow, *flags: str, **variables: object) -> Loader:
    """Start `stop` with only the settings it needs."""
    others = dict.fromkeys(workflow.variables.keys() - NEEDED)
    return workflow.start("stop", *flags, **others | {"STARTUP_GRACE": "1"} | variables)


def post(workflow: Workflow, status: str, message: str, *, finished: bool = True, queue_id: str | None = None) -> None:
    """Write an event as a loader does."""
    event = {
        "queue_id": queue_id or workflow.queue_id,
        "symbol": "POLUSDT",
        "type": "ws_trade",
        "status": status,
        "message": message,
        "records_written": 5,
        "finished": finished,
        "producer": "loader-1",
        "timestamp": 1722445567.89,
    }
    write_topic(workflow.servers, workflow.events_topic, json.dumps(event).encode())


def await_command(workflow: Workflow) -> None:
    wait_for(lambda: read_topic(workflow.servers, workflow.control_topic), "the command on its topic")


def test_a_loader_obeys_and_its_last_event_is_shown(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=500)]) as exchange:
        loader = workflow.run(**urls(exchange))
        loader.wait_for_line("Connected")
        process = stop(workflow, "--wait")
        output = process.output()
        assert process.wait() == 0, process.errors
        assert loader.wait() == 0
    events = workflow.events()
    check_events(events, workflow, "interrupted")
    assert output == f"{events[-1]['message']}\n"
    assert output.startswith("Stopped by command; Loaded and published ")


def test_without_wait_it_says_where_the_command_is(workflow: Workflow) -> None:
    process = stop(workflow)
    output = process.output()
    assert process.wait() == 0, process.errors
    place = f"{workflow.control_topic}, partition 0, offset 0"
    assert output == f"Sent the stop command for {workflow.queue_id} to {place}\n"
    [record] = read_topic(workflow.servers, workflow.control_topic)
    assert json.loads(record.value() or b"") == {"command": "stop", "queue_id": workflow.queue_id}


def test_only_an_event_after_the_command_confirms_it(workflow: Workflow) -> None:
    post(workflow, "interrupted", "Stopped by command; that was yesterday")
    process = stop(workflow, "--wait")
    await_command(workflow)
    write_topic(workflow.servers, workflow.events_topic, b"rubbish", None, b"{}", b"[1]")
    post(workflow, "loading", "Loaded and published 5 trade records", finished=False)
    post(workflow, "interrupted", "Stopped by command; in another workflow", queue_id="another")
    post(workflow, "interrupted", "Stopped by SIGTERM; its Job runs it again")
    process.wait_for_line("ended without obeying the command: Stopped by SIGTERM")
    assert process.process.poll() is None
    post(workflow, "interrupted", "Stopped by command; this is it")
    assert process.output() == "Stopped by command; this is it\n"
    assert process.wait() == 0


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("error", 1)])
def test_a_workflow_that_ends_by_itself_ends_the_wait(workflow: Workflow, status: str, code: int) -> None:
    process = stop(workflow, "--wait")
    await_command(workflow)
    post(workflow, status, "That is the end")
    assert process.output() == "That is the end\n"
    assert process.wait() == code


def test_no_confirmation_in_time(workflow: Workflow) -> None:
    process = stop(workflow, "--wait", "--wait-timeout", "0.5s")
    assert process.wait() == 1
    assert f"No loader of {workflow.queue_id} confirmed the stop in time" in process.errors
    assert "Traceback" not in process.errors
    assert len(read_topic(workflow.servers, workflow.control_topic)) == 1


@pytest.mark.parametrize(
    ("variable", "flag", "flags"),
    [
        ("QUEUE_CONTROL_TOPIC", "--queue-control-topic", []),
        ("QUEUE_EVENTS_TOPIC", "--queue-events-topic", ["--wait"]),
    ],
)
def test_a_missing_topic(workflow: Workflow, variable: str, flag: str, flags: list[str]) -> None:
    process = stop(workflow, *flags, **{variable: "missing-topic"})
    assert process.wait() == 2
    assert f"The topic missing-topic does not exist; create it, or check {variable} ({flag})" in process.errors
    assert read_topic(workflow.servers, workflow.control_topic) == []
