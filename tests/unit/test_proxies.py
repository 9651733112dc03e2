"""Which proxy is used for what, as the environment says."""

from __future__ import annotations

import base64

import pytest

from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.errors import ConfigurationError

STREAM, REST = "wss://stream.binance.com:9443/ws", "https://api.binance.com"


def authorization(**environ: str) -> str:
    proxy = proxy_for(STREAM, environ)
    assert proxy
    return base64.b64decode(proxy.headers["Proxy-Authorization"].removeprefix("Basic ")).decode()


@pytest.mark.parametrize(
    ("url", "environ", "address"),
    [
        (STREAM, {}, None),
        (STREAM, {"https_proxy": "http://proxy:3128"}, "proxy:3128"),
        (REST, {"https_proxy": "http://proxy:3128"}, "proxy:3128"),
        (STREAM, {"https_proxy": "proxy:3128"}, "proxy:3128"),
        (STREAM, {"https_proxy": "HTTP://proxy"}, "proxy:80"),
        (STREAM, {"https_proxy": " http://[::1]:3128\n"}, "[::1]:3128"),
        (STREAM, {"https_proxy": "http://small", "HTTPS_PROXY": "http://large"}, "small:80"),
        (STREAM, {"https_proxy": "", "HTTPS_PROXY": "http://large"}, None),
        (STREAM, {"http_proxy": "http://proxy:3128"}, None),
        ("ws://host/ws", {"http_proxy": "http://proxy:3128"}, "proxy:3128"),
        ("ws://host/ws", {"https_proxy": "http://proxy:3128"}, None),
        (STREAM, {"https_proxy": "proxy:3128", "no_proxy": "*"}, None),
    ],
)
def test_the_variable_of_the_scheme_names_the_proxy(url: str, environ: dict[str, str], address: str | None) -> None:
    proxy = proxy_for(url, environ)
    assert (proxy and proxy.address) == address


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("127.0.0.1", "127.0.0.1/8", True),
        ("128.0.0.1", "127.0.0.0/8", False),
        ("127.0.0.1", "::/0", False),
        ("[::1]", "::1", True),
        ("[::1]", "[::1]:9443", True),
        ("[::1]", "[::1]:1", False),
        ("localhost", "127.0.0.0/8", False),
        ("stream.binance.com", "binance.com", True),
        ("stream.binance.com", ".binance.com", True),
        ("stream.binance.com", "BINANCE.com:9443", True),
        ("stream.binance.com", "binance.com:443", False),
        ("STREAM.binance.com.", "stream.binance.com", True),
        ("mybinance.com", ".binance.com", False),
        ("mybinance.com", "binance.com", False),
        ("stream.binance.com", "other.com  stream.binance.com", True),
        ("stream.binance.com", ",.,:,", False),
    ],
)
def test_no_proxy_means_the_same_for_the_stream_and_rest(host: str, exceptions: str, direct: bool) -> None:
    environ = {"https_proxy": "proxy:3128", "NO_PROXY": exceptions}
    assert (proxy_for(f"wss://{host}:9443/ws", environ) is None) == direct
    assert (proxy_for(f"https://{host}:9443", environ) is None) == direct


@pytest.mark.parametrize(
    ("user", "plain"),
    [
        ("user:p%40ss", "user:p@ss"),
        ("user:p@ss", "user:p@ss"),
        ("do%5Cmain:a%3Ab%25", "do\\main:a:b%"),
        ("user", "user:"),
        ("user:p%C3%A4ss", "user:päss"),
    ],
)
def test_user_and_password_are_decoded_and_never_shown(user: str, plain: str) -> None:
    assert authorization(https_proxy=f"http://{user}@proxy:3128") == plain
    assert authorization(https_proxy=f"{user}@proxy:3128") == plain
    proxy = proxy_for(STREAM, {"https_proxy": f"http://{user}@proxy:3128"})
    assert "Basic" not in repr(proxy)
    assert "user" not in repr(proxy)


@pytest.mark.parametrize(
    "value",
    [
        "socks5h://me:hush@proxy:1080",
        "https://me:hush@proxy:3128",
        "me:hush://proxy",
        "http://me:hush@",
        "http://proxy:hush",
        "http://me:hush@proxy:99999",
        "http://me:12#hush@proxy:3128",
        "http://me:12?hush@proxy:3128",
        "http://me:hu sh@proxy:3128",
        "http://me:hush@pro\x1bxy:3128",
        "http://[hush",
    ],
)
def test_what_cannot_be_used_is_a_fault_that_names_the_variable_and_no_password(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY is not a usable proxy: ") as caught:
        proxy_for(STREAM, {"HTTPS_PROXY": value})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "http://host:port" in str(caught.value)
    assert proxy_for(STREAM, {"HTTPS_PROXY": value, "no_proxy": "binance.com"}) is None
