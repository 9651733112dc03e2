"""The HTTP server of metrics and probes, with hostile clients, and without more threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from loader_ws_trades.config.loading import load
from loader_ws_trades.monitoring import server
from loader_ws_trades.monitoring.status import RunStatus
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.scrape import ask
from tests.tools.waiting import wait_for

AT_ONCE = 16  # as CONTRIBUTING.md says


@pytest.fixture
def port() -> Iterator[int]:
    settings = load({"metrics_port": str(free_port())}, needed=())
    running = server.MetricsServer(settings, RunStatus, None, lambda: None)
    running.start()
    try:
        assert settings.metrics_port is not None
        yield settings.metrics_port
    finally:
        running.close()


def answers(port: int) -> bool:
    try:
        return ask(port, "/healthz").status == 200
    except OSError:
        return False


def connected(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port)))


@pytest.mark.parametrize("count", [AT_ONCE, AT_ONCE + 8, 10 * AT_ONCE])
@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nHost: "], ids=["silent", "half a request"])
def test_idle_clients_do_not_block_probes(port: int, count: int, said: bytes) -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(count):
            connected(stack, port).sendall(said)
            assert threading.active_count() - before <= 2 * AT_ONCE
        assert all(answers(port) for _ in range(12))


def test_slow_clients_are_disconnected(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REQUEST", 0.3)  # but a client may be silent for 5 s, as before
    with ExitStack() as stack:
        clients = [connected(stack, port) for _ in range(AT_ONCE)]

        def are_cut_off() -> bool:
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"G")
                    client.setblocking(False)
                    if client.recv(1) == b"":
                        clients.remove(client)
            return not clients

        wait_for(are_cut_off, "their end")


def test_failed_thread_start_frees_its_slot(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "process_request_thread" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(AT_ONCE):
            assert not answers(port)
    assert answers(port)
