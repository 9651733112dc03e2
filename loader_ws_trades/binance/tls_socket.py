"""TLS over a socket, with one system call for all that has arrived."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import Any

from loader_ws_trades.lifecycle import Deadline

CONNECT_TIMEOUT = 10.0  # seconds for each step of connecting, and for each write
_READ_SIZE = 64 * 1024  # bytes received at a time while connecting
_RECORD_SIZE = 16 * 1024  # bytes that a record holds at most


class TlsSocket:
    """TLS over a connected socket that returns everything received so far with one system call.

    `ssl.SSLSocket` makes two calls per record, and another one to find that no more are waiting, which is more than
    half of the cost of a read. All other attributes are those of the socket.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.has_more = False
        """Whether more was received than the last read has returned."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def do_handshake(self, deadline: Deadline) -> None:
        """Secure the connection.

        Raises:
            OSError: if that fails, or is not over in time; ssl.SSLError is one.
        """
        limit = Deadline(min(CONNECT_TIMEOUT, deadline.remaining))
        try:
            while not self._handshake_is_over():
                self._send()
                limit_step(self._socket, limit)
                self._wait()
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                self._send()  # why it failed
            raise
        self._send()

    def _handshake_is_over(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are some."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return self._read(size)
            self._wait()

    def receive(self, size: int) -> bytes:
        """At most `size` of the bytes that are there, as soon as there are some; none at the end of the stream.

        Raises:
            ssl.SSLWantReadError: if it is not a complete record.
            BlockingIOError: if nothing has come in the time that the socket waits.
            OSError: if the connection is lost.
        """
        if not self.has_more:
            received = os.read(self._socket.fileno(), size)
            if not received:
                return b""
            self._incoming.write(received)
        return self._read(size)

    def send(self, data: bytes) -> int:
        """Send all of `data`."""
        self._tls.write(data)
        self._send()
        return len(data)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self.send(data)

    def _wait(self) -> None:
        self._take(self._socket.recv(_READ_SIZE))

    def _take(self, received: bytes) -> None:
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()

    def _read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        self.has_more = True
        try:
            while size and self.has_more:
                piece = self._tls.read(min(size, _RECORD_SIZE))
                self.has_more = bool(piece and (self._incoming.pending or self._tls.pending()))
                pieces.append(piece)
                size -= len(piece)
        except ssl.SSLEOFError:  # as many servers end it
            self.has_more = False
        except ssl.SSLWantReadError:
            self.has_more = False
            if not pieces:
                raise
        finally:
            if self._outgoing.pending:
                self._send()  # the answer to a new key
        return b"".join(pieces)

    def _send(self) -> None:
        send_all(self._socket, self._outgoing.read())


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send all of `data`.

    Raises:
        OSError: if that fails; not BlockingIOError where the kernel limits the time, as that means "nothing has come".
    """
    try:
        sock.sendall(data)
    except BlockingIOError as error:
        raise TimeoutError("timed out") from error


def limit_step(sock: socket.socket | TlsSocket, deadline: Deadline) -> None:
    """Limit the next step to its own timeout, and to what is left of the total.

    Raises:
        TimeoutError: if no time is left.
    """
    left = deadline.remaining
    if not left:
        raise TimeoutError("timed out")
    sock.settimeout(min(CONNECT_TIMEOUT, left))
