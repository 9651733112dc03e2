"""The reading side of a WebSocket connection, under websocket-client's `run_forever`.

The library shakes hands, writes and keeps the protocol. Its own reading costs three system calls and one `select` a
frame; this dispatcher reads as much as there is, cuts the whole unfragmented text frames out of it, and lets the
library read everything else (control frames, fragments, closes) out of the same buffer. The library is only asked
to read a frame that is there as a whole, so it never blocks, and no frame over the limit ever reaches it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from websocket import WebSocketApp, WebSocketConnectionClosedException, WebSocketException, WebSocketTimeoutException

from loader_ws_trades.binance.transport import HandshakeSocket

FRAME_LIMIT = 1024 * 1024  # bytes of one frame, or of all fragments of one message; the exchange's have about 140
READ_SIZE = 256 * 1024
STALL_LIMIT = 10.0  # seconds that a frame which has begun may take to be complete

_TEXT = 0x81  # FIN and the opcode for text
_CONTROL = 0x08  # the bit that control opcodes have


class FrameRefusedError(WebSocketException):
    """The peer broke the protocol or sent more than the limit; the connection is of no more use."""


class SilenceError(WebSocketTimeoutException):
    """Nothing came for too long, not even a ping."""


class StallError(WebSocketTimeoutException):
    """A frame that had begun did not go on."""


class _Header(NamedTuple):
    final: bool
    opcode: int
    length: int
    end: int  # index in the buffer behind the frame's last byte


class BufferedSocket:
    """A socket that is read in large pieces: `recv` serves from the buffer, all else is the socket's own."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: Any = sock
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._timeout = sock.gettimeout()
        self._data = b""
        self._at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, from the buffer as long as it holds any."""
        if self._at == len(self._data):
            return bytes(self._socket.recv(size))
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def fill(self) -> bool:
        """Read what the socket has, which must be ready; False if that is no more than a part of a TLS record.

        Raises:
            WebSocketConnectionClosedException: at the socket's end.
        """
        try:
            piece = self._read_records() if self._is_tls else self._socket.recv(READ_SIZE)
        except ssl.SSLWantReadError:
            return False
        if not piece:
            raise WebSocketConnectionClosedException("the connection ended without a close frame")
        self._data = self._data[self._at :] + piece
        self._at = 0
        return True

    def _read_records(self) -> bytes:
        """All TLS records that are there, up to about `READ_SIZE`: one alone holds a hundred frames at most."""
        pieces: list[bytes] = []
        size = 0
        # A part of a record is no data yet, and must not block.
        self._socket.settimeout(0)
        try:
            while size < READ_SIZE and (piece := self._socket.recv(READ_SIZE)):
                pieces.append(piece)
                size += len(piece)
        except OSError:
            # Behind data, no more data is what is expected, and an error comes again with the next read.
            if not pieces:
                raise
        finally:
            self._socket.settimeout(self._timeout)
        return b"".join(pieces)

    @property
    def readable(self) -> bool:
        """Whether data was decrypted already, which a poll of the socket does not see."""
        return self._is_tls and bool(self._socket.pending())

    @property
    def holds_part(self) -> bool:
        """Whether anything is left in the buffer."""
        return self._at < len(self._data)

    def take_text_frames(self) -> list[bytes]:
        """Payloads of the whole, unfragmented, unmasked text frames of up to 64 KiB at the front of the buffer."""
        frames: list[bytes] = []
        data, at, end = self._data, self._at, len(self._data)
        while end - at >= 4 and data[at] == _TEXT:
            size = data[at + 1]
            if size < 126:
                start = at + 2
            elif size == 126:
                start = at + 4
                size = data[at + 2] << 8 | data[at + 3]
            else:
                break
            after = start + size
            if after > end:
                break
            frames.append(data[start:after])
            at = after
        self._at = at
        return frames

    def next_header(self) -> _Header | None:
        """The header of the frame at the front, once it is there.

        Raises:
            FrameRefusedError: if the frame is masked, which a server's must not be.
        """
        data, at = self._data, self._at
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        if second & 0x80:
            raise FrameRefusedError("the exchange sent a masked frame")
        size, start = second, at + 2
        if second >= 126:
            start += 2 if second == 126 else 8
            if len(data) < start:
                return None
            size = int.from_bytes(data[at + 2 : start], "big")
        return _Header(bool(first & 0x80), first & 0x0F, size, start + size)

    def holds(self, header: _Header) -> bool:
        """Whether the frame with `header` is there as a whole."""
        return header.end <= len(self._data)


class Wire:
    """The dispatcher of one connection: give it to `run_forever` once.

    `on_frames` gets the payloads of each read, in order, in the thread of `run_forever`; it may block, and the time
    it does is not counted as silence. What it raises ends the connection and stands in `failure`.
    """

    def __init__(self, app: WebSocketApp, on_frames: Callable[[list[bytes]], None], *, silence_limit: float) -> None:
        self.failure: Exception | None = None
        self.heard = 0.0
        """When something came last and had been handed over (monotonic); 0 while connecting."""
        self._app = app
        self._app.on_message = self._on_message
        # With it set the library gives fragments one by one, and reads one frame a call, which never blocks.
        self._app.on_cont_message = self._on_fragment
        self._on_frames = on_frames
        self._silence_limit = silence_limit
        self._in_fragments = False  # whether the message that is arriving is not complete
        self._fragments: list[bytes] = []  # its payloads so far
        self._collected = 0  # bytes of these, with 16 for each: empty ones must not come without end
        self._closing = False
        self._wake, self._woken = socket.socketpair()

    def close(self) -> None:
        """End the connection from any thread, without waiting for it; may be called again."""
        self._closing = True
        # Already released by `release`: then the connection is over.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def release(self) -> None:
        """Free what the wire holds, after `run_forever` has returned."""
        self._wake.close()
        self._woken.close()

    # What run_forever wants of a dispatcher.

    def signal(self, number: int, handler: object) -> None:
        """Nothing: signals are the service's."""

    def abort(self) -> None:
        """Nothing: signals are the service's."""

    def timeout(self, seconds: float, callback: Callable[..., None], *args: object) -> None:
        """Nothing: neither the library's pings nor its reconnect are used."""

    def buffwrite(self, sock: socket.socket, data: bytes, *_unused: object) -> None:
        """Write all of `data`; the library takes it for written."""
        sock.sendall(data)

    def read(self, sock: HandshakeSocket, read_frame: Callable[[], bool]) -> None:
        """Read until the connection ends; `read_frame` has the library read one frame and act on it.

        Raises:
            WebSocketException: or OSError, when the connection was lost or is of no more use.
        """
        buffered = BufferedSocket(sock.socket)
        connection = self._app.sock
        if connection is None:
            return
        connection.sock = cast("socket.socket", buffered)
        try:
            self._read(buffered, read_frame)
            if self._closing:
                connection.send_close()
        finally:
            # With the socket shut, the library's teardown does not wait for the peer's close frame.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _read(self, buffered: BufferedSocket, read_frame: Callable[[], bool]) -> None:
        self.heard = time.monotonic()
        begun: float | None = None  # when the frame at the front began to arrive, if it is not there as a whole
        while not self._closing:
            if not self._in_fragments and (frames := buffered.take_text_frames()):
                self._deliver(frames)
                self.heard, begun = time.monotonic(), None
            header = buffered.next_header()
            if header:
                self._check_size(header)
            if header and buffered.holds(header):
                if not header.opcode & _CONTROL:
                    self._in_fragments = not header.final
                # Its answer does not tell an end from going on in every case.
                if not read_frame() or not self._app.keep_running:
                    return
                if self.failure:  # the library swallowed it
                    raise self.failure
                self.heard, begun = time.monotonic(), None
                continue
            if buffered.holds_part and begun is None:
                begun = time.monotonic()
            if not self._await_readable(buffered, begun):
                return
            if not buffered.fill() and begun is None:
                begun = time.monotonic()

    def _deliver(self, frames: list[bytes]) -> None:
        """Hand frames over; an error of ours must not be taken for the connection's."""
        try:
            self._on_frames(frames)
        except Exception as error:
            self.failure = error
            raise

    def _on_message(self, _app: WebSocketApp, payload: bytes) -> None:
        """A whole message, or the first fragment of one: the library does not tell them apart here."""
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
            raise FrameRefusedError(f"the exchange sent a message of more than {FRAME_LIMIT} bytes")

    def _await_readable(self, buffered: BufferedSocket, begun: float | None) -> bool:
        """Wait until the socket can be read; False if the connection is to be closed."""
        if buffered.readable:
            return True
        poller = select.poll()
        poller.register(buffered.fileno(), select.POLLIN)
        poller.register(self._woken.fileno(), select.POLLIN)
        end = self.heard + self._silence_limit
        if begun is not None:
            end = min(end, begun + STALL_LIMIT)
        if poller.poll(max(0.0, end - time.monotonic()) * 1000 + 1):
            return not self._closing
        if begun is not None and end == begun + STALL_LIMIT:
            raise StallError(f"a frame that had begun was not complete after {STALL_LIMIT:g} s")
        raise SilenceError(f"no frame, not even a ping, for {self._silence_limit:g} s")
