"""Opens the socket of a stream, directly or through a proxy, with or without TLS, and reads the handshake's response.

websocket-client could do this too, but it reads responses of any length, follows redirects to any host, and cannot be
interrupted while it connects.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websocket import (
    WebSocketAddressException,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketProxyException,
    WebSocketTimeoutException,
)

from loader_ws_trades.binance.proxies import Proxy
from loader_ws_trades.binance.tls_socket import CONNECT_TIMEOUT, TlsSocket, limit_step
from loader_ws_trades.lifecycle import Deadline
from loader_ws_trades.text import printable

CONNECT_LIMIT = 30.0  # seconds for connecting in total, after name resolution
HEAD_LIMIT = 16 * 1024  # bytes of a response header; the exchange's has about 200

_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Without it, a dead peer is noticed only after 15 minutes.
    *([(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15000)] if hasattr(socket, "TCP_USER_TIMEOUT") else []),
]


class SilenceError(WebSocketTimeoutException):
    """No frame was received for too long, not even a ping."""


class StallError(WebSocketTimeoutException):
    """The rest of a frame did not arrive in time."""


class HandshakeError(WebSocketException):
    """The response to the handshake is not HTTP, or too long."""


class ProxyError(WebSocketProxyException):
    """The proxy is unreachable (`status` None), or rejects the connection."""

    def __init__(self, message: str, proxy: Proxy, status: int | None = None) -> None:
        super().__init__(message)
        self.proxy = proxy
        self.status = status


class Transport:
    """One attempt to connect to `url`, through `proxy` if given; call `open` once."""

    def __init__(self, url: str, proxy: Proxy | None) -> None:
        parts = urlsplit(url)
        self._is_secure = parts.scheme == "wss"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._is_secure else 80)
        # The trailing dot of an absolute name is only for DNS.
        self._name = self._host.rstrip(".")
        self.url = urlunsplit(parts._replace(netloc=re.sub(r"\.+(?=(:[0-9]*)?$)", "", parts.netloc)))
        """The URL to request, with the host name as in certificates and HTTP."""
        self._proxy = proxy
        self._socket: socket.socket | None = None
        self._deadline = Deadline(CONNECT_LIMIT)
        self._aborted = False

    def open(self) -> HandshakeSocket:
        """Connect, with TLS if the URL says so.

        Raises:
            OSError: or a WebSocketException, if that fails; ssl.SSLError is an OSError.
        """
        try:
            sock = self._connect_through(self._proxy) if self._proxy else self._connect(self._host, self._port)
            return HandshakeSocket(self._secure(sock) if self._is_secure else sock, self._deadline)
        except BaseException:
            if self._socket:
                self._socket.close()
            raise

    def abort(self) -> None:
        """Abort connecting, from any thread, without waiting."""
        self._aborted = True
        sock = self._socket
        if sock:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of `host` that accepts."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise WebSocketAddressException(f"the host name {host} does not resolve ({error})") from error
        self._deadline = Deadline(CONNECT_LIMIT)
        failure: OSError = TimeoutError("timed out")
        for family, kind, protocol, _, address in found:
            self._socket = sock = socket.socket(family, kind, protocol)
            if self._aborted:
                break
            try:
                limit_step(sock, self._deadline)
                for option in _OPTIONS:
                    sock.setsockopt(*option)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _connect_through(self, proxy: Proxy) -> socket.socket:
        try:
            sock = self._connect(proxy.host, proxy.port)
            target = f"[{self._name}]:{self._port}" if ":" in self._name else f"{self._name}:{self._port}"
            headers = {"Host": target, **proxy.headers}
            lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            sock.sendall("\r\n".join(lines).encode())
            status, _ = parse_head(read_head(sock, self._deadline))
        except (OSError, WebSocketException) as error:
            raise ProxyError(f"no connection through the proxy {proxy.address}: {error}", proxy) from error
        if not 200 <= status < 300:
            raise ProxyError(f"the proxy {proxy.address} answered CONNECT with HTTP {status}", proxy, status)
        return sock

    def _secure(self, sock: socket.socket) -> TlsSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        if os.environ.get("SSLKEYLOGFILE"):
            context.keylog_filename = os.environ["SSLKEYLOGFILE"]
        secured = TlsSocket(sock, context, self._name)
        secured.do_handshake(self._deadline)
        return secured


class HandshakeSocket:
    """Wraps a connected socket for the library's handshake: `recv` first reads and checks the complete response header.

    Everything else is passed through.
    """

    def __init__(self, sock: socket.socket | TlsSocket, deadline: Deadline) -> None:
        self.socket = sock
        self._deadline = deadline
        self._head: bytes | None = None
        self._at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def recv(self, size: int) -> bytes:
        """The next bytes of the response to the handshake.

        Raises:
            WebSocketException: or OSError, if there is none in time, or its status is not 101: the library would read
                an unlimited body, or follow a redirect.
        """
        if self._head is None:
            self._head = read_head(self.socket, self._deadline)
            self.socket.settimeout(CONNECT_TIMEOUT)
            status, headers = parse_head(self._head)
            if status != 101:
                raise WebSocketBadStatusException(f"HTTP {status}", status, None, headers, None)
        piece = self._head[self._at : self._at + size]
        self._at += len(piece)
        return piece


def read_head(sock: socket.socket | TlsSocket, deadline: Deadline) -> bytes:
    """The status line and headers of a response, without reading any further.

    Raises:
        WebSocketException: or OSError, if they do not arrive in time, or are too long.
    """
    head = bytearray()
    while not head.endswith((b"\n\r\n", b"\n\n")):
        if len(head) >= HEAD_LIMIT:
            raise HandshakeError(f"a response with more than {HEAD_LIMIT} bytes of headers")
        try:
            limit_step(sock, deadline)
            piece = sock.recv(1)
        except TimeoutError as error:
            raise WebSocketTimeoutException("no complete response in time") from error
        if not piece:
            raise WebSocketConnectionClosedException("the connection ended before a response")
        head += piece
    return bytes(head)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status, and the headers by lower-case name.

    Raises:
        HandshakeError: if it is not HTTP.
    """
    first, *lines = head.decode("latin-1").split("\n")
    match = re.match(r"HTTP/1\.[01] ([0-9]{3})(?:\s|$)", first)
    if not match:
        raise HandshakeError(f"a response that is not HTTP: {printable(first.strip(), 60)}")
    headers = (line.partition(":") for line in lines)
    return int(match[1]), {name.strip().lower(): value.strip() for name, _, value in headers if name.strip()}
