"""One broker in one JVM: started, stopped, killed, frozen."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.tools.processes import GuardedProcess

HOST = "127.0.0.1"
START_TIMEOUT = 180.0
STOP_TIMEOUT = 20.0
LOG_TAIL = 4000

# For clients of our own: nothing on standard error while a broker is away, and no long wait after it is back.
QUIET = {"log_level": 0, "reconnect.backoff.max.ms": 200}


class NodeError(Exception):
    """A broker ended by itself or did not answer; the message carries the tail of its log."""


@dataclass(frozen=True)
class Ports:
    """A node's ports; at `proxied` it listens for a proxy, and sends that listener's clients to `proxy`."""

    plaintext: int
    sasl_ssl: int
    controller: int
    proxied: int
    proxy: int


class Node:
    """A broker and controller, on the same ports and data through all its lives."""

    def __init__(self, node_id: int, ports: Ports, directory: Path, command: Sequence[str]) -> None:
        self.node_id = node_id
        self.ports = ports
        self.properties = directory / "server.properties"
        self.log = directory / "broker.log"
        self._command = [*command, str(self.properties)]
        self._process: GuardedProcess | None = None

    def __repr__(self) -> str:
        return f"<Node {self.node_id} at {self.bootstrap_servers}>"

    @property
    def bootstrap_servers(self) -> str:
        """The plaintext address of this node."""
        return f"{HOST}:{self.ports.plaintext}"

    @property
    def pid(self) -> int | None:
        """The process id of the newest life."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether its process exists; a frozen one does."""
        return self._process is not None and self._process.running

    def launch(self) -> None:
        """Begin to start, without waiting for it."""
        if not self.running:
            self._process = GuardedProcess(self._command, self.log)

    def wait_ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until the node answers clients and counts itself among the brokers.

        Raises:
            NodeError: it ended, or it is not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, **QUIET})
        while self.running:
            with contextlib.suppress(KafkaException):
                if self.node_id in admin.list_topics(timeout=1).brokers:
                    return
            if time.monotonic() > deadline:
                raise NodeError(f"{self} is not ready after {timeout:.0f} s\n{self.log_tail()}")
            time.sleep(0.02)
        raise NodeError(f"{self} ended by itself\n{self.log_tail()}")

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start, also again after `stop` or `kill`, and wait until ready.

        Raises:
            NodeError: it ended, or it is not ready after `timeout` seconds.
        """
        self.launch()
        self.wait_ready(timeout)

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End in good order (SIGTERM); killed if that takes more than `timeout` seconds."""
        self.terminate()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def terminate(self) -> None:
        """Begin to end in good order, without waiting for it."""
        self._signal(signal.SIGTERM)
        self.thaw()  # a frozen process does not hear SIGTERM

    def kill(self) -> None:
        """End at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self.wait()

    def freeze(self) -> None:
        """Hold the process (SIGSTOP): its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the process.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self._process is not None:
            self._process.wait(timeout)

    def log_tail(self) -> str:
        """Return the end of what the broker logged."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
