"""The loader as a process, and the topics of one workflow; neither may show a secret."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Message

from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.sandbox import Exchange
from tests.tools.apache_kafka.cluster import USERS
from tests.tools.processes import Program
from tests.tools.topics import answers, read_events, read_topic, write_topic

_SHORTEST = 4  # length of what the loader redacts


class Loader(Program):
    """`python -m loader_ws_trades ...`, with only `variables` of the loader's own in its environment."""

    interpreter = sys.executable
    launcher: tuple[str, ...] = ("-m", "loader_ws_trades")  # arguments of the interpreter that start the loader
    stderr: int | None = None  # a descriptor that replaces what `errors` reads

    def __init__(self, *arguments: str, **variables: object) -> None:
        own = {option.variable for option in OPTIONS}
        environment = {name: value for name, value in os.environ.items() if name not in own}
        given = {name: str(value) for name, value in variables.items()}
        self.secrets = _secrets_in(arguments, given)
        super().__init__(
            [self.interpreter, *self.launcher, *arguments],
            stderr=self.stderr,
            env=environment | given,
            cwd=tempfile.gettempdir(),  # where no .env of a developer is read
        )

    def close(self) -> None:
        """End it, if it still runs, and fail if it has shown a secret."""
        if self._errors.closed:
            return
        output, errors = self.end(), self.errors
        self._errors.close()
        _check_for_secrets(self.secrets, errors, "standard error")
        _check_for_secrets(self.secrets, output, "standard output")


def loader_with(properties: str) -> type[Loader]:
    """A loader whose Kafka clients have `properties` (key=value,key=value) that `-X` rejects."""

    class Replaced(Loader):
        launcher = (str(Path(__file__).parent / "replaced_properties.py"), properties)

    return Replaced


def _secrets_in(arguments: tuple[str, ...], variables: dict[str, str]) -> frozenset[str]:
    """All secrets of a loader: those it is given, and always the passwords of the cluster's users."""
    found = set(USERS.values())
    flags = dict(pairwise(arguments))
    for option in OPTIONS:
        value = variables.get(option.variable) or flags.get(option.flag) or ""
        if option.secret and option.name != "kafka_properties":
            found.add(value)
        if "://" in value:
            found.add(urlsplit(value).password or "")
    if "KAFKA_PASSWORD_FILE" in variables:
        with suppress(OSError, UnicodeDecodeError):
            found.add(Path(variables["KAFKA_PASSWORD_FILE"]).read_text("utf-8").strip())
    for pair in (*variables.get("KAFKA_PROPERTIES", "").split(","), *arguments):
        key, _, value = pair.partition("=")
        if "password" in key or "secret" in key:
            found.add(value)
    return frozenset(value for value in found if len(value) >= _SHORTEST)


def _check_for_secrets(secrets: Iterable[str], shown: str, where: str) -> None:
    for secret in secrets:
        lines = [line for line in shown.splitlines() if secret in line]
        assert not lines, f"a secret ({secret}) is in {where}:\n" + "\n".join(lines[:5])


