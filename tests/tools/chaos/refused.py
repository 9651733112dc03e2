"""What is refused at the start, case by case: `python -m tests.tools.chaos.refused` tries all and prints a table.

Each case starts the loader as a process against Apache Kafka, on topics of its own. A value that a case sets may hold
the names of `Place.names` in braces.
"""

from __future__ import annotations

import contextlib
import signal
import socketserver
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import trustme

from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Loader, Workflow, workflow_on
from tests.tools.rights import LEAST, Right
from tests.tools.tables import MARKDOWN, table
from tests.tools.waiting import wait_for

AT_ONCE = 5  # loaders that are tried at the same time
LATE = 5.0  # seconds after the start at which a topic that is late is created

Variables = Mapping[str, str | None]

# Nothing listens there: a run that gets as far as the exchange goes on without.
NO_EXCHANGE: Variables = {"BINANCE_WS_URL": "ws://127.0.0.1:9/ws", "BINANCE_REST_URL": "http://127.0.0.1:9"}
SECURED: Variables = {
    "KAFKA_BOOTSTRAP_SERVERS": "{sasl}",
    "KAFKA_USER_PRODUCER": "loader",
    "KAFKA_PASSWORD_PRODUCER": "{loader}",
    "CA_PATH": "{ca}",
}
NOBODY: Variables = {"KAFKA_USER_PRODUCER": None, "KAFKA_PASSWORD_PRODUCER": None}
BARE: Variables = {**NOBODY, "CA_PATH": None}
OPEN: Variables = {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "{plain}"}

SERVERS = "KAFKA_BOOTSTRAP_SERVERS (--kafka-bootstrap-servers)"
USER = "KAFKA_USER_PRODUCER (--kafka-user-producer)"
PASSWORD = "KAFKA_PASSWORD_PRODUCER (--kafka-password-producer)"
READER = "KAFKA_USER_CONSUMER (--kafka-user-consumer)"
CA = "CA_PATH (--ca-path)"
PROTOCOL = "KAFKA_SECURITY_PROTOCOL (--kafka-security-protocol)"
MECHANISM = "KAFKA_SASL_MECHANISM (--kafka-sasl-mechanism)"
TOPICS = {
    "kafka_topic": "KAFKA_TOPIC (--kafka-topic)",
    "queue_events_topic": "QUEUE_EVENTS_TOPIC (--queue-events-topic)",
    "queue_control_topic": "QUEUE_CONTROL_TOPIC (--queue-control-topic)",
}


class Case(NamedTuple):
    """One start: what differs from a run on the secured cluster with the least rights, and how it ends."""

    name: str
    variables: Variables
    exit_code: int
    words: tuple[str, ...]
    lacking: Right | None = None
    instead: str | None = None
    """The operation that is granted in place of the one that is lacking."""
    late: bool = False
    """Whether the topic of the trades is created only after the start."""


def _missing(setting: str) -> Case:
    variables = {**OPEN, setting.upper(): "nobody-made-this"}
    return Case(f"no topic {setting.upper()}", variables, 2, ("nobody-made-this does not exist", TOPICS[setting]))


def _lacking(right: Right, instead: str | None = None) -> Case:
    name = f"{instead or 'nothing'} in place of {right.operation} on {right.setting.upper()}"
    words = (f"denies {right.operation} on the topic", TOPICS[right.setting], USER)
    return Case(name, {}, 2, words, right, instead)


_REFUSED = "rejected the user or the password"
_WRONG_PASSWORD: Variables = {"KAFKA_PASSWORD_PRODUCER": "hush-hush-wrong"}
_OTHER_NAMES = "is for other host names (localhost, 127.0.0.1)"
_CUT_OFF = ("No Kafka broker answered", SERVERS)

