"""Faults as text, as `sandbox --fault` takes them, and random faults."""

from __future__ import annotations

import re

import pytest

from loader_ws_trades.cli.main import cli
from loader_ws_trades.sandbox import (
    KINDS,
    Cut,
    Fault,
    Freeze,
    HandshakeStatus,
    Random,
    RestDrip,
    RestStatus,
    Skip,
    fault_text,
    parse_fault,
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        *((name, kind()) for name, kind in KINDS.items()),
        ("cut:after=100,connection=2,reset", Cut(after=100, connection=2, reset=True)),
        ("freeze:pings=true,for=500ms", Freeze(0.5, pings=True)),
        ("rest-status:at=10s,status=429,retry_after=3,for=20s", RestStatus(429, retry_after=3, lasting=20, at=10)),
        ("rest-status:retry_after=1e400", RestStatus(429, retry_after="1e400")),
        ("rest-drip:pause=500ms,body,path=historicalTrades", RestDrip(0.5, body=True, path="historicalTrades")),
        ("random:kinds=cut+skip,every=5s", Random(kinds=("cut", "skip"), every=5)),
        ("skip:count=10,at_id=123456789012345678", Skip(10, at_id=123456789012345678)),
        ("handshake-status:location=http://127.0.0.1:1/x", HandshakeStatus(location="http://127.0.0.1:1/x")),
    ],
)
def test_a_fault_and_its_text(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(fault_text(fault)) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flood:at=1s", "unknown fault 'flood:at=1s'; expected one of cut, half-open"),
        (
            "cut:when=1s",
            "cut has no 'when'; it takes at, at_id, after, symbol, connection, each, until, code, reset, within_frame",
        ),
        ("cut:at=soon", "at must be a time such as 500ms, 5s or 1m, not 'soon'"),
        ("cut:at=1s,after=3", "only one of at, at_id and after"),
        ("cut:each", "each needs a connection"),
        ("rest-status:retry_after=1\r\nX: 2", "retry_after must be one line"),
        ("random:kinds=flood", "kinds must be some of cut"),
    ],
)
def test_an_invalid_text_is_rejected_in_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        parse_fault(text)
    assert "\n" not in str(error.value)


def test_the_help_of_sandbox_names_every_kind() -> None:
    [option] = [one for one in cli.commands["sandbox"].params if one.name == "fault"]
    text = re.sub(r"\s+", " ", getattr(option, "help", ""))
    assert text.partition("KIND is one of ")[2].partition(";")[0].split(", ") == list(KINDS)
