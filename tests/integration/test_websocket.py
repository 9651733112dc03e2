"""The reading side of a connection against a scripted peer on a real socket."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import random
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
import websocket

from loader_ws_trades.binance import read_pace
from loader_ws_trades.binance import websocket as wire
from loader_ws_trades.binance.connection import Connection
from tests.tools.scripted_server import request_on
from tests.tools.waiting import wait_for

TEXT, CONTINUATION, BINARY, CLOSE, PING, PONG = 0x1, 0x0, 0x2, 0x8, 0x9, 0xA


def frame(payload: bytes, opcode: int = TEXT, *, final: bool = True, long: bool = False) -> bytes:
    first = bytes([(0x80 if final else 0) | opcode])
    if long or len(payload) > 0xFFFF:
        return first + b"\x7f" + struct.pack("!Q", len(payload)) + payload
    if len(payload) > 125:
        return first + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return first + bytes([len(payload)]) + payload


class Peer:
    """The server's side of one connection, behind the handshake."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the client's next frame, which is masked and short."""
        first, second = self._exactly(2)
        assert second & 0x80, "a client's frames are masked"
        mask, payload = self._exactly(4), self._exactly(second & 0x7F)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            assert piece, "the client is gone"
            data += piece
        return data


@contextmanager
def connected(
    on_frames: Callable[[list[bytes]], None], *, silence_limit: float = 60, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[Peer, Run]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(10)
        url = f"{'wss' if tls else 'ws'}://localhost:{server.getsockname()[1]}/ws/x@trade"
        run = Run(Connection(url, on_frames, lambda: None, silence_limit=silence_limit, sends=True))
        sock, _ = server.accept()
        sock.settimeout(10)
        if tls:
            sock = tls.wrap_socket(sock, server_side=True)
        with closing(sock):
            [key] = re.findall(rb"Sec-WebSocket-Key: (\S+)\r\n", request_on(sock))
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            try:
                yield Peer(sock), run
            finally:
                run.connection.close()
                run.thread.join(10)


class Run:
    """A connection that runs in a thread; its end."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ending: Exception | None = None
        self.raised: Exception | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.ending = self.connection.run()
        except Exception as error:
            self.raised = error

    def ended(self) -> Exception | None:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.ending


def test_frames_of_every_length_arrive_whole_and_in_order() -> None:
    payloads = [b"", b"a", b"b" * 125, b"c" * 126, b"d" * 300, b"e" * 65535, b"f" * 65536, b"g" * 200_000, b"end"]
    got: list[bytes] = []
    with connected(got.extend) as (peer, _):
        peer.send(*(frame(payload) for payload in payloads), frame(b"long form", long=True))
        wait_for(lambda: len(got) == len(payloads) + 1, "all frames")
    assert got == [*payloads, b"long form"]


@pytest.mark.parametrize("seed", range(8))
def test_frames_split_at_random_are_read_as_by_the_library(seed: int) -> None:
    rng = random.Random(seed)
    stream, expected, pings = b"", [], []
    for number in range(120):
        payload = b"%d:" % number + rng.randbytes(rng.choice([0, 1, 120, 126, 140, 140, 140, 1000, 70_000]))
        kind = rng.random()
        if kind < 0.7:
            stream += frame(payload)
        elif kind < 0.9:
            cut = rng.randrange(len(payload) + 1)
            stream += frame(payload[:cut], final=False)
            stream += frame(b"p%d" % number, PING)
            pings.append(b"p%d" % number)
            stream += frame(payload[cut:], CONTINUATION)
        else:
            stream += frame(payload, BINARY)
        expected.append(payload)
    got: list[bytes] = []
    pongs: list[bytes] = []
    with connected(got.extend) as (peer, run):
        while stream:
            size = rng.choice([1, 2, 3, 50, 1460, 100_000])
            peer.send(stream[:size])
            stream = stream[size:]
        wait_for(lambda: len(got) == len(expected), "all messages")
        for _ in pings:
            opcode, payload = peer.read_frame()
            assert opcode == PONG
            pongs.append(payload)
        assert run.ending is None
    assert got == expected
    assert pongs == pings


def _set_pace(monkeypatch: pytest.MonkeyPatch, pace: float, sleep: Callable[[float], None]) -> None:
    monkeypatch.setattr(read_pace, "READ_PACE", pace)
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))


