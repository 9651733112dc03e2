"""`check` against simulated exchanges: one case for each way in which a step fails or warns."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest
import trustme

from loader_ws_trades.check import exchange as check_exchange
from loader_ws_trades.check.exchange import ExchangeSteps
from loader_ws_trades.check.steps import Result, run_steps
from loader_ws_trades.config.loading import load
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, HandshakeStatus, Limits, Market, RestStatus
from tests.tools.loader import urls, workflow_on

SYMBOL, WS, REST = "SYMBOL (--symbol)", "BINANCE_WS_URL (--binance-ws-url)", "BINANCE_REST_URL (--binance-rest-url)"
NOWHERE = {"binance_ws_url": "ws://no-such-name.invalid/ws", "binance_rest_url": "http://no-such-name.invalid"}


def market(rate: float = 200, **options: Any) -> list[Market]:
    return [Market.generated("POLUSDT", rate=rate, **options)]


def untrusted() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


class Case(NamedTuple):
    """An exchange, the steps that do not pass, and what one of them says."""

    make: Callable[[], Exchange]
    not_passed: dict[str, str]
    words: tuple[str, ...]
    exit_code: int = 0
    settings: dict[str, str] = {}  # noqa: RUF012 - never changed


def healthy() -> Exchange:
    return Exchange(market())


CASES = {
    "healthy": Case(healthy, {}, ()),
    "no gap repair": Case(
        healthy, {"past trades": "skip"}, ("GAP_REPAIR (--gap-repair) is off",), 0, {"gap_repair": "off"}
    ),
    "unknown symbol": Case(
        healthy, {"symbol": "FAIL", "past trades": "skip"}, ("NOPEUSDT", SYMBOL), 2, {"symbol": "nopeusdt"}
    ),
    "halted": Case(lambda: Exchange(market(status="HALT")), {"symbol": "warn"}, ("HALT", SYMBOL)),
    "quiet": Case(
        lambda: Exchange(market(0.001), ping_interval=0.25), {"stream": "warn"}, ("quiet pairs", "--timeout")
    ),
    "silent": Case(lambda: Exchange(market(0.001), ping_interval=99), {"stream": "FAIL"}, (WS,), 1),
    "unknown host name": Case(
        healthy,
        {"REST API": "FAIL", "symbol": "skip", "stream": "FAIL", "past trades": "skip"},
        ("no-such-name.invalid", REST),
        1,
        NOWHERE,
    ),
    "REST refuses the location": Case(
        lambda: Exchange(market(), faults=[RestStatus(status=451, lasting=60)]),
        {"REST API": "FAIL", "symbol": "skip", "past trades": "skip"},
        ("HTTP 451", REST),
        2,
    ),
    "REST has no past trades": Case(
        lambda: Exchange(market(), faults=[RestStatus(status=503, lasting=60, path="historicalTrades")]),
        {"past trades": "FAIL"},
        ("gaps would remain", REST),
        1,
    ),
    "the stream refuses the location": Case(
        lambda: Exchange(market(), faults=[HandshakeStatus(status=451, lasting=60)]),
        {"stream": "FAIL"},
        ("HTTP 451", WS),
        2,
    ),
    "no stream at the URL": Case(
        lambda: Exchange(market(), faults=[HandshakeStatus(status=404, lasting=60)]),
        {"stream": "FAIL"},
        ("HTTP 404", WS),
        2,
    ),
    "the stream is down": Case(
        lambda: Exchange(market(), faults=[HandshakeStatus(status=503, lasting=60)]),
        {"stream": "FAIL"},
        ("HTTP 503", WS),
        1,
    ),
    "one of two streams is down": Case(
        healthy, {"stream 2": "FAIL"}, ("refused", WS), 1, {"binance_ws_url": "{ws},ws://127.0.0.1:9/ws"}
    ),
    "untrusted certificate": Case(
        lambda: Exchange(market(), ssl=untrusted()),
        {"REST API": "FAIL", "symbol": "skip", "stream": "FAIL", "past trades": "skip"},
        ("not trusted", "SSL_CERT_FILE", REST),
        2,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_fault_of_the_exchange_is_named_by_its_step(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_exchange, "_SILENCE_LIMIT", 1.0)
    with case.make() as running:
        urls = {"binance_ws_url": running.ws_url, "binance_rest_url": running.rest_url}
        given = {name: value.format(ws=running.ws_url) for name, value in case.settings.items()}
        settings = load({"symbol": "POLUSDT", **urls, **given}, needed=("symbol",))
        with closing(ExchangeSteps(settings, 2.0)) as steps:
            found: dict[str, Result] = {result.name: result for result in run_steps(steps.steps(), ())}
    assert {name: result.verdict for name, result in found.items() if result.verdict != "ok"} == case.not_passed, found
    assert max(result.exit_code for result in found.values()) == case.exit_code
    text = found[next(iter(case.not_passed), "symbol")].text
    assert not [word for word in case.words if word not in text], text


def test_a_check_that_passes_writes_to_no_topic() -> None:
    with (
        EmbeddedBroker() as broker,
        Exchange(market(), limits=Limits(weight=6000)) as exchange,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
    ):
        workflow.variables |= urls(exchange)
        checking = workflow.start("check", "--json")
        assert checking.wait() == 0
        found = json.loads(checking.output())
        assert found["ok"] is True
        assert [line["name"] for line in found["lines"] if line["verdict"] == "ok"] == [
            *("configuration", "REST API", "symbol", "stream", "past trades"),
            *("brokers", "events topic", "trades topic", "commands topic", "checkpoint"),
        ]
        assert checking.errors == ""
        assert not workflow.records()
        assert not workflow.events()


PAIRS = ("AUSDT", "BUSDT", "CBTC")


@pytest.mark.parametrize(
    ("symbols", "topic", "verdicts"),
    [
        pytest.param("*", "trades", {}, id="all pairs on one topic"),
        pytest.param("AUSDT,BUSDT", "trades-{symbol}", {}, id="a topic for each pair"),
        pytest.param("*", "trades-{symbol}", {"trades topic": "warn"}, id="a topic is missing"),
        pytest.param(
            "*EUR", "trades", {"symbols": "warn", "stream": "skip", "past trades": "skip"}, id="no pair matches"
        ),
        pytest.param(
            "AUSDT,NOUSDT",
            "trades",
            {"symbols": "fail", "stream": "skip", "past trades": "skip"},
            id="an unknown pair",
        ),
    ],
)
def test_several_pairs_are_checked_together(symbols: str, topic: str, verdicts: dict[str, str]) -> None:
    with (
        EmbeddedBroker() as broker,
        Exchange([Market.generated(pair, rate=50) for pair in PAIRS], limits=Limits(weight=6000)) as exchange,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
    ):
        broker.create_topics("trades", "trades-AUSDT", "trades-BUSDT")
        workflow.variables |= urls(exchange)
        del workflow.variables["SYMBOL"]
        checking = workflow.start("check", "--json", SYMBOLS=symbols, KAFKA_TOPIC=topic)
        checking.wait()
        found = {line["name"]: line for line in json.loads(checking.output())["lines"]}
    assert {name: line["verdict"] for name, line in found.items() if line["verdict"] != "ok"} == verdicts, found
    words = {"trades topic": "trades-CBTC", "symbols": "SYMBOLS (--symbols)"}
    for name in words.keys() & verdicts.keys():
        assert words[name] in found[name]["text"]
