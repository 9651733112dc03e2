"""One connection to the exchange's stream."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from websocket import WebSocketApp, WebSocketException

from loader_ws_trades.binance.proxies import Proxy
from loader_ws_trades.binance.transport import Transport
from loader_ws_trades.binance.websocket import FrameReader


class Connection:
    """One connection, from connecting to its end, in the thread that calls `run`; `send` needs `sends`."""

    def __init__(
        self,
        url: str,
        on_frames: Callable[[list[bytes]], None],
        on_open: Callable[[], None],
        *,
        silence_limit: float,
        proxy: Proxy | None = None,
        sends: bool = False,
    ) -> None:
        self._transport = Transport(url, proxy)
        self._app = WebSocketApp(
            self._transport.url,
            on_open=lambda _app: on_open(),
            on_error=lambda _app, error: self._note(error),
        )
        on_wake = self._send_all if sends else None
        self._reader = FrameReader(self._app, on_frames, silence_limit=silence_limit, on_wake=on_wake)
        self._outgoing: deque[str] = deque()
        self._error: Exception | None = None

    def _note(self, error: Exception) -> None:
        self._error = self._error or error

    def run(self) -> Exception | None:
        """Connect, and read until the connection ends; returns why it ended, None after `close`.

        Raises:
            Exception: what `on_frames` raised.
        """
        try:
            self._app.prepared_socket = cast("socket.socket", self._transport.open())
            # The library's UTF-8 check is slow, pure Python; the decoder checks the bytes itself.
            self._app.run_forever(dispatcher=self._reader, skip_utf8_validation=True)
        except (OSError, WebSocketException) as error:
            return error
        if self._reader.failure:
            raise self._reader.failure
        return self._error

    @property
    def last_received(self) -> float:
        """When the last frames were received and passed on (monotonic); 0 while connecting."""
        return self._reader.last_received

    def note_delivery_time(self, seconds: float) -> None:
        """Read a quick stream no faster than trades are delivered."""
        self._reader.pace.note_delivery_time(seconds)

    def send(self, text: str) -> None:
        """Send a message within a second, from any thread, without waiting."""
        self._outgoing.append(text)
        self._reader.wake()

    def _send_all(self) -> None:
        """Send what is to be sent, in the thread that reads: only that one uses the socket."""
        while self._outgoing:
            self._app.send(self._outgoing.popleft())

    def close(self) -> None:
        """Close the connection from any thread, without waiting; may be called again."""
        self._reader.close()

    def abort(self) -> None:
        """Abort connecting, from any thread, without waiting."""
        self._transport.abort()
