"""WebSocket clients of the simulated exchange that are not the library it is served with."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from websocket import ABNF, WebSocket, WebSocketConnectionClosedException, create_connection

from loader_ws_trades.sandbox import Exchange

TARGET = "/ws/btcusdt@trade"


@contextmanager
def connected(exchange: Exchange, target: str = TARGET, timeout: float = 10) -> Iterator[WebSocket]:
    url = exchange.ws_url.removesuffix("/ws") + target
    client: WebSocket = create_connection(url, timeout=timeout, skip_utf8_validation=True)
    try:
        yield client
    finally:
        client.shutdown()  # type: ignore[no-untyped-call]


def read(client: WebSocket, count: int) -> list[dict[str, Any]]:
    """The next messages; combined streams are unwrapped. Pings are answered."""
    messages = (json.loads(client.recv()) for _ in range(count))
    return [message.get("data", message) for message in messages]


def ids(client: WebSocket, count: int) -> list[int]:
    return [trade["t"] for trade in read(client, count)]


def next_frame(client: WebSocket) -> ABNF:
    """The next frame, control frames included; answers nothing."""
    frame: ABNF | None = client.recv_frame()  # type: ignore[no-untyped-call]
    assert frame is not None
    return frame


def ids_to_the_end(client: WebSocket) -> tuple[list[int], int]:
    """All ids until the connection ends, and its close code; 1006 without a close frame, 0 for a reset."""
    found: list[int] = []
    while len(found) < 1_000_000:
        try:
            frame = next_frame(client)
        except WebSocketConnectionClosedException:
            return found, 1006
        except ConnectionResetError:
            return found, 0
        if frame.opcode == ABNF.OPCODE_CLOSE:
            client.send_close()
            return found, int.from_bytes(bytes(frame.data[:2]), "big")  # type: ignore[arg-type]
        if frame.opcode == ABNF.OPCODE_TEXT and "t" in (message := json.loads(frame.data)):
            found.append(message["t"])
    raise AssertionError("a million trades and no end")


@contextmanager
def raw_socket(exchange: Exchange, target: str = TARGET) -> Iterator[socket.socket]:
    """A socket after the handshake."""
    with closing(socket.create_connection((exchange.host, exchange.port), timeout=10)) as sock:
        sock.sendall(
            f"GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 101")
        yield sock


def received(sock: socket.socket, size: int = 1 << 30) -> bytes:
    """What comes until `size` bytes, the end of the connection, or a timeout."""
    found = bytearray()
    try:
        while len(found) < size and (data := sock.recv(65536)):
            found += data
    except TimeoutError:
        pass
    return bytes(found)


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """First byte and payload of each whole frame of a server, and the rest."""
    found, place = [], 0
    while place + 2 <= len(data):
        extra = {126: 2, 127: 8}.get(data[place + 1], 0)
        begin = place + 2 + extra
        end = begin + (int.from_bytes(data[place + 2 : begin], "big") if extra else data[place + 1])
        if end > len(data):
            break
        found.append((data[place], data[begin:end]))
        place = end
    return found, data[place:]
