"""Requests to REST, each bounded in size and in total time, and broken off when the run ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import urllib3

from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.lifecycle import Deadline

_TIME_LIMIT = 10.0  # seconds for a request as a whole: names, connecting, TLS, headers and body
_SIZE_LIMIT = 8 * 1024 * 1024  # bytes of a body, decompressed; a thousand rows have 200 KB
_PIECE = 64 * 1024
_TOO_LATE = f"no complete answer in {_TIME_LIMIT:g} s"
_TURN = 0.05  # seconds in which the end of the run is noticed


class Answer(NamedTuple):
    """What REST answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Requests by way of `pool`; none outlasts its time, or `stopping`, by more than a moment.

    The library bounds each read, not their sum, and neither the resolver nor an attempt to connect can be
    interrupted. So each request has a thread of its own, which is left alone when its time is over: its socket is
    shut, and so it ends by itself.
    """

    def __init__(self, pool: urllib3.PoolManager, stopping: threading.Event) -> None:
        pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        self._pool = pool
        self._stopping = stopping

    def close(self) -> None:
        """Close the connections that no request uses."""
        pools = self._pool.pools
        for key in pools.keys():  # noqa: SIM118 - it is no dict, and cannot be iterated over
            pools[key].close()
        pools.clear()

    def get(self, url: str, fields: Mapping[str, Any]) -> Answer:
        """The answer to a GET request, of whatever status; redirects are not followed.

        Raises:
            UnavailableError: if it took too long or was too large, or the run ends.
            urllib3.exceptions.HTTPError: if there was none.
        """
        request, deadline = _Request(lambda: self._ask(url, fields)), Deadline(_TIME_LIMIT)
        if not self._stopping.is_set():
            request.start()
        while request.is_alive() and not (deadline.passed or self._stopping.is_set()):
            request.join(_TURN)
        outcome = request.outcome
        if outcome is None:
            request.break_off()
            raise UnavailableError("the run is ending" if self._stopping.is_set() else _TOO_LATE)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _ask(self, url: str, fields: Mapping[str, Any]) -> Answer:
        answer = self._pool.request(
            "GET", url, fields=dict(fields), retries=False, redirect=False, preload_content=False
        )
        pieces, size = [], 0
        while piece := answer.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > _SIZE_LIMIT:
                answer.close()
                raise UnavailableError(f"an answer of more than {_SIZE_LIMIT // 1024**2} MiB")
        answer.release_conn()
        return Answer(answer.status, answer.headers, b"".join(pieces))


class _Request(threading.Thread):
    """Asks once; `outcome` is the answer or the exception, or None as long as there is none."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        super().__init__(name="rest", daemon=True)
        self._ask = ask
        self._socket: Any = None
        self._broken_off = False
        self.outcome: Answer | BaseException | None = None

    def run(self) -> None:
        """Ask."""
        try:
            self.outcome = self._ask()
        except BaseException as error:
            self.outcome = error
        if self._broken_off and self._socket is not None:
            self._socket.close()  # the pool never gets it back, and does not close it

    @classmethod
    def use(cls, used: Any) -> None:
        """Note the socket that the request of this thread uses from now on.

        Raises:
            OSError: if the request has been broken off meanwhile.
        """
        request = threading.current_thread()
        if isinstance(request, cls):
            # In this order, the other way round than `break_off`: one of the two sees what the other did.
            request._socket = used
            if request._broken_off:
                used.close()
                raise OSError("broken off")

    def break_off(self) -> None:
        """End by itself, soon; called in another thread."""
        self._broken_off = True
        used = getattr(self._socket, "socket", self._socket)  # TLS within TLS is no socket, but has one
        if isinstance(used, socket.socket):
            with contextlib.suppress(OSError):  # closed already, or made a TLS one; then `use` comes next
                socket.socket.shutdown(used, socket.SHUT_RDWR)


class _HTTP(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _Request.use(made)
        return made

    def _tunnel(self) -> None:
        super()._tunnel()
        # A proxy's answer that was broken off ends like a whole one; TLS must not begin on a socket that is shut.
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
