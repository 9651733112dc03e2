"""The reading side of a WebSocket connection, under websocket-client's `run_forever`.

The library does the handshake, the writing and the protocol. Its own reading costs three system calls and a `select`
per frame; this dispatcher reads all available data at once, extracts complete, unfragmented text frames, and lets the
library read everything else (control frames, fragments, close frames) from the same buffer. The library is asked to
read a frame only when the buffer holds all of it, so it never blocks, and it never sees a frame above the size limit.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

from websocket import WebSocketApp, WebSocketConnectionClosedException, WebSocketException

from loader_ws_trades.binance.read_pace import ReadPace
from loader_ws_trades.binance.tls_socket import CONNECT_TIMEOUT, TlsSocket, send_all
from loader_ws_trades.binance.transport import HandshakeSocket, SilenceError, StallError

FRAME_LIMIT = 1024 * 1024  # bytes of a frame, or of all fragments of a message; a trade has about 140
READ_SIZE = 64 * 1024  # below the size from which malloc asks the kernel for memory of its own
_MUCH = READ_SIZE // 2  # a read of so much is long
_LONG_READ = 8 * READ_SIZE  # bytes read at once after a long read, when memory costs little beside the trades in it
STALL_LIMIT = 10.0  # seconds in which a frame must arrive completely
_LOOK = 10.0  # seconds that a read waits at most; the limits are looked at in between, and each look costs 0.1 ms
_WAKE_LOOK = 1.0  # the same where `wake` is called

_TEXT = 0x81  # FIN and the opcode for text
_CONTROL = 0x08  # set in the opcodes of control frames


class ProtocolError(WebSocketException):
    """The peer violated the protocol or exceeded the size limit; the connection is unusable."""


class _Header(NamedTuple):
    final: bool
    opcode: int
    length: int
    end: int  # index in the buffer after the last byte of the frame


class ReadBuffer:
    """Reads a socket in large chunks."""

    def __init__(self, sock: socket.socket | TlsSocket) -> None:
        self.tls = sock if isinstance(sock, TlsSocket) else None
        """The socket if it is one: it may have data that polling it does not show."""
        self._socket = sock
        # Not the socket's own `recv`, which first asks the kernel whether it would block.
        self._receive = self.tls.receive if self.tls else partial(os.read, sock.fileno())
        self.data = b""
        """What was read and not yet taken, from `_at` on; empty if that is nothing."""
        self._at = 0
        self.took_much = False
        """Whether the last read was so long that waiting for more would not make the reads fewer."""

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, from the buffer while it is not empty."""
        if not self.data:
            return bytes(self._socket.recv(size))
        piece = self.data[self._at : self._at + size]
        self._at += len(piece)
        if self._at == len(self.data):
            self.data, self._at = b"", 0
        return piece

    def fill(self) -> bool:
        """Read what has come; False if that is only a part of a TLS record.

        Raises:
            BlockingIOError: if nothing has come in the time that the socket waits.
            WebSocketConnectionClosedException: at the end of the stream.
        """
        receive = self._receive
        goes_on = self.tls is not None and self.tls.has_more  # with what the last read had no room for
        try:
            piece = receive(_LONG_READ if self.took_much else READ_SIZE)
        except ssl.SSLWantReadError:
            return False
        if not piece:
            raise WebSocketConnectionClosedException("the connection ended without a close frame")
        self.took_much = len(piece) >= _MUCH or (goes_on and self.took_much)
        self.data = self.data[self._at :] + piece if self.data else piece
        self._at = 0
        return True

    def take_text_frames(self) -> list[bytes]:
        """Payloads of complete, unfragmented, unmasked text frames of up to 64 KiB at the front of the buffer."""
        frames: list[bytes] = []
        data, at, end = self.data, self._at, len(self.data)
        while end - at >= 4 and data[at] == _TEXT:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            elif size > 126:
                break
            after = start + size
            if after > end:
                break
            frames.append(data[start:after])
            at = after
        if at == end:
            self.data, at = b"", 0
        self._at = at
        return frames

    def next_header(self) -> _Header | None:
        """The header of the frame at the front, once it has arrived.

        Raises:
            ProtocolError: if the frame is masked, which servers must not do.
        """
        data, at = self.data, self._at
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        if second & 0x80:
            raise ProtocolError("the exchange sent a masked frame")
        size, start = second, at + 2
        if second >= 126:
            start += 2 if second == 126 else 8
            if len(data) < start:
                return None
            size = int.from_bytes(data[at + 2 : start], "big")
        return _Header(bool(first & 0x80), first & 0x0F, size, start + size)

    def holds(self, header: _Header) -> bool:
        """Whether the frame with `header` has arrived completely."""
        return header.end <= len(self.data)


