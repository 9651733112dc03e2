"""What the end of a connection means: nothing that the peer sent is believed, or shown, as it came."""

from __future__ import annotations

import pytest
from websocket import WebSocketBadStatusException, WebSocketConnectionClosedException

from loader_ws_trades.binance.disconnects import REASONS, describe, disconnect_reason, retry_after
from loader_ws_trades.binance.transport import SilenceError, StallError


def refused(status: int, **headers: str) -> WebSocketBadStatusException:
    return WebSocketBadStatusException("refused", status, "x", headers, b"")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("3601", 3600),
        ("1e400", 0),
        ("²", 0),
        ("-1", 0),
        ("nan", 0),
        ("9" * 5000, 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0),
        ("", 0),
    ],
)
def test_how_long_the_exchange_asks_to_wait_is_bounded_and_never_trusted_to_be_a_number(
    asked: str, seconds: float
) -> None:
    assert retry_after(refused(429, **{"retry-after": asked})) == seconds


def test_ending_without_retry_after() -> None:
    assert retry_after(refused(429)) == 0
    assert retry_after(WebSocketBadStatusException("refused", 429)) == 0
    assert retry_after(None) == 0
    assert retry_after(OSError()) == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Connection closed (code 1008): too slow", "Connection closed (code 1008): too slow"),
        ("bye\n2026-01-01T00:00:00Z ERROR forged", "bye\\n2026-01-01T00:00:00Z ERROR forged"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("x" * 4_000_000, "x" * 200 + "..."),
        ("see wss://someone:hush@host/ws?token=hush and on", "see wss://***@host/ws?*** and on"),
        ("", "WebSocketConnectionClosedException"),
    ],
)
def test_a_reason_that_the_peer_gives_is_shown_on_one_short_line(text: str, shown: str) -> None:
    assert describe(WebSocketConnectionClosedException(text)) == shown


def test_each_ending_has_its_reason() -> None:
    closed = WebSocketConnectionClosedException("bye")
    vars(closed)["status_code"] = 1008
    endings: list[tuple[Exception | None, bool]] = [(None, True), (closed, True), (ConnectionResetError(), True)]
    endings += [(SilenceError(), True), (StallError(), True)]
    endings += [(refused(403), False), (ConnectionRefusedError(), False), (TimeoutError(), False)]
    found = [disconnect_reason(ending, opened=opened) for ending, opened in endings]
    assert found == ["close", "close", "error", "silence", "stall", "refused", "refused", "unreachable"]
    assert set(found) == set(REASONS) - {"rotation", "server_shutdown", "silent"}
