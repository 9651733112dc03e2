"""The HTTP server beside clients that mean no good, and on a machine that has no more threads."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from unittest.mock import Mock

import pytest

from loader_ws_trades import exposition
from loader_ws_trades.vitals import Vitals
from tests.scrape import ask, free_port
from tests.waiting import wait_for

AT_ONCE = 16  # as CONTRIBUTING.md says


@pytest.fixture
def port() -> Iterator[int]:
    port = free_port()
    server = exposition.Exposition(port, Mock(spec=Vitals, trouble=lambda: None))
    server.start()
    try:
        yield port
    finally:
        server.close()


def answers(port: int) -> bool:
    try:
        return ask(port, "/healthz").status == 200
    except OSError:
        return False


def test_clients_that_trickle_are_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_REQUEST", 1.0)  # but a client may be silent for 5 s, as before
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(AT_ONCE)]

        def answers_beside_them() -> bool:
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"G")
            return answers(port)

        wait_for(lambda: not answers_beside_them(), "every place to be taken", 0.9)
        wait_for(answers_beside_them, "a place", 4)


def test_what_no_thread_can_be_had_for_gives_its_place_back(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