class _BufferedSocket:
    """A socket for the library: `recv` takes from the buffer, everything else is passed through."""

    def __init__(self, sock: socket.socket | TlsSocket, buffer: ReadBuffer) -> None:
        self._socket = sock
        self.recv = buffer.recv

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class FrameReader:
    """The dispatcher of one connection, passed to `run_forever` once.

    `on_frames` gets the payloads of each read, in order, in the thread of `run_forever`; it may block, and that time
    does not count as silence. What it raises ends the connection and is kept in `failure`. In the same thread `on_wake`
    is called after `wake`.
    """

    def __init__(
        self,
        app: WebSocketApp,
        on_frames: Callable[[list[bytes]], None],
        *,
        silence_limit: float,
        on_wake: Callable[[], None] | None = None,
    ) -> None:
        self.failure: Exception | None = None
        self.last_received = 0.0
        """When the last frames were received and passed on (monotonic); 0 while connecting."""
        self.pace = ReadPace()
        self._app = app
        self._app.on_message = self._on_message
        # With this callback the library returns fragments one by one and reads one frame per call, which never blocks.
        self._app.on_cont_message = self._on_fragment
        self._on_frames = on_frames
        self._on_wake = on_wake
        self._silence_limit = silence_limit
        # A whole number of them, so that the limit is kept.
        self._look = silence_limit / math.ceil(silence_limit / (_WAKE_LOOK if on_wake else _LOOK))
        self._in_fragments = False  # whether the current message is incomplete
        self._fragments: list[bytes] = []  # its payloads so far
        self._collected = 0  # their size plus 16 bytes each, to bound the number of empty ones
        self._closing = False
        self._called = False  # whether `wake` was
        self._socket: HandshakeSocket | None = None  # once it is read

    def close(self) -> None:
        """Close the connection from any thread, without waiting; may be called again."""
        self._closing = self._called = True
        if self._socket:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RD)  # ends the wait for data

    def wake(self) -> None:
        """Have `on_wake` called once something has come, or within a second; from any thread, without waiting."""
        self._called = True

    # The interface that `run_forever` expects of a dispatcher.

    def signal(self, *_: object) -> None:
        """Ignored: the service handles signals, and neither the library's pings nor its reconnects are used."""

    abort = timeout = signal

    def buffwrite(self, sock: socket.socket, data: bytes, *_unused: object) -> None:
        """Write all of `data`, as the library assumes."""
        send_all(sock, data)

    def read(self, sock: HandshakeSocket, read_frame: Callable[[], bool]) -> None:
        """Read until the connection ends; `read_frame` makes the library read and handle one frame.

        Raises:
            WebSocketException: or OSError, when the connection is lost or unusable.
        """
        buffer = ReadBuffer(sock.socket)
        connection = self._app.sock
        if connection is None:
            return
        connection.sock = cast("socket.socket", _BufferedSocket(sock.socket, buffer))
        # The kernel waits for data: polling first costs a quarter of a read.
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _time_value(self._look))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _time_value(CONNECT_TIMEOUT))
        self._socket = sock  # before `_called` is looked at
        try:
            try:
                self._read(buffer, read_frame)
            except WebSocketConnectionClosedException:
                if not self._closing:  # else the end is that of `close`
                    raise
            if self._closing:
                connection.send_close()
        finally:
            # With the socket shut down, the library's teardown does not wait for the peer's close frame.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _read(self, buffer: ReadBuffer, read_frame: Callable[[], bool]) -> None:
        tls, pace = buffer.tls, self.pace
        self.last_received = time.monotonic()
        partial_since: float | None = None  # when an incomplete frame at the front began to arrive
        read_at, apart = 0.0, math.inf  # the last time that something was read, and the seconds since the one before
        while True:  # a loop with a condition would stay slow: Python 3.11 does not notice that it is repeated
            if self._called and not self._answer():
                return
            frames = [] if self._in_fragments else buffer.take_text_frames()
            if frames:
                self._deliver(frames)
                self.last_received, partial_since = time.monotonic(), None
            if buffer.data:
                if self._take_other(buffer, read_frame):
                    if not self._app.keep_running:
                        return
                    self.last_received, partial_since = time.monotonic(), None
                    continue
                partial_since = partial_since or time.monotonic()
            if partial_since is not None:
                self._check_limits(partial_since)
            are_quick = (apart < pace.soon or len(frames) > 1) and not (tls and tls.has_more)
            if are_quick and (pause := pace.pause(read_at, is_long=buffer.took_much)) > 0:
                time.sleep(pause)
            try:
                is_data = buffer.fill()
            except BlockingIOError:
                self._check_limits(partial_since)
                continue
            now = time.monotonic()
            if is_data:
                read_at, apart = now, now - read_at
            else:
                partial_since = partial_since or now

    def _answer(self) -> bool:
        """Do what `wake` was called for; False if the connection is to be closed."""
        self._called = False
        if self._on_wake and not self._closing:
            self._on_wake()
        return not self._closing

    def _take_other(self, buffer: ReadBuffer, read_frame: Callable[[], bool]) -> bool:
        """Let the library read the frame at the front of the buffer; False if it has not arrived completely."""
        header = buffer.next_header()
        if header:
            self._check_size(header)
        if not header or not buffer.holds(header):
            return False
        if not header.opcode & _CONTROL:
            self._in_fragments = not header.final
        if not read_frame():  # some ends show only in `keep_running`
            self._app.keep_running = False
        if self.failure:  # swallowed by the library
            raise self.failure
        return True

    def _deliver(self, frames: list[bytes]) -> None:
        """Pass frames on; an error of ours must not be mistaken for one of the connection."""
        on_frames = self._on_frames
        try:
            on_frames(frames)
        except Exception as error:
            self.failure = error
            raise

    def _on_message(self, _app: WebSocketApp, payload: bytes) -> None:
        """Handle a message or its first fragment: the library calls this for both."""
        if self._in_fragments:
            self._fragments, self._collected = [payload], len(payload) + 16
        else:
            self._deliver([payload])

    def _on_fragment(self, _app: WebSocketApp, payload: bytes, final: bool) -> None:
        self._fragments.append(payload)
        self._collected += len(payload) + 16
        if final:
            message, self._fragments = b"".join(self._fragments), []
            self._deliver([message])

    def _check_size(self, header: _Header) -> None:
        collected = self._collected if self._in_fragments and not header.opcode & _CONTROL else 0
        if collected + header.length > FRAME_LIMIT:
            raise ProtocolError(f"the exchange sent a message of more than {FRAME_LIMIT} bytes")

    def _check_limits(self, partial_since: float | None) -> None:
        now = time.monotonic()
        if partial_since is not None and now >= partial_since + STALL_LIMIT:
            raise StallError(f"a frame was incomplete after {STALL_LIMIT:g} s")
        if now >= self.last_received + self._silence_limit:
            raise SilenceError(f"no frame, not even a ping, for {self._silence_limit:g} s")


def _time_value(seconds: float) -> bytes:
    """As socket options take it."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
