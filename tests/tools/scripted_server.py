"""A server on a real socket, whose answers a test scripts."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress

Script = Callable[[socket.socket], None]
_PLENTY = 50_000_000  # bytes: what a server sends at most


class Server:
    """Answers each connection by `script`, in a thread of its own, until it is left."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.accepted = 0
        self._pool = ThreadPoolExecutor(4)
        self._open: list[socket.socket] = []
        self._served: list[Future[None]] = []

    def __enter__(self) -> Server:
        self._pool.submit(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            sock.close()
        self._pool.shutdown()

    def check_client_leaves(self) -> None:
        """Fail unless the client ends its connections by itself, and with them their scripts."""
        assert not wait(self._served, 5).not_done, "the client keeps a connection"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._open.append(sock)
                self._served.append(self._pool.submit(self._serve, sock))

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            sock.settimeout(10)
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            with sock:
                self._script(sock)


def request_on(sock: socket.socket) -> bytes:
    """The next HTTP request, of a client that is still there."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(4096)
        if not piece:
            raise ConnectionError
        request += piece
    return request


def silent(sock: socket.socket) -> None:
    """A script: read whatever comes, until the client leaves."""
    while sock.recv(4096):
        pass


def answering(first: bytes, again: bytes = b"") -> Script:
    """A script: answer each request with `first`, and then send `again` without end."""

    def script(sock: socket.socket) -> None:
        while True:
            request_on(sock)
            sock.sendall(first)
            for _ in range(_PLENTY // len(again) if again else 0):
                sock.sendall(again)

    return script


def dripping(head: bytes, drop: bytes, every: float = 0.1) -> Script:
    """A script: answer with `head`, then with one `drop` after another, in time for each read and without end."""
    pause = threading.Event()

    def script(sock: socket.socket) -> None:
        request_on(sock)
        sock.sendall(head)
        while not pause.wait(every):
            sock.sendall(drop)

    return script


class ConnectProxy:
    """A script for `Server`: an HTTP proxy that lets through who has the right user and password."""

    def __init__(self, plain: str = "") -> None:
        self.targets: list[str] = []
        self._expected = base64.b64encode(plain.encode()) if plain else b""

    def __call__(self, sock: socket.socket) -> None:
        """Serve one connection."""
        request = request_on(sock)
        self.targets.append(request.split()[1].decode())
        if self._expected and b"Proxy-Authorization: Basic " + self._expected + b"\r\n" not in request:
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = self.targets[-1].rpartition(":")
        with closing(socket.create_connection((host, int(port)), 10)) as far:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            backward = threading.Thread(target=_pass_on, args=(far, sock))
            backward.start()
            _pass_on(sock, far)
            backward.join(10)


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    with suppress(OSError):
        while data := near.recv(65536):
            far.sendall(data)
    with suppress(OSError):
        far.shutdown(socket.SHUT_RDWR)