@pytest.mark.parametrize("pace", [60.0, 0.0])
def test_what_comes_quickly_is_read_together(monkeypatch: pytest.MonkeyPatch, pace: float) -> None:
    pauses: list[float] = []
    over = threading.Event()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        over.wait(60)

    _set_pace(monkeypatch, pace, sleep)
    got: list[list[bytes]] = []
    with connected(got.append) as (peer, _):
        for number in (1, 2):
            peer.send(frame(b"%d" % number))
            wait_for(lambda: len(got) >= number, "a frame that is read at once")  # noqa: B023 - called here
        if pace:
            wait_for(lambda: pauses, "the pause")
        for number in (3, 4, 5):
            peer.send(frame(b"%d" % number))
        assert len(got) == 2 or not pace
        over.set()
        wait_for(lambda: sum(map(len, got)) == 5, "the rest")
    assert b"".join(map(b"".join, got)) == b"12345"
    assert all(0 < seconds <= pace for seconds in pauses)
    assert bool(pauses) == bool(pace)


def test_a_pause_in_which_nothing_came_is_followed_by_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    _set_pace(monkeypatch, 60.0, pauses.append)
    got: list[bytes] = []
    with connected(got.extend) as (peer, run):
        for number in range(1, 6):
            peer.send(frame(b"%d" % number))
            wait_for(lambda: len(got) == number, "the frame")  # noqa: B023 - called here
            wait_for(lambda: len(pauses) == number - 1, "a pause after each quick read, and only one")  # noqa: B023
        assert run.ending is None
    assert len(pauses) == 4


def test_only_several_frames_at_once_are_followed_by_a_pause_if_they_come_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(read_pace, "_SOON", 0.0)
    monkeypatch.setattr(read_pace, "_IN_FLIGHT", math.inf)
    _set_pace(monkeypatch, 60.0, pauses.append)
    got: list[bytes] = []
    with connected(got.extend) as (peer, _):
        for number in (1, 2, 3):
            peer.send(frame(b"%d." % number))
            wait_for(lambda: len(got) == number, "the frame")  # noqa: B023 - called here
        assert not pauses
        peer.send(frame(b"4."), frame(b"5."))
        wait_for(lambda: pauses, "the pause")


def test_a_message_is_sent_on_a_stream_that_always_has_more_to_read() -> None:
    sent, got = threading.Event(), 0

    def on_frames(frames: list[bytes]) -> None:
        nonlocal got
        got += 1
        if got == 1:
            run.connection.send("subscribe")
        if not sent.is_set():
            peer.send(frame(b"more"))

    with connected(on_frames) as (peer, run):
        peer.send(frame(b"first"))
        assert peer.read_frame() == (TEXT, b"subscribe")
        sent.set()


def test_no_pause_follows_long_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(wire, "READ_SIZE", 64)
    monkeypatch.setattr(wire, "_LONG_READ", 64)
    monkeypatch.setattr(wire, "_MUCH", 32)
    _set_pace(monkeypatch, 60.0, pauses.append)
    got: list[bytes] = []
    with connected(got.extend) as (peer, _):
        for number in range(1, 11):
            peer.send(frame(b"x" * 1030))  # 16 long reads and a short one
            wait_for(lambda: len(got) == number, "the frame")  # noqa: B023 - called here
    assert not pauses


def test_a_long_read_is_followed_by_one_of_all_that_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "READ_SIZE", 64)
    monkeypatch.setattr(wire, "_MUCH", 32)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        buffer, counts = wire.ReadBuffer(ours), []
        for size, number in ((62, 101), (2, 1), (62, 3)):
            theirs.sendall(frame(b"x" * size) * number)
            while select.select([ours], [], [], 0)[0]:
                assert buffer.fill()
                counts.append(len(buffer.take_text_frames()))
    assert counts == [1, 100, 1, 1, 2], "and a short one by a short one"


