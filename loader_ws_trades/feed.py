"""The live source: one symbol's trade stream, connected again whenever it ends."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from http import HTTPStatus

import websocket
from websocket import WebSocketApp, WebSocketBadStatusException

from loader_ws_trades.config import Settings, redacted_url
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.lifecycle import AttemptLimit, Backoff, Task, spawn
from loader_ws_trades.wire import Wire

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds for each step of connecting, and for each write
_ATTEMPTS = (300, 300.0)  # the exchange's limit: connection attempts, and the seconds they are counted over
_FIRST_DELAY, _DELAY_CAP = 0.5, 30.0  # seconds; bounds of the delay between attempts


class Connection:
    """One connection, from the first attempt to its end, in the thread that calls `run`."""

    def __init__(
        self, url: str, on_frames: Callable[[list[bytes]], None], on_open: Callable[[], None], *, silence_limit: float
    ) -> None:
        self._app = WebSocketApp(
            url,
            on_open=lambda _app: on_open(),
            on_error=lambda _app, error: self._note(error),
        )
        self._wire = Wire(self._app, on_frames, silence_limit=silence_limit)
        self._error: Exception | None = None

    def _note(self, error: Exception) -> None:
        self._error = self._error or error

    def run(self) -> Exception | None:
        """Connect and read until the connection ends; the library's reason for the end, None after `close`.

        Raises:
            Exception: what `on_frames` raised.
        """
        # The library's sockets wait for ever by default, and run_forever takes no timeout of its own.
        websocket.setdefaulttimeout(CONNECT_TIMEOUT)
        options = [(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15000)] if hasattr(socket, "TCP_USER_TIMEOUT") else []
        try:
            # The library's own check of UTF-8 is pure Python; the decoder looks at the bytes itself.
            self._app.run_forever(dispatcher=self._wire, sockopt=options, skip_utf8_validation=True)
        finally:
            self._wire.release()
        if self._wire.failure:
            raise self._wire.failure
        return self._error

    def close(self) -> None:
        """End the connection from any thread, without waiting; may be called again."""
        self._wire.close()


class Feed:
    """The trade stream of `settings.symbol`, in a thread of its own.

    The thread waits in a connection, which `close` ends, or for the next attempt, which `close` ends too; connecting
    itself is bounded by the library's timeouts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._backoff = Backoff(_FIRST_DELAY, _DELAY_CAP)
        self._limit = AttemptLimit(*_ATTEMPTS)
        self._lock = threading.Lock()  # guards the pair of `_connection` and `_stopping`
        self._connection: Connection | None = None
        self._down_since: float | None = time.monotonic()
        self._down_text = ""
        self._connected_once = False
        self._task: Task | None = None
        self.reconnects = 0

    def start(self, take: Callable[[list[bytes]], bool], on_death: Callable[[BaseException], None]) -> None:
        """Begin. `take` gets the frames of each read and says whether there was a trade of ours among them."""
        self._take = take
        self._task = spawn("feed", self._run, on_death)

    def close(self) -> None:
        """Stop reading, without waiting; what was read is still handed over. May be called again."""
        with self._lock:
            self._stopping.set()
            if self._connection:
                self._connection.close()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the thread to end; whether it has."""
        return self._task is None or self._task.join(timeout)

    def trouble(self) -> str | None:
        """Since when and why there is no connection; None while there is one."""
        return self._down_text or None if self._down_since is not None else None

    def _run(self) -> None:
        self._down_since = time.monotonic()
        while not self._stopping.is_set():
            self._check_outage()
            if self._stopping.wait(self._limit.wait_needed()):
                return
            self._limit.note()
            with self._lock:
                if self._stopping.is_set():
                    return
                self._connection = Connection(
                    self._settings.stream_url,
                    self._on_frames,
                    self._on_open,
                    silence_limit=self._settings.feed_silence_limit,
                )
            ending = self._connection.run()
            if not self._stopping.is_set():
                self._await_next(ending)

    def _on_open(self) -> None:
        log.info("Connected to %s", redacted_url(self._settings.stream_url))
        self._down_since = None
        self._connected_once = True

    def _on_frames(self, frames: list[bytes]) -> None:
        if self._take(frames):
            self._backoff.reset()

    def _await_next(self, ending: Exception | None) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            self._down_text = ""
            self.reconnects += 1
        reason = _explain(ending)
        if isinstance(ending, WebSocketBadStatusException) and not self._connected_once:
            _refuse_location(ending)
        if not self._down_text:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            self._down_text = f"no connection to the exchange since {now} ({reason})"
        delay = max(self._backoff.next(), _retry_after(ending))
        log.warning("No connection to the exchange: %s; next attempt in %.1f s", reason, delay)
        self._stopping.wait(delay)

    def _check_outage(self) -> None:
        if self._down_since is not None and time.monotonic() - self._down_since > self._settings.feed_outage_limit:
            raise RunError(
                f"There was no connection to the exchange at {redacted_url(self._settings.stream_url)} for "
                f"{self._settings.feed_outage_limit:g} s ({self._down_text}); check BINANCE_WS_URL (--binance-ws-url) "
                "and the network"
            )


def _explain(ending: Exception | None) -> str:
    """The end of a connection in a few words, without what the peer may have sent at length."""
    if ending is None:
        return "closed"
    if isinstance(ending, WebSocketBadStatusException):
        status = ending.status_code
        hint = " (restricted location)" if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS else ""
        return f"the exchange answered the handshake with HTTP {status}{hint}"
    return f"{redacted_url(str(ending))[:200] or type(ending).__name__}"


def _refuse_location(ending: WebSocketBadStatusException) -> None:
    if ending.status_code == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        raise ConfigurationError(
            "The exchange does not serve this location (HTTP 451); run the loader in a permitted region, or set "
            "BINANCE_WS_URL (--binance-ws-url) to an endpoint that serves yours"
        )


def _retry_after(ending: Exception | None) -> float:
    """Seconds that a refused handshake asks us to wait, at most an hour."""
    if not isinstance(ending, WebSocketBadStatusException) or not ending.resp_headers:
        return 0.0
    asked = str(ending.resp_headers.get("retry-after", ""))
    return min(3600.0, float(asked)) if asked.isdigit() else 0.0
