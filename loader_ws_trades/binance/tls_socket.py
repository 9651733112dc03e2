"""TLS over a socket, with one system call for all that has arrived."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import Any

from loader_ws_trades.lifecycle import Deadline

CONNECT_TIMEOUT = 10.0  # seconds for each step of connecting, and for each write
_READ_SIZE = 256 * 1024  # bytes received at a time


class TlsSocket:
    """TLS over a connected socket that returns everything received so far with one system call.

    `ssl.SSLSocket` makes two calls per record, and another one to find that no more are waiting, which is more than
    half of the cost of a read. All other attributes are those of the socket.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._received = bytearray(_READ_SIZE)
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
                self._receive()
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
            piece = bytearray(size)
            with contextlib.suppress(ssl.SSLWantReadError):
                return bytes(piece[: self._read(memoryview(piece))])
            self._receive()

    def read_into(self, view: memoryview) -> int:
        """Read what is there without waiting; 0 at the end of the stream.

        Raises:
            ssl.SSLWantReadError: if it is not a complete record.
            OSError: if the connection is lost.
        """
        if not self.has_more:
            self._take(os.readv(self._socket.fileno(), [self._received]))
        return self._read(view)

    def send(self, data: bytes) -> int:
        """Send all of `data`."""
        self._tls.write(data)
        self._send()
        return len(data)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self.send(data)

    def _receive(self) -> None:
        self._take(self._socket.recv_into(self._received))

    def _take(self, size: int) -> None:
        if size:
            self._incoming.write(memoryview(self._received)[:size])
        else:
            self._incoming.write_eof()

    def _read(self, view: memoryview) -> int:
        size, limit = 0, len(view)
        self.has_more = True
        try:
            while size < limit and self.has_more:
                read = self._tls.read(limit - size, view[size:])
                self.has_more = bool(read and (self._incoming.pending or self._tls.pending()))
                size += read  # type: ignore[operator]
        except ssl.SSLEOFError:  # as many servers end it
            self.has_more = False
        except ssl.SSLWantReadError:
            self.has_more = False
            if not size:
                raise
        finally:
            if self._outgoing.pending:
                self._send()  # the answer to a new key
        return size

    def _send(self) -> None:
        self._socket.sendall(self._outgoing.read())


def limit_step(sock: socket.socket | TlsSocket, deadline: Deadline) -> None:
    """Limit the next step to its own timeout, and to what is left of the total.

    Raises:
        TimeoutError: if no time is left.
    """
    left = deadline.remaining
    if not left:
        raise TimeoutError("timed out")
    sock.settimeout(min(CONNECT_TIMEOUT, left))
