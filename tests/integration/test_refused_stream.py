"""What keeps the loader from its first connection to the exchange, and what it says: no Job must repeat it."""

from __future__ import annotations

import ssl

import pytest
import trustme

from loader_ws_trades.sandbox import Exchange, HandshakeStatus, Market, RestStatus
from tests.tools.loader import Loader

WS, REST = "BINANCE_WS_URL (--binance-ws-url)", "BINANCE_REST_URL (--binance-rest-url)"
NO_PROXY = {"https_proxy": "", "http_proxy": "", "no_proxy": ""}


def refused(**variables: object) -> str:
    """Run it without Kafka; the one sentence."""
    loader = Loader(
        "run", "--stdout", SYMBOL="POLUSDT", FEED_OUTAGE_LIMIT="60", STARTUP_GRACE="0.5", **(NO_PROXY | variables)
    )
    try:
        assert loader.wait() == 2, loader.errors
        assert "Traceback" not in loader.errors
        return loader.errors
    finally:
        loader.close()


def secured(name: str) -> Exchange:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(name).configure_cert(context)
    return Exchange([Market.generated("POLUSDT")], ssl=context)


def test_a_stream_whose_certificate_is_not_trusted() -> None:
    with Exchange([Market.generated("POLUSDT")]) as plain, secured("127.0.0.1") as exchange:
        shown = refused(BINANCE_WS_URL=exchange.ws_url, BINANCE_REST_URL=plain.rest_url)
    assert "SSL_CERT_FILE" in shown
    assert WS in shown


def test_rest_whose_certificate_is_not_trusted() -> None:
    with Exchange([Market.generated("POLUSDT")]) as plain, secured("127.0.0.1") as exchange:
        shown = refused(BINANCE_WS_URL=plain.ws_url, BINANCE_REST_URL=exchange.rest_url)
    assert "SSL_CERT_FILE" in shown
    assert REST in shown


def test_a_url_without_a_stream() -> None:
    with Exchange([Market.generated("POLUSDT")], faults=[HandshakeStatus(404, lasting=3600)]) as exchange:
        shown = refused(BINANCE_WS_URL=exchange.ws_url, BINANCE_REST_URL=exchange.rest_url)
    assert "There is no stream at the URL (HTTP 404)" in shown
    assert WS in shown


def test_a_url_without_rest() -> None:
    with Exchange([Market.generated("POLUSDT")], faults=[RestStatus(404, lasting=3600)]) as exchange:
        shown = refused(BINANCE_WS_URL=exchange.ws_url, BINANCE_REST_URL=exchange.rest_url)
    assert "There is no REST API at" in shown
    assert REST in shown


@pytest.mark.parametrize("proxy", ["socks5h://me:hush-hush@127.0.0.1:1080", "http://me:hush-hush@127.0.0.1:x"])
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    for command in ("run", "backfill", "check"):
        limits = ("--from-id", "1", "--to-id", "2") if command == "backfill" else ()
        flags = () if command == "check" else ("--stdout",)
        loader = Loader(command, *flags, *limits, SYMBOL="POLUSDT", **(NO_PROXY | {"https_proxy": proxy}))
        try:
            assert loader.wait() == 2
            shown = loader.errors + loader.output()
        finally:
            loader.close()
        assert "https_proxy names a proxy that cannot be used" in shown
        assert "hush" not in shown
        assert "Traceback" not in shown
