"""A TCP proxy in front of a broker's PROXIED listener, which loses answers or is slow on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

from tests.tools.apache_kafka import Node
from tests.tools.apache_kafka.node import HOST

_PRODUCE, _END_TRANSACTION = 0, 26  # Kafka's api keys
_UNKNOWN_PRODUCER = 59  # the error code after which a producer can only abort its transaction
_ACCEPT_EVERY = 0.2  # seconds between two looks whether to end


class FaultProxy:
    """Passes on what clients and a broker say to each other, from the port that the broker advertises for it.

    Args:
        node: the broker.
        lose_every: in place of every so many-th answer to a Produce request, the connection is cut: the broker has
            written the records, and the client does not know.
        bytes_per_second: how fast each client may send; none: as it likes.
        refuse_commits: how many requests to end a transaction are refused, without the broker seeing them.
    """

    def __init__(
        self, node: Node, *, lose_every: int | None = None, bytes_per_second: int | None = None, refuse_commits: int = 0
    ) -> None:
        self.bootstrap_servers = f"{HOST}:{node.ports.proxy}"
        self.lost = 0
        """Answers lost."""
        self.refuse_commits = refuse_commits
        self._broker = (HOST, node.ports.proxied)
        self._lose_every = lose_every
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._answers = 0
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server((HOST, node.ports.proxy))
        self._server.settimeout(_ACCEPT_EVERY)

    def __enter__(self) -> FaultProxy:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.close()
        with self._lock:
            _cut(*self._sockets)
        for thread in self._threads:
            thread.join()

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._server.accept()
                client.settimeout(None)
                try:
                    broker = socket.create_connection(self._broker, timeout=5)
                except OSError:
                    client.close()
                    continue
                broker.settimeout(None)
                with self._lock:
                    self._sockets += (client, broker)
                produced: set[int] = set()  # correlation ids of Produce requests that are not answered yet
                self._spawn(self._carry, client, broker, produced, True)
                self._spawn(self._carry, broker, client, produced, False)

    def _carry(self, source: socket.socket, target: socket.socket, produced: set[int], requests: bool) -> None:
        """Pass on whole messages in one direction, until either side is gone."""
        with contextlib.suppress(OSError, EOFError), source.makefile("rb") as messages:
            while head := messages.read(4):
                (size,) = struct.unpack(">i", head)
                body = messages.read(size)
                if len(body) < size:
                    break
                if requests:
                    key, _, correlation = struct.unpack(">hhi", body[:8])
                    if key == _END_TRANSACTION and self._is_to_be_refused():
                        source.sendall(struct.pack(">iiih", 10, correlation, 0, _UNKNOWN_PRODUCER))
                        continue
                    if key == _PRODUCE:
                        produced.add(correlation)
                    self._brake(size)
                elif self._is_to_be_lost(struct.unpack(">i", body[:4])[0], produced):
                    break
                target.sendall(head + body)
        _cut(source, target)

    def _brake(self, size: int) -> None:
        if self._bytes_per_second:
            self._closing.wait(size / self._bytes_per_second)

    def _is_to_be_refused(self) -> bool:
        with self._lock:
            self.refuse_commits -= 1
            return self.refuse_commits >= 0

    def _is_to_be_lost(self, correlation: int, produced: set[int]) -> bool:
        if correlation not in produced:
            return False
        produced.discard(correlation)
        with self._lock:
            self._answers += 1
            is_lost = self._lose_every is not None and self._answers % self._lose_every == 0
            self.lost += is_lost
        return is_lost


def _cut(*sockets: socket.socket) -> None:
    """End connections, whatever waits in them; each is closed once its threads have released it."""
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
