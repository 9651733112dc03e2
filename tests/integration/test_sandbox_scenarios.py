"""Faults as data: at random from a seed, and as people write them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from itertools import islice
from typing import Any

import pytest
from websocket import WebSocketBadStatusException, WebSocketException, create_connection

from loader_ws_trades.cli.main import cli
from loader_ws_trades.sandbox import (
    KINDS,
    REPAIRABLE,
    Cut,
    Exchange,
    Fault,
    Freeze,
    HandshakeStatus,
    Hole,
    HugeFrame,
    IdReset,
    Limits,
    Malformed,
    Market,
    Random,
    RestDrip,
    RestLag,
    RestOtherRows,
    RestStatus,
    ServerShutdown,
    Shuffle,
    Skip,
    fault_text,
    parse_fault,
)
from tests.integration.test_sandbox_faults import connected, ids, ids_to_the_end
from tests.tools.processes import limited, start
from tests.tools.waiting import wait_for


def planned(count: int = 500, **options: Any) -> list[tuple[float, Fault]]:
    return list(islice(Random(**options).plan(), count))


def test_the_same_seed_gives_the_same_scenario() -> None:
    assert planned(seed=7) == planned(seed=7)
    assert planned(seed=7) != planned(seed=8)


def test_faults_come_every_few_seconds_of_all_kinds_but_those_that_lose_trades() -> None:
    plan = planned(every=2.0)
    assert 950 < plan[-1][0] < 1050
    assert [moment for moment, _ in plan] == sorted(moment for moment, _ in plan)
    assert {fault.kind() for _, fault in plan} == set(REPAIRABLE)
    assert set(REPAIRABLE) == set(KINDS) - {"hole", "id-reset", "random"}


def test_kinds_can_be_chosen() -> None:
    assert {fault.kind() for _, fault in planned(kinds=("cut", "hole"))} == {"cut", "hole"}
    with pytest.raises(ValueError, match="kinds knows no 'flood'"):
        Random(kinds=("cut", "flood"))


def test_an_exchange_plays_a_random_scenario_and_tells_it() -> None:
    chance = Random(seed=3, every=0.1, kinds=("cut", "skip", "duplicate", "server-shutdown"))
    with Exchange([Market.generated(rate=2000)], faults=[chance]) as exchange:

        def enough() -> bool:
            with connected(exchange) as client:
                ids_to_the_end(client)
            return len(exchange.struck) > 10

        wait_for(enough, "ten faults")
        struck = [fault for _, fault in exchange.struck]
        assert struck == [chance, *(fault for _, fault in islice(chance.plan(), len(struck) - 1))]
        exchange.heal()
        count = len(exchange.struck)
        with connected(exchange) as client:
            found = ids(client, 2000)
        assert found == list(range(found[0], found[0] + 2000))
        assert len(exchange.struck) == count
        assert exchange.markets[0].holes == []


def test_the_exchange_stands_all_kinds_at_once() -> None:
    everything = Random(seed=1, every=0.02, kinds=tuple(kind for kind in KINDS if kind != "random"))
    unlimited = Limits(connection_attempts=None)
    with Exchange([Market.generated(rate=2000)], faults=[everything], limits=unlimited) as exchange:

        def enough() -> bool:
            # Whatever becomes of the client: the exchange itself would tell of an error of its own when it is stopped.
            with contextlib.suppress(OSError, ValueError, WebSocketException), connected(exchange) as client:
                client.settimeout(0.05)
                for _ in range(50):
                    client.recv()
            return len(exchange.struck) > 150

        wait_for(enough, "many faults")
        exchange.heal()
        with connected(exchange) as client:
            found = ids(client, 500)
        assert found == list(range(found[0], found[0] + 500))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cut", Cut()),
        ("cut:at=5s,code=1008", Cut(1008, at=5)),
        ("cut:after=100,connection=2,reset", Cut(after=100, connection=2, reset=True)),
        ("freeze:pings=true,for=500ms", Freeze(0.5, pings=True)),
        ("rest-status:at=10s,status=429,retry_after=3,for=20s", RestStatus(429, retry_after=3, lasting=20, at=10)),
        ("rest-status:status=500,times=3,path=trades", RestStatus(500, times=3, path="trades")),
        ("rest-status:status=503,every=15,for=1h", RestStatus(503, every=15, lasting=3600)),
        ("rest-status:retry_after=1e400", RestStatus(429, retry_after="1e400")),
        ("rest-drip:pause=500ms,body,path=historicalTrades", RestDrip(0.5, body=True, path="historicalTrades")),
        ("rest-other-rows:first_id=1000,times=3", RestOtherRows(1000, times=3)),
        ("rest-lag:seconds=5,for=1m", RestLag(5, 60)),
        ("random:seed=7,every=5s", Random(7, every=5)),
        ("random:kinds=cut+skip", Random(kinds=("cut", "skip"))),
        ("huge-frame:size=64MiB", HugeFrame()),
        ("skip:count=10,at_id=123456789012345678", Skip(10, at_id=123456789012345678)),
        ("malformed:what=json+ack", Malformed(what=("json", "ack"))),
        ("server-shutdown:lead=0", ServerShutdown()),
        (
            "handshake-status:status=302,location=http://127.0.0.1:1/x",
            HandshakeStatus(302, location="http://127.0.0.1:1/x"),
        ),
        ("id-reset:first_id=1", IdReset()),
        ("hole", Hole()),
        ("shuffle:seed=3", Shuffle(seed=3)),
    ],
)
def test_a_fault_can_be_written(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(fault_text(fault)) == fault


def test_a_fault_is_told_without_what_goes_without_saying() -> None:
    assert fault_text(Cut()) == "cut"
    assert fault_text(RestStatus(500, at=5.0, lasting=2.5)) == "rest-status:at=5.0s,for=2.5s,status=500"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_written(kind: str) -> None:
    assert parse_fault(kind).kind() == kind


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["of no kind", "cut, half-open"]),
        ("flood:at=1s", ["'flood:at=1s' is of no kind", "cut, half-open", "random"]),
        ("cut:when=1s", ["says 'when'", "at, at_id, after, connection, each, until, code, reset, within_frame"]),
        ("cut:at=soon", ["at must be a time such as", "'soon'"]),
        ("cut:at=-1s", ["at must be a time such as"]),
        ("cut:code=99", ["cannot be: code must be a close code"]),
        ("cut:code=1e3", ["code must be a whole number"]),
        ("cut:reset=maybe", ["reset must be true or false"]),
        ("cut:at=1s,after=3", ["exclude each other"]),
        ("cut:at_id=1,connection=3", ["exclude each other"]),
        ("cut:code=1001,reset", ["there is no close frame"]),
        ("cut:each", ["each needs a connection"]),
        ("delay:share=0", ["share must be from 1"]),
        ("skip:count=0", ["count must be above 0"]),
        ("freeze:for=0s", ["for must be above 0"]),
        ("rest-status:status=200", ["status must be an HTTP status"]),
        ("rest-status:every=0", ["every must be above 0"]),
        ("rest-status:retry_after=\n", ["retry_after must be one line"]),
        ("rest-drip:pause=0", ["pause must be above 0"]),
        ("handshake-status:status=999", ["status must be an HTTP status"]),
        ("shuffle:window=1", ["window must be above 1"]),
        ("malformed:what=nonsense", ["what knows no 'nonsense'; say one of json, types"]),
        ("random:kinds=flood", ["kinds knows no 'flood'; say some of cut"]),
        ("huge-frame:size=3", ["size must be at least"]),
    ],
)
def test_a_wrong_text_says_what_is_wrong_and_what_can_be_said(text: str, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^the fault ") as error:
        parse_fault(text)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_the_command_names_every_kind() -> None:
    [option] = [one for one in cli.commands["sandbox"].params if one.name == "fault"]
    text = re.sub(r"\s+", " ", getattr(option, "help", ""))
    named = text.partition("KIND is one of ")[2].partition(";")[0]
    assert named.split(", ") == list(KINDS)


def sandbox(*arguments: str) -> subprocess.Popen[str]:
    return start(
        [sys.executable, "-m", "loader_ws_trades", "sandbox", "--no-broker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def test_the_command_refuses_a_wrong_text_with_2() -> None:
    process = sandbox("--fault", "cut", "--fault", "cut:code=99")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.count("\n") <= 2
    assert "code must be a close code" in errors


def test_the_command_plays_faults_and_tells_them() -> None:
    process = sandbox("--fault", "handshake-status:status=403", "--fault", "cut:at=10ms,code=1008")
    try:
        assert process.stdout is not None
        lines, url = [], ""
        with limited(process):
            for line in process.stdout:
                lines.append(line)
                if match := re.search("BINANCE_WS_URL=(.*)", line):
                    url = match[1]
                if "cut:at=" in line:
                    break
        assert any("handshake-status" in line for line in lines)
        with pytest.raises(WebSocketBadStatusException) as refusal:
            create_connection(f"{url}/btcusdt@trade", timeout=10)
        assert refusal.value.status_code == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