def test_close_frame_ends_the_connection_with_its_code() -> None:
    got: list[bytes] = []
    with connected(got.extend) as (peer, run):
        peer.send(frame(b"last"), frame(struct.pack("!H", 1008) + b"too slow", CLOSE))
        assert peer.read_frame()[0] == CLOSE
        assert "1008" in str(run.ended())
    assert got == [b"last"]


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """A server's; clients trust it."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return context


@pytest.mark.parametrize("secured", [False, True])
def test_own_close_sends_a_close_frame_at_once_and_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, secured: bool
) -> None:
    monkeypatch.setattr(wire, "_WAKE_LOOK", 60.0)
    got: list[bytes] = []
    with connected(got.extend, tls=tls if secured else None) as (peer, run):
        peer.send(frame(b"before it waits"))
        wait_for(lambda: got, "the frame")
        run.connection.close()
        assert peer.read_frame() == (CLOSE, struct.pack("!H", 1000))
        assert run.ended() is None
        run.connection.close()


def test_a_message_is_sent_on_a_silent_stream_too() -> None:
    with connected(lambda _: None) as (peer, run):
        run.connection.send("subscribe")
        assert peer.read_frame() == (TEXT, b"subscribe")


def test_end_without_a_close_frame_is_reported() -> None:
    got: list[bytes] = []
    with connected(got.extend) as (peer, run):
        peer.send(frame(b"whole"), frame(b"half of it")[:5])
        peer.sock.close()
        assert "without a close frame" in str(run.ended())
    assert got == [b"whole"]


def test_silence_ends_the_connection_and_pings_break_it() -> None:
    with connected(lambda _: None, silence_limit=1.5) as (peer, run):
        for number in range(8):
            peer.send(frame(b"%d" % number, PING))
            assert peer.read_frame() == (PONG, b"%d" % number)
            run.thread.join(0.25)
            assert run.thread.is_alive()
        assert isinstance(run.ended(), websocket.WebSocketTimeoutException)


@pytest.mark.parametrize("dripping", [False, True])
def test_a_frame_that_does_not_arrive_completely_is_a_stall(monkeypatch: pytest.MonkeyPatch, dripping: bool) -> None:
    monkeypatch.setattr(wire, "STALL_LIMIT", 0.3)
    with connected(lambda _: None) as (peer, run):
        peer.send(frame(b"x" * 60_000)[:50])
        for _ in range(100 if dripping else 0):
            with contextlib.suppress(OSError):
                peer.send(b"x")
            run.thread.join(0.02)
        assert not (dripping and run.thread.is_alive())
        assert "incomplete" in str(run.ended())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(b"", long=True)[:2] + struct.pack("!Q", 64 * 1024 * 1024), id="a huge frame"),
        pytest.param(
            frame(b"", final=False) + frame(b"x" * 60_000, CONTINUATION, final=False) * 18, id="endless fragments"
        ),
        pytest.param(b"\x81\x85abcdhello", id="a masked frame"),
        pytest.param(b"\xc1\x02{}", id="a reserved bit"),
        pytest.param(b"\x83\x02{}", id="an unknown opcode"),
        pytest.param(frame(b"lost", CONTINUATION), id="a continuation of nothing"),
        pytest.param(frame(b"begun", final=False) + frame(b"whole"), id="a message inside another"),
        pytest.param(frame(b"p" * 126, PING), id="a long ping"),
    ],
)
def test_protocol_violations_and_oversized_frames_end_the_connection(data: bytes) -> None:
    got: list[bytes] = []
    with connected(got.extend) as (peer, run):
        peer.send(frame(b"good"), data)
        assert isinstance(run.ended(), websocket.WebSocketException)
    assert got == [b"good"]


def test_fragments_within_the_bound_form_one_message() -> None:
    got: list[bytes] = []
    piece = frame(b"x" * 60_000, CONTINUATION, final=False)
    message = frame(b"", final=False) + piece * 16 + frame(b"", CONTINUATION)
    with connected(got.extend) as (peer, _):
        peer.send(message * 3)
        wait_for(lambda: len(got) == 3, "three messages")
    assert [len(message) for message in got] == [960_000] * 3


@pytest.mark.parametrize("fragmented", [False, True])
def test_error_of_the_frame_handler_is_raised(fragmented: bool) -> None:
    def fail(_frames: list[bytes]) -> None:
        raise ZeroDivisionError

    with connected(fail) as (peer, run):
        peer.send(frame(b"a", final=False) + frame(b"b", CONTINUATION) if fragmented else frame(b"ab"))
        run.ended()
        assert isinstance(run.raised, ZeroDivisionError)


def test_blocked_handler_is_not_silence() -> None:
    release = threading.Event()
    got: list[bytes] = []

    def block(frames: list[bytes]) -> None:
        got.extend(frames)
        release.wait(10)

    with connected(block, silence_limit=0.3) as (peer, run):
        peer.send(frame(b"1"))
        wait_for(lambda: got, "the first frame")
        run.thread.join(0.6)
        peer.send(frame(b"2"))
        release.set()
        wait_for(lambda: len(got) == 2, "the second frame")
        assert run.ending is None


def test_a_write_that_the_kernel_gives_up_on_has_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CONNECT_TIMEOUT", 0.2)
    with connected(lambda _: None) as (peer, run):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                peer.send(frame(b"x" * 125, PING) * 1000)  # and never read the answers
        assert isinstance(run.ended(), TimeoutError)


def test_a_slow_delivery_makes_the_pauses_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    _set_pace(monkeypatch, 60.0, pauses.append)
    got: list[bytes] = []
    with connected(got.extend) as (peer, run):
        run.connection.note_delivery_time(600.0)
        for number in (1, 2):
            peer.send(frame(b"%d" % number))
            wait_for(lambda: len(got) == number, "the frame")  # noqa: B023 - called here
        wait_for(lambda: pauses, "the pause")
    assert pauses[0] > 60