CASES: tuple[Case, ...] = (
    Case("wrong password", _WRONG_PASSWORD, 2, (_REFUSED, USER, PASSWORD)),
    Case("unknown user", {"KAFKA_USER_PRODUCER": "nobody"}, 2, (_REFUSED, USER, PASSWORD)),
    Case(
        "wrong password of the consumer",
        {"KAFKA_USER_CONSUMER": "reader", "KAFKA_PASSWORD_CONSUMER": "hush-hush-wrong"},
        2,
        (_REFUSED, READER, "KAFKA_PASSWORD_CONSUMER (--kafka-password-consumer)"),
    ),
    Case("no CA", {"CA_PATH": None}, 2, ("is not trusted", CA)),
    Case("another CA", {"CA_PATH": "{other_ca}"}, 2, ("is not trusted", CA)),
    Case("another host name", {"KAFKA_BOOTSTRAP_SERVERS": "127.1:{sasl_port}"}, 2, (_OTHER_NAMES, SERVERS)),
    Case("plaintext to a TLS port", BARE, 2, ("uses TLS", PROTOCOL, CA, USER, SERVERS)),
    Case(
        "plaintext with a user to a TLS port",
        {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
        2,
        ("uses TLS", PROTOCOL, CA, SERVERS),
    ),
    Case("TLS without a user to a port that asks for one", NOBODY, 2, ("requires a user (SASL SCRAM-SHA-512)", USER)),
    Case("TLS to a plaintext port", {**OPEN, "CA_PATH": "{ca}"}, 2, ("does not use TLS", PROTOCOL, CA, SERVERS)),
    Case(
        "TLS with a user to a plaintext port",
        {"KAFKA_BOOTSTRAP_SERVERS": "{plain}"},
        2,
        ("does not use TLS", PROTOCOL, CA, USER, SERVERS),
    ),
    Case(
        "a user to a port that asks for none",
        {"KAFKA_BOOTSTRAP_SERVERS": "{plain}", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
        2,
        ("requires no user", PROTOCOL, USER, SERVERS),
    ),
    Case("another mechanism", {"KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"}, 2, ("SCRAM-SHA-512", MECHANISM)),
    Case(
        "wrong password, and a broker that is away",
        {**_WRONG_PASSWORD, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9,{sasl}"},
        2,
        (_REFUSED, USER),
    ),
    Case(
        "another host name, and a broker that is away",
        {"KAFKA_BOOTSTRAP_SERVERS": "127.1:{sasl_port},127.0.0.1:9"},
        2,
        (_OTHER_NAMES, SERVERS),
    ),
    Case(
        "plaintext to a TLS port, and brokers that are away or cut off",
        {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9,{cutting},{sasl}"},
        2,
        ("uses TLS", PROTOCOL, CA, USER, SERVERS),
    ),
    *map(_missing, TOPICS),
    *map(_lacking, LEAST),
    *(_lacking(right, "DESCRIBE") for right in LEAST),
    Case(
        "no right to the transactional id",
        {"DELIVERY": "transactional"},
        2,
        ("denies WRITE on the transactional id loader-ws-trades.", "DELIVERY (--delivery)", USER),
    ),
    Case(
        "no right of the consumer's",
        {"KAFKA_USER_CONSUMER": "reader", "KAFKA_PASSWORD_CONSUMER": "{reader}"},
        2,
        ("denies READ on the topic", TOPICS["queue_control_topic"], READER),
    ),
    Case("a topic that is made after the start", OPEN, 0, ("Stopped by command",), late=True),
    Case("no broker", {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}, 1, _CUT_OFF),
    Case("no broker, with TLS and a user", {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}, 1, _CUT_OFF),
    Case(
        "a name that does not resolve",
        {"KAFKA_BOOTSTRAP_SERVERS": "no-such-name.invalid:9093"},
        1,
        ("no-such-name.invalid:9093", SERVERS),
    ),
    Case(
        "an advertised address that cannot be reached",
        {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{proxied_port}"},
        1,
        ("advertise addresses that cannot be reached", "advertised.listeners"),
    ),
    # Like a load balancer without a broker: nothing shows a fault of the configuration.
    Case("a port that cuts off", {**BARE, "KAFKA_BOOTSTRAP_SERVERS": "{cutting}"}, 1, _CUT_OFF),
    Case("a port that cuts off, with TLS and a user", {"KAFKA_BOOTSTRAP_SERVERS": "{cutting}"}, 1, _CUT_OFF),
)


class Outcome(NamedTuple):
    """How one case ended, as its user sees it."""

    case: Case
    exit_code: int
    seconds: float
    message: str

    @property
    def wrong(self) -> str | None:
        """What is not as it should be, if anything is."""
        if self.exit_code != self.case.exit_code:
            return f"exit code {self.exit_code}, not {self.case.exit_code}: {self.message}"
        lacking = [word for word in self.case.words if word not in self.message]
        return f"without {lacking}: {self.message}" if lacking else None


class _CutOff(socketserver.BaseRequestHandler):
    """Ends each connection as soon as it is there."""


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 64


class Place(NamedTuple):
    """Where cases are tried."""

    cluster: Cluster
    names: Mapping[str, object]

    def attempt(self, case: Case, variables: Variables) -> Outcome:
        """Try one case; `variables` are set unless it sets them itself."""
        with workflow_on(self.cluster.bootstrap_servers, self.cluster.create_topic) as workflow:
            self._grant(case, workflow)
            given = {**NO_EXCHANGE, **SECURED, **variables, **case.variables}
            settings: dict[str, object] = {
                name: value.format(**self.names) if value else None for name, value in given.items()
            }
            if case.late:
                settings["KAFKA_TOPIC"] = f"{workflow.topic}-late"
            began = time.monotonic()
            loader = workflow.run(**settings)
            if case.late:
                self._create_late(workflow, loader, began + (LATE if "STARTUP_GRACE" not in variables else 0.0))
            code = loader.wait(120)
            return Outcome(case, code, time.monotonic() - began, _message(loader))

    def _grant(self, case: Case, workflow: Workflow) -> None:
        for right in LEAST:
            topic = str(workflow.variables[right.setting.upper()])
            operation = case.instead if right == case.lacking else right.operation
            if operation:
                self.cluster.grant("loader", topic, operation)

    def _create_late(self, workflow: Workflow, loader: Loader, when: float) -> None:
        loader.wait_for_line("retrying")
        threading.Event().wait(max(0.0, when - time.monotonic()))
        self.cluster.create_topic(f"{workflow.topic}-late")
        wait_for(workflow.events, "the first event")
        workflow.stop()


def _message(loader: Loader) -> str:
    """The last line, which is the one that says how the run ended, without its time and level."""
    lines = loader.errors.splitlines() or [""]
    assert "Traceback" not in loader.errors, loader.errors
    return lines[-1].partition("Z ")[2].partition(" ")[2].strip()


@contextlib.contextmanager
def place(cluster: Cluster, directory: Path) -> Iterator[Place]:
    """Where cases are tried on `cluster`; a certificate that they need goes into `directory`."""
    other_ca = directory / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(other_ca)
    with _Server(("127.0.0.1", 0), _CutOff) as cutting:
        thread = threading.Thread(target=cutting.serve_forever, args=(0.05,), name="cutting")
        thread.start()
        try:
            names = {
                "plain": cluster.bootstrap_servers,
                "sasl": cluster.sasl_bootstrap_servers,
                "proxied_port": cluster.nodes[0].ports.proxied,
                "sasl_port": cluster.nodes[0].ports.sasl_ssl,
                "ca": cluster.ca_path,
                "other_ca": other_ca,
                "cutting": f"127.0.0.1:{cutting.server_address[1]}",
                **cluster.users,
            }
            yield Place(cluster, names)
        finally:
            cutting.shutdown()
            thread.join()


def outcomes(cluster: Cluster, cases: Iterable[Case] = CASES, **variables: str) -> Iterator[Outcome]:
    """Try `cases`, several at once, with `variables` set for all of them, and give their outcomes in their order."""
    with (
        tempfile.TemporaryDirectory() as directory,
        place(cluster, Path(directory)) as where,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        yield from pool.map(lambda case: where.attempt(case, variables), cases)


def main() -> int:
    """Try all cases as they are by default; 1 if one of them did not end as it should."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="refused-") as directory, Cluster(Path(directory)) as cluster:
        found = list(outcomes(cluster))
    rows = [
        (
            each.case.name,
            str(each.exit_code),
            f"{each.seconds:.1f}",
            f"**WRONG** {each.wrong}" if each.wrong else each.message,
        )
        for each in found
    ]
    print(table(("case", "exit code", "seconds", "message"), rows, box=MARKDOWN))  # noqa: T201 - for people
    return 1 if any(each.wrong for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
