"""HTTP requests, each bounded in size and total time, and aborted when the run ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import urllib3

from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Deadline

_TIME_LIMIT = 10.0  # seconds for a whole request: name resolution, connecting, TLS, headers and body
_SIZE_LIMIT = 8 * 1024 * 1024  # bytes of a decompressed body; a thousand rows have 200 KB
_PIECE = 64 * 1024
_POLL_INTERVAL = 0.05  # seconds between checks whether the run ends


class Response(NamedTuple):
    """A response of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Sends requests through `pool`; none outlasts its time limit, or `stopping`, by more than a moment.

    The library limits each read, not their sum, and neither name resolution nor connecting can be interrupted. So each
    request has its own thread, which is abandoned when time is up: its socket is shut down, and so it ends by itself.
    """

    def __init__(self, pool: urllib3.PoolManager, stopping: threading.Event) -> None:
        pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        self._pool = pool
        self._stopping = stopping

    def close(self) -> None:
        """Close idle connections."""
        pools = self._pool.pools
        for key in pools.keys():  # noqa: SIM118 - not a dict, and not iterable
            pools[key].close()
        pools.clear()

    def get(
        self, url: str, fields: Mapping[str, Any], *, most: int | None = None, seconds: float | None = None
    ) -> Response:
        """Send a GET request and return the response, whatever its status; redirects are not followed.

        Args:
            url: what is asked for.
            fields: the query.
            most: bytes that the decompressed body may have, if not 8 MiB.
            seconds: how long the whole request may take, if not 10.

        Raises:
            UnavailableError: if it takes too long or is too large, or the run ends.
            urllib3.exceptions.HTTPError: if none arrived.
        """
        seconds = seconds or _TIME_LIMIT
        request, deadline = _Request(lambda: self._send(url, fields, most or _SIZE_LIMIT)), Deadline(seconds)
        if not self._stopping.is_set():
            request.start()
        while request.is_alive() and not (deadline.passed or self._stopping.is_set()):
            request.join(_POLL_INTERVAL)
        outcome = request.outcome
        if outcome is None:
            request.abort()
            raise UnavailableError(
                "the run is ending" if self._stopping.is_set() else f"no complete response in {seconds:g} s"
            )
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _send(self, url: str, fields: Mapping[str, Any], most: int) -> Response:
        response = self._pool.request(
            "GET", url, fields=dict(fields), retries=False, redirect=False, preload_content=False
        )
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                response.close()
                raise UnavailableError(f"a response of more than {most // 1024**2} MiB")
        response.release_conn()
        return Response(response.status, response.headers, b"".join(pieces))


class _Request(threading.Thread):
    """Sends one request; `outcome` is the response or the exception, or None until then."""

    def __init__(self, send: Callable[[], Response]) -> None:
        super().__init__(name="rest", daemon=True)
        self._send = send
        self._socket: Any = None
        self._aborted = False
        self.outcome: Response | BaseException | None = None

    def run(self) -> None:
        """Send the request."""
        try:
            self.outcome = self._send()
        except BaseException as error:
            self.outcome = error
        if self._aborted and self._socket is not None:
            self._socket.close()  # the pool never gets it back, and so does not close it

    @classmethod
    def use(cls, used: Any) -> None:
        """Set the socket that the request of this thread uses from now on.

        Raises:
            OSError: if the request has been aborted meanwhile.
        """
        request = threading.current_thread()
        if isinstance(request, cls):
            # The reverse of the order in `abort`, so that one of the two sees what the other did.
            request._socket = used
            if request._aborted:
                used.close()
                raise OSError("aborted")

    def abort(self) -> None:
        """Make the request end soon; called from another thread."""
        self._aborted = True
        used = getattr(self._socket, "socket", self._socket)  # TLS within TLS wraps a socket
        if isinstance(used, socket.socket):
            with contextlib.suppress(OSError):  # closed already, or being wrapped in TLS; then `use` follows
                socket.socket.shutdown(used, socket.SHUT_RDWR)


class _HTTP(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _Request.use(made)
        return made

    def _tunnel(self) -> None:
        super()._tunnel()
        # An aborted proxy response looks like a complete one; TLS must not start on a socket that was shut down.
        _Request.use(self.sock)

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock:
            _Request.use(self.sock)
        super().request(*args, **options)


class _HTTPS(_HTTP, urllib3.connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _Request.use(self.sock)


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPS
