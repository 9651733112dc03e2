"""What `check` says of broken set-ups: `python -m tests.tools.check_cases` tries each and prints a table.

Each case is `check` as a process, against Apache Kafka with the least rights and a simulated exchange, but for what
the case breaks. Values may hold the names of `tests.tools.chaos.refused.Place.names` and of `exchanges` in braces.
"""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import trustme

from loader_ws_trades.sandbox import Exchange, HandshakeStatus, Limits, Market, RestStatus
from tests.tools.apache_kafka import Cluster
from tests.tools.chaos.refused import (
    BARE,
    CA,
    PASSWORD,
    PROTOCOL,
    SECURED,
    SERVERS,
    TOPICS,
    USER,
    Place,
    Variables,
    place,
)
from tests.tools.loader import Workflow, workflow_on
from tests.tools.rights import CHECKPOINT, COMMANDS, LEAST, POLICY, TELEMETRY, TRADES, Right

AT_ONCE = 8  # checks that run at the same time
SYMBOL = "SYMBOL (--symbol)"
WS, REST = "BINANCE_WS_URL (--binance-ws-url)", "BINANCE_REST_URL (--binance-rest-url)"
WEIGHT = "REST_WEIGHT_LIMIT (--rest-weight-limit)"
FENCE = "would fence off a running loader"
AN_HOUR = 3600.0


_AS_IT_IS: Variables = MappingProxyType({})


class Case(NamedTuple):
    """One set-up: what is broken, and which line says what about it."""

    name: str
    line: str
    words: tuple[str, ...]
    variables: Variables = _AS_IT_IS
    verdict: str = "fail"
    exit_code: int = 2
    lacking: Right | None = None
    instead: str | None = None
    """The operation that is granted in place of the one that is lacking."""
    trades_config: Mapping[str, str] | None = None
    """Of a topic of its own for the trades."""
    exchange: str = "healthy"
    flags: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    """Lines that are all right nonetheless."""


def _lacking(right: Right, line: str, **more: Any) -> Case:
    words = (f"denies {right.operation} on the topic", TOPICS[right.setting], USER)
    return Case(
        f"no right to {right.operation} on {right.setting.upper()}",
        line,
        words,
        lacking=right,
        instead="DESCRIBE",
        tried=("first trade",),
        **more,
    )


def _missing(setting: str, line: str) -> Case:
    name = "nobody-made-this"
    variables = {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "{plain}", setting.upper(): name}
    return Case(f"no topic {setting.upper()}", line, (f"{name} does not exist", TOPICS[setting]), variables)