class Workflow:
    """One workflow's topics on a broker, and the loaders started for it."""

    def __init__(self, bootstrap_servers: str, create_topic: Callable[[str], object]) -> None:
        unique = uuid.uuid4().hex[:8]
        self.servers = bootstrap_servers
        self.queue_id = f"wf-{unique}"
        self.topic, self.events_topic, self.control_topic = (
            f"{name}-{unique}" for name in ("trades", "queue-events", "queue-control")
        )
        for topic in (self.topic, self.events_topic, self.control_topic):
            create_topic(topic)
        self.variables: dict[str, object] = {
            "QUEUE_ID": self.queue_id,
            "SYMBOL": "POLUSDT",
            "TYPE": "ws_trade",
            "KAFKA_TOPIC": self.topic,
            "TELEMETRY_PRODUCER_ID": f"loader-{unique}",
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "QUEUE_EVENTS_TOPIC": self.events_topic,
            "QUEUE_CONTROL_TOPIC": self.control_topic,
            "TELEMETRY_INTERVAL": "0.5",
        }
        self.loader_class = Loader
        self._loaders: list[Loader] = []

    def run(self, *flags: str, **variables: object) -> Loader:
        """Start `run`; `variables` override the workflow's, and None removes one."""
        return self.start("run", *flags, **variables)

    def start(self, *arguments: str, **variables: object) -> Loader:
        """Start any command, as `run` does."""
        merged = {name: value for name, value in (self.variables | variables).items() if value is not None}
        self._loaders.append(self.loader_class(*arguments, **merged))
        return self._loaders[-1]

    def command(self, value: object) -> None:
        """Write a record to the control topic: bytes and None as they are, all else as JSON."""
        is_raw = value is None or isinstance(value, bytes)
        write_topic(self.servers, self.control_topic, value if is_raw else json.dumps(value).encode())  # type: ignore[arg-type]

    def stop(self) -> None:
        """Write the stop command."""
        self.command({"command": "stop", "queue_id": self.queue_id})

    def records(self) -> list[Message]:
        """What is on the trade topic."""
        return read_topic(self.servers, self.topic)

    def ids(self) -> list[int]:
        """The trade ids of the records, in their order."""
        return [json.loads(record.value() or b"")["trade_id"] for record in self.records()]

    def consecutive_ids(self) -> list[int]:
        """The trade ids of the records; fails unless each is the one before it plus one."""
        found = self.ids()
        assert found == list(range(found[0], found[0] + len(found)))
        return found

    def last_id(self) -> int:
        """The trade id of the last record, -1 if there is none."""
        records = read_topic(self.servers, self.topic, last=20)  # the last ones may be transaction markers
        return int(json.loads(records[-1].value() or b"")["trade_id"]) if records else -1

    def events(self) -> list[dict[str, Any]]:
        """What is on the events topic."""
        return read_events(self.servers, self.events_topic)

    def close(self) -> None:
        """End what still runs, and fail if a loader has shown a secret, or written one to the events topic."""
        with ExitStack() as stack:  # each is closed, whatever the others say
            stack.callback(self._check_events)
            for loader in self._loaders:
                stack.callback(loader.close)

    def _check_events(self) -> None:
        secrets = frozenset[str]().union(*(loader.secrets for loader in self._loaders))
        # A broker that the test has taken away has nothing to read.
        if self._loaders and answers(self.servers):
            for record in read_topic(self.servers, self.events_topic):
                _check_for_secrets(secrets, (record.value() or b"").decode(errors="replace"), self.events_topic)


def urls(exchange: Exchange) -> dict[str, object]:
    """The variables with which a loader finds an exchange."""
    return {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}


@contextmanager
def workflow_on(bootstrap_servers: str, create_topic: Callable[[str], object]) -> Iterator[Workflow]:
    """A workflow whose loaders are ended with it."""
    workflow = Workflow(bootstrap_servers, create_topic)
    try:
        yield workflow
    finally:
        workflow.close()


def check_events(
    events: list[dict[str, Any]], workflow: Workflow, last: str, symbol: str = "POLUSDT", first: str = "started"
) -> None:
    """The order and the form that the contract gives to the events of one pair of one process."""
    statuses = [event["status"] for event in events]
    assert statuses[0] == first, statuses
    assert statuses[-1] == last, events[-1]
    assert set(statuses[1:-1]) <= {"loading"}, statuses
    assert [event["finished"] for event in events] == [False] * (len(events) - 1) + [True]
    counts = [event["records_written"] for event in events]
    assert counts == sorted(counts)
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)
    for event in events:
        assert list(event) == [
            "queue_id",
            "symbol",
            "type",
            "status",
            "message",
            "records_written",
            "finished",
            "producer",
            "timestamp",
        ]
        assert (event["queue_id"], event["symbol"], event["type"], event["producer"]) == (
            workflow.queue_id,
            symbol,
            "ws_trade",
            workflow.variables["TELEMETRY_PRODUCER_ID"],
        )
        assert isinstance(event["timestamp"], float)
        assert isinstance(event["records_written"], int)
