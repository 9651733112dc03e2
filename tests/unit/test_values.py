"""Parsers of times, trade ids and durations, and foreign text made safe to show."""

from __future__ import annotations

import pytest

from loader_ws_trades.config import parsers as values
from loader_ws_trades.text import format_duration, format_time, printable

TEN = 1_722_506_400_000  # 2024-08-01T10:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-08-01", TEN - 36_000_000),
        ("2024-08-01T10:00", TEN),
        (" 2024-08-01 10:00:00 ", TEN),
        ("2024-08-01T10:00:00Z", TEN),
        ("2024-08-01T12:00:00+02:00", TEN),
        ("2024-08-01T06:30:00-0330", TEN),
        ("2024-08-01T10:00:00,123Z", TEN + 123),
        ("2024-08-01T10:00:00.123000001Z", TEN + 124),
        ("1722506400000", TEN),
    ],
)
def test_moment(text: str, expected: int) -> None:
    assert values.moment(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "20240801",
        "1722506400",
        "2024-02-30",
        "2024-08-01T10:00:60",
        "2024-08-01T10:00:00+25:00",
        "٢٠٢٤-08-01",
        "x" * 1000,
    ],
)
def test_not_a_moment(text: str) -> None:
    with pytest.raises(ValueError, match="which is not a time; use one like 2024-08-01T10:00:00Z") as caught:
        values.moment(text)
    assert len(str(caught.value)) < 250


def test_format_time() -> None:
    assert format_time(TEN + 5) == "2024-08-01T10:00:00.005Z"
    assert values.moment(format_time(TEN + 5)) == TEN + 5
    assert format_time(2**63) == str(2**63)


def test_trade_id() -> None:
    assert values.trade_id("0") == 0
    assert values.trade_id(" 5123456789 ") == 5_123_456_789
    for text in ("", "-1", "1.0", "1_0", "x", "9" * 19):
        with pytest.raises(ValueError, match="which is not a trade id"):
            values.trade_id(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00 s"),
        (0.126, "0.13 s"),
        (4.26, "4.3 s"),
        (60, "1 min 0 s"),
        (125.9, "2 min 5 s"),
        (12_000, "3 h 20 min"),
        (86_400 * 2 + 3_600 * 5 + 59, "2 d 5 h"),
    ],
)
def test_format_duration(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("Invalid symbol.", "Invalid symbol."),
        ("Приостановлено 停止 é", "Приостановлено 停止 é"),
        ("a\nERROR forged\r\n", "a\\nERROR forged\\r\\n"),
        ("\x1b[2J\x00\t\x7f\x9b", "\\x1b[2J\\x00\\t\\x7f\\x9b"),
        ("\u2028\u202e\u200b\ufeff\U000e0041", "\\u2028\\u202e\\u200b\\ufeff\\U000e0041"),
        ("\ud800\udcb2", "\\ud800\\udcb2"),
        ("x" * 201, "x" * 200 + "..."),
        ("\x1b" * 4_000_000, "\\x1b" * 50 + "..."),
        ("x" * 199 + "\x1b", "x" * 199 + "..."),
    ],
)
def test_printable(foreign: str, shown: str) -> None:
    assert printable(foreign) == shown
    assert printable(foreign).isprintable()