CASES: tuple[Case, ...] = (
    Case("unknown symbol", "symbol", ("NOPEUSDT", SYMBOL), {"SYMBOL": "nopeusdt"}, tried=("stream", "write events")),
    Case("a symbol that is halted", "symbol", ("HALT", SYMBOL), exchange="halted", verdict="warn", exit_code=0),
    Case(
        "exchange away",
        "stream",
        ("Connection refused", WS),
        {"BINANCE_WS_URL": "ws://127.0.0.1:9/ws", "BINANCE_REST_URL": "http://127.0.0.1:9"},
        exit_code=1,
        tried=("write trades", "read commands"),
    ),
    Case(
        "REST away",
        "REST API",
        ("refused", REST),
        {"BINANCE_REST_URL": "http://127.0.0.1:9"},
        exit_code=1,
        tried=("stream", "first trade"),
    ),
    Case("REST refuses the location", "REST API", ("HTTP 451", REST), exchange="rest_451", tried=("first trade",)),
    Case("the stream refuses the location", "stream", ("HTTP 451", WS), exchange="ws_451", tried=("symbol",)),
    Case("a URL without a stream", "stream", ("HTTP 404", WS), exchange="ws_404", tried=("symbol",)),
    Case(
        "REST with little weight left",
        "REST API",
        ("used a request weight", WEIGHT),
        {"REST_WEIGHT_LIMIT": "20"},
        verdict="warn",
        exit_code=0,
    ),
    Case(
        "an exchange's name that does not resolve",
        "stream host",
        ("no-such-name.invalid does not resolve", WS),
        {"BINANCE_WS_URL": "wss://no-such-name.invalid/ws"},
        exit_code=1,
        tried=("REST API", "symbol", "read commands"),
    ),
    Case(
        "clock an hour off", "clock", ("behind the exchange's", "3,600"), exchange="ahead", verdict="warn", exit_code=0
    ),
    Case(
        "an exchange whose certificate is not trusted",
        "stream",
        ("certificate is not trusted", "SSL_CERT_FILE", WS),
        exchange="untrusted",
        tried=("write trades", "read commands"),
    ),
    Case(
        "REST whose certificate is not trusted",
        "REST API",
        ("is not trusted", "SSL_CERT_FILE", REST),
        exchange="untrusted",
    ),
    Case(
        "quiet pair",
        "first trade",
        ("quiet pairs", "--timeout"),
        exchange="quiet",
        verdict="warn",
        exit_code=0,
        flags=("--timeout", "1s"),
    ),
    Case(
        "a broker's name that does not resolve",
        "broker hosts",
        ("no-such-name.invalid", SERVERS),
        {"KAFKA_BOOTSTRAP_SERVERS": "no-such-name.invalid:9093"},
        exit_code=1,
        tried=("first trade",),
    ),
    Case(
        "no broker",
        "brokers",
        ("Nothing answers at 127.0.0.1:9", SERVERS),
        {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"},
        exit_code=1,
    ),
    Case(
        "wrong password",
        "credentials",
        ("rejected the user or the password", USER, PASSWORD),
        {"KAFKA_PASSWORD_PRODUCER": "hush-hush-wrong"},
    ),
    Case(
        "wrong password of the consumer",
        "read credentials",
        ("rejected the user or the password", "KAFKA_PASSWORD_CONSUMER (--kafka-password-consumer)"),
        {"KAFKA_USER_CONSUMER": "reader", "KAFKA_PASSWORD_CONSUMER": "hush-hush-wrong"},
        tried=("write trades",),
    ),
    Case("no CA", "credentials", ("is not trusted", CA), {"CA_PATH": None}),
    Case("plaintext to a TLS port", "credentials", ("uses TLS", CA, USER, PROTOCOL), BARE),
    _missing("kafka_topic", "trades topic"),
    _missing("queue_events_topic", "events topic"),
    _missing("queue_control_topic", "commands topic"),
    _lacking(TRADES, "write trades"),
    _lacking(TELEMETRY, "write events"),
    _lacking(COMMANDS, "read commands"),
    Case(
        "no right to READ on KAFKA_TOPIC",
        "checkpoint",
        ("no right to READ", USER, "RESUME (--resume)"),
        verdict="warn",
        exit_code=0,
        lacking=CHECKPOINT,
    ),
    Case(
        "a user without any right",
        "trades topic",
        ("denies WRITE", TOPICS["kafka_topic"], USER),
        {"KAFKA_USER_PRODUCER": "reader", "KAFKA_PASSWORD_PRODUCER": "{reader}"},
        tried=("credentials",),
    ),
    *(
        Case(
            f"a topic with {name}={value}",
            "trades topic",
            (name, TOPICS["kafka_topic"]),
            trades_config={name: value},
            tried=("events topic",),
        )
        for name, value in (
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("max.message.bytes", "100"),
            ("message.timestamp.before.max.ms", "0"),
        )
    ),
    *(
        Case(
            f"a topic with {name}={value}",
            "trades topic",
            (name, "exit code 2"),
            trades_config={name: value},
            verdict="warn",
            exit_code=0,
        )
        for name, value in (
            ("message.timestamp.before.max.ms", "60000"),
            ("message.timestamp.after.max.ms", "0"),
        )
    ),
    Case(
        "an advertised address that cannot be reached",
        "credentials",
        ("advertise addresses that cannot be reached", "advertised.listeners"),
        {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{proxied_port}"},
        exit_code=1,
    ),
    Case(
        "a topic that keeps a minute",
        "trades topic",
        ("for 60 s only", "retention.ms"),
        trades_config={"retention.ms": "60000"},
        verdict="warn",
        exit_code=0,
    ),
    Case(
        "a topic without trade times",
        "trades topic",
        ("message.timestamp.type", "CreateTime"),
        trades_config={"message.timestamp.type": "LogAppendTime"},
        verdict="warn",
        exit_code=0,
    ),
    Case(
        "two settings missing",
        "configuration",
        ("TYPE (--type) is required", "QUEUE_ID (--queue-id) is required"),
        {"TYPE": None, "QUEUE_ID": None},
        tried=("first trade", "write trades", "read commands"),
    ),
    Case(
        "no such value",
        "configuration",
        ("DELIVERY (--delivery)", "give one of idempotent, transactional"),
        {"DELIVERY": "twice"},
        tried=("first trade", "write trades"),
    ),
    Case(
        "transactions without the right",
        "transactional id",
        (FENCE, "WRITE on loader-ws-trades."),
        {"DELIVERY": "transactional"},
        verdict="skip",
        exit_code=0,
    ),
)


class Checked(NamedTuple):
    """What one case came to."""

    case: Case
    exit_code: int
    found: dict[str, Any]

    @property
    def line(self) -> dict[str, Any]:
        """The line that the case is about."""
        return self.named(self.case.line)

    def named(self, name: str) -> dict[str, Any]:
        """The line called so."""
        return next((line for line in self.found["lines"] if line["name"] == name), {"verdict": "none", "text": ""})

    @property
    def wrong(self) -> str | None:
        """What is not as it should be, if anything is."""
        case, line = self.case, self.line
        shown = "\n".join(f"{line['verdict']} {line['name']}: {line['text']}" for line in self.found["lines"])
        if (line["verdict"], self.exit_code, self.found["exit_code"]) != (case.verdict, case.exit_code, case.exit_code):
            return f"exit code {self.exit_code}, not {case.exit_code}:\n{shown}"
        lacking = [word for word in case.words if word not in line["text"]]
        not_tried = [name for name in case.tried if self.named(name)["verdict"] != "ok"]
        return f"without {lacking}, not all right {not_tried}:\n{shown}" if lacking or not_tried else None


class Setup(NamedTuple):
    """Where cases are tried."""

    place: Place
    exchanges: Mapping[str, Exchange]

    def attempt(self, case: Case) -> Checked:
        """Try one case."""
        cluster, exchange = self.place.cluster, self.exchanges[case.exchange]
        with workflow_on(cluster.bootstrap_servers, cluster.create_topic) as workflow:
            if case.trades_config:
                topic = cluster.create_topic(f"{workflow.topic}-of-its-own", config=case.trades_config)
                workflow.variables["KAFKA_TOPIC"] = topic
            self._grant(case, workflow)
            urls: Variables = {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
            names = {**self.place.names, "exchange": f"{exchange.host}:{exchange.port}"}
            settings: dict[str, object] = {
                name: value.format(**names) if value else None
                for name, value in {**urls, **SECURED, **case.variables}.items()
            }
            loader = workflow.start("check", "--json", *case.flags, **settings)
            code = loader.wait()
            assert "Traceback" not in loader.errors, loader.errors
            checked = Checked(case, code, json.loads(loader.output()))
            # Whatever is wrong, nothing may be written there.
            assert not workflow.events()
            return checked

    def _grant(self, case: Case, workflow: Workflow) -> None:
        for right in (*LEAST, CHECKPOINT, POLICY):
            operation = case.instead if right == case.lacking else right.operation
            # The right to read trades would show the topic, too.
            if case.instead and case.lacking == TRADES and right == CHECKPOINT:
                continue
            if operation:
                self.place.cluster.grant("loader", str(workflow.variables[right.setting.upper()]), operation)


def _of_an_unknown_ca() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextlib.contextmanager
def setup(cluster: Cluster, directory: Path) -> Iterator[Setup]:
    """Where cases are tried on `cluster`."""

    def exchange(rate: float = 200, **options: Any) -> Exchange:
        return Exchange([Market.generated("POLUSDT", rate=rate)], limits=Limits(weight=100_000), **options)

    halted = Exchange([Market.generated("POLUSDT", rate=200, status="HALT")])
    with contextlib.ExitStack() as stack:
        exchanges = {
            "healthy": exchange(),
            "halted": halted,
            "quiet": exchange(0.001),
            "ahead": exchange(clock_offset=AN_HOUR),
            "untrusted": exchange(ssl=_of_an_unknown_ca()),
            "rest_451": exchange(faults=[RestStatus(status=451, lasting=AN_HOUR)]),
            "ws_451": exchange(faults=[HandshakeStatus(status=451, lasting=AN_HOUR)]),
            "ws_404": exchange(faults=[HandshakeStatus(status=404, lasting=AN_HOUR)]),
        }
        for each in exchanges.values():
            stack.enter_context(each)
        yield Setup(stack.enter_context(place(cluster, directory)), exchanges)


def main() -> int:
    """Try all cases and print them; 1 if one of them is not as it should be."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wrong = 0
    print("| set-up | line | says | exit code |\n|---|---|---|---|")  # noqa: T201 - for people
    with (
        tempfile.TemporaryDirectory(prefix="check-") as directory,
        Cluster(Path(directory)) as cluster,
        setup(cluster, Path(directory)) as where,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        for checked in pool.map(where.attempt, CASES):
            fault = f" **WRONG: {checked.wrong}**" if checked.wrong else ""
            wrong += bool(fault)
            says = f"{checked.line['verdict']}: {checked.line['text']}".replace("\n", " / ")
            print(  # noqa: T201
                f"| {checked.case.name} | `{checked.case.line}` | {says}{fault} | {checked.exit_code} |", flush=True
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
