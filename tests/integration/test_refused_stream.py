"""What keeps the loader from its first connection to the exchange ends with exit code 2, as no Job must repeat it."""

from __future__ import annotations

import ssl
from contextlib import ExitStack

import pytest
import trustme

from loader_ws_trades.sandbox import Exchange, Fault, HandshakeStatus, Market, RestStatus
from tests.tools.loader import Loader

WS, REST = "BINANCE_WS_URL (--binance-ws-url)", "BINANCE_REST_URL (--binance-rest-url)"
NO_PROXY = {"https_proxy": "", "http_proxy": "", "no_proxy": ""}
LASTING = 3600.0


def rejected(*arguments: str, **variables: object) -> str:
    """What a start that ends with 2 shows."""
    with Loader(*arguments, SYMBOL="POLUSDT", STARTUP_GRACE="0.5", **(NO_PROXY | variables)) as loader:
        assert loader.wait() == 2, loader.errors
        shown = loader.errors + loader.output()
    assert "Traceback" not in shown
    return shown


def exchange(*faults: Fault, tls: bool = False, symbol: str = "POLUSDT") -> Exchange:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
    if context:
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return Exchange([Market.generated(symbol)], faults=faults, ssl=context)


@pytest.mark.parametrize(
    ("stream", "rest", "words", "setting"),
    [
        (exchange(tls=True), exchange(), "SSL_CERT_FILE", WS),
        (exchange(), exchange(tls=True), "SSL_CERT_FILE", REST),
        (exchange(HandshakeStatus(404, lasting=LASTING)), exchange(), "(HTTP 404)", WS),
        (exchange(HandshakeStatus(451, lasting=LASTING)), exchange(), "HTTP 451", WS),
        (exchange(), exchange(RestStatus(404, lasting=LASTING)), "No REST API at", REST),
        (exchange(), exchange(symbol="BTCUSDT"), "does not know the symbol POLUSDT", "SYMBOL (--symbol)"),
    ],
    ids=["untrusted stream", "untrusted REST", "no stream", "stream not served here", "no REST API", "no such symbol"],
)
def test_rejected_first_connection_names_the_setting(
    stream: Exchange, rest: Exchange, words: str, setting: str
) -> None:
    with ExitStack() as stack:
        stack.enter_context(stream)
        stack.enter_context(rest)
        shown = rejected("run", "--stdout", BINANCE_WS_URL=stream.ws_url, BINANCE_REST_URL=rest.rest_url)
    assert words in shown
    assert setting in shown


@pytest.mark.parametrize(
    ("command", "proxy"),
    [
        (("run", "--stdout"), "socks5h://me:hush-hush@127.0.0.1:1080"),
        (("backfill", "--stdout", "--from-id", "1", "--to-id", "2"), "http://me:hush-hush@127.0.0.1:x"),
        (("check",), "socks5h://me:hush-hush@127.0.0.1:1080"),
    ],
)
def test_unusable_proxy_is_named_without_its_password(command: tuple[str, ...], proxy: str) -> None:
    shown = rejected(*command, https_proxy=proxy)
    assert "https_proxy is not a usable proxy" in shown
    assert "hush" not in shown
