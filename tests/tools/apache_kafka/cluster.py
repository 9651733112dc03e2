"""A cluster of real brokers on loopback, for as long as a `with` block lasts."""

import contextlib
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka.admin import AclBinding, AclBindingFilter  # no export is marked

from tests.tools.apache_kafka.certificates import write_certificates
from tests.tools.apache_kafka.client import ANSWER_TIMEOUT, Kafka
from tests.tools.apache_kafka.distribution import Distribution, obtain
from tests.tools.apache_kafka.node import HOST, START_TIMEOUT, STOP_TIMEOUT, Node, NodeError, Ports
from tests.tools.apache_kafka.properties import server_properties
from tests.tools.processes import limited, start

CLUSTER_ID = "bG9hZGVyLXdzLXRyYWRlcw"
USERS = {"admin": "admin-secret", "loader": "loader-secret", "reader": "reader-secret"}
LOG4J = Path(__file__).with_name("log4j2.properties")

# Below the ports that systems give to outgoing connections: that of a broker that is down stays free for its restart.
PORT_RANGE = range(20000, 32000)


class Cluster(Kafka):
    """Real brokers in `directory`, which are there inside its `with` block.

    Each has a PLAINTEXT listener, whose clients may do everything, and a SASL_SSL listener, whose users (SCRAM-SHA-512)
    may do nothing that was not granted to them, but for `admin`. Topics are never created by use.

    A third listener is for a proxy that a test puts between clients and a broker: it listens at
    ``node.ports.proxy``, passes on to ``node.ports.proxied``, and its clients bootstrap from its own address.

    Args:
        directory: where data, logs and certificates go; what an earlier cluster left there is taken up again.
        nodes: how many brokers, each also a controller.
        properties: broker properties that are added or that replace ours.
        port: the first broker's plaintext port if it is free, with SASL_SSL on the next one.
        users: further users, with their passwords.
        optimized: whether Java optimizes what runs often, which doubles the CPU time of a broker's first minute.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 1,
        *,
        properties: Mapping[str, str] | None = None,
        port: int | None = None,
        users: Mapping[str, str] | None = None,
        optimized: bool = False,
    ) -> None:
        self.users: Mapping[str, str] = USERS | dict(users or {})
        self.nodes: list[Node] = []
        self._directory = directory.absolute()
        self.ca_path = self._directory / "ca.pem"
        self._size = nodes
        self._properties = dict(properties or {})
        self._first_port = port
        self._compiler = () if optimized else ("-XX:TieredStopAtLevel=1",)
        super().__init__("")

    @property
    def sasl_bootstrap_servers(self) -> str:
        """The addresses of the SASL_SSL listeners."""
        return ",".join(f"{HOST}:{node.ports.sasl_ssl}" for node in self.nodes)

    def secured(self, user: str) -> dict[str, Any]:
        """Return the client properties with which `user` connects by SASL_SSL."""
        return {
            "bootstrap.servers": self.sasl_bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": self.users[user],
            "ssl.ca.location": str(self.ca_path),
        }

    def grant(self, user: str, resource: str, *operations: str, kind: str = "TOPIC", pattern: str = "LITERAL") -> None:
        """Allow `user` operations such as `WRITE` on a topic, or on another `kind` (`GROUP`, `TRANSACTIONAL_ID`).

        With the `pattern` `PREFIXED`, on all whose names begin with `resource`.
        """
        rights = [AclBinding(*_right(user, resource, operation, kind, pattern)) for operation in operations]
        for answer in self.admin.create_acls(rights).values():
            answer.result(ANSWER_TIMEOUT)

    def revoke(self, user: str, resource: str, *operations: str, kind: str = "TOPIC") -> None:
        """Take back what `grant` gave."""
        rights = [AclBindingFilter(*_right(user, resource, operation, kind)) for operation in operations]
        for answer in self.admin.delete_acls(rights).values():
            answer.result(ANSWER_TIMEOUT)

    def __enter__(self) -> "Cluster":
        distribution = obtain()
        self._directory.mkdir(parents=True, exist_ok=True)
        write_certificates(self.ca_path, self._server_pem)
        try:
            self._start(distribution)
        except NodeError as error:
            if "Address already in use" not in str(error):
                raise
            # Somebody took a port between our look and the broker's bind.
            self._start(distribution)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def _server_pem(self) -> Path:
        return self._directory / "server.pem"

    def _start(self, distribution: Distribution) -> None:
        try:
            self._make_nodes(distribution)
            self._format(distribution)
            for node in self.nodes:
                node.launch()
            deadline = time.monotonic() + START_TIMEOUT
            for node in self.nodes:
                node.wait_ready(max(0.0, deadline - time.monotonic()))
        except BaseException:
            for node in self.nodes:
                node.kill()
            raise

    def _stop(self) -> None:
        for node in self.nodes:
            node.terminate()
        # One deadline for all: the last controllers of a quorum can wait for each other.
        deadline = time.monotonic() + STOP_TIMEOUT
        for node in self.nodes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(max(0.0, deadline - time.monotonic()))
            node.kill()

    def _make_nodes(self, distribution: Distribution) -> None:
        ports = dict(enumerate(_free_ports(self._size, self._first_port), 1))
        voters = {node_id: node_ports.controller for node_id, node_ports in ports.items()}
        heap = ("-Xms256m", "-Xmx768m") if self._size == 1 else ("-Xms128m", "-Xmx384m")
        logging = f"-Dlog4j2.configurationFile={LOG4J.as_uri()}"
        command = distribution.command("kafka.Kafka", *heap, *self._compiler, logging)
        self.nodes = []
        for node_id, node_ports in ports.items():
            directory = self._directory / f"node-{node_id}"
            directory.mkdir(exist_ok=True)
            node = Node(node_id, node_ports, directory, command)
            properties = server_properties(node_id, node_ports, voters, directory / "data", self._server_pem)
            properties.update(self._properties)
            node.properties.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
            self.nodes.append(node)
        self.bootstrap_servers = ",".join(node.bootstrap_servers for node in self.nodes)

    def _format(self, distribution: Distribution) -> None:
        """Give each node its storage and, in it, the cluster's users."""
        tool = distribution.command("kafka.tools.StorageTool", "-XX:TieredStopAtLevel=1")
        scram = [f"SCRAM-SHA-512=[name={name},iterations=4096,password={self.users[name]}]" for name in self.users]
        users = [argument for user in scram for argument in ("--add-scram", user)]
        runs = [
            start(
                [*tool, "format", "-c", str(node.properties), "-t", CLUSTER_ID, "--ignore-formatted", *users],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in self.nodes
        ]
        # All have ended before any is judged, so none is left running.
        with contextlib.ExitStack() as stack:
            for run in runs:
                stack.enter_context(limited(run, 2 * STOP_TIMEOUT))
            outputs = [run.communicate()[0] for run in runs]
        for node, run, output in zip(self.nodes, runs, outputs, strict=True):
            if run.returncode != 0:
                raise NodeError(f"{node}: its storage could not be formatted\n{output}")


def _right(
    user: str, resource: str, operation: str, kind: str, pattern: str = "LITERAL"
) -> tuple[str, str, str, str, str, str, str]:
    return kind, resource, pattern, f"User:{user}", "*", operation, "ALLOW"


def _free_ports(nodes: int, first: int | None) -> list[Ports]:
    """Return free ports for each node; `first` and the next one are the first node's if they are free."""
    wanted = [] if first is None else [first, first + 1]
    chosen = wanted if all(_is_free(port) for port in wanted) else []
    needed = nodes * len(fields(Ports))
    while len(chosen) < needed:
        port = free_port()
        if port not in chosen:
            chosen.append(port)
    width = len(fields(Ports))
    return [Ports(*chosen[start : start + width]) for start in range(0, needed, width)]


def free_port() -> int:
    """A free port that no outgoing connection is given while nobody listens on it."""
    while True:
        port = secrets.choice(PORT_RANGE)
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the broker binds: connections of an earlier life that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
