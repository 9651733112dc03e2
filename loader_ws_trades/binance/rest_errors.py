"""What went wrong with a REST request, as a sentence for the user, and whether a retry may help."""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus

import msgspec
import urllib3

from loader_ws_trades.binance.http_client import Response
from loader_ws_trades.binance.proxies import REJECTIONS, Proxy
from loader_ws_trades.binance.rate_limits import requested_pause
from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.pipeline.trade import BAD_INPUT
from loader_ws_trades.text import printable

_UNKNOWN_SYMBOL = {-1121, -1100}  # invalid symbol; characters that no symbol has
WAIT_FOR_US = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.IM_A_TEAPOT}
_RETRY_AFTER = 30.0  # seconds to wait if the exchange requires a wait without saying how long


class MisconfiguredError(UnavailableError):
    """Settings prevent it: the certificate is not trusted, the URL has no API, or the proxy rejects us.

    At startup that is a configuration error; later, after it has worked, it may be temporary.
    """


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


def not_served(setting: str) -> str:
    """The text for HTTP 451."""
    return (
        "The exchange does not serve this location (HTTP 451); run the loader in a permitted region, or set "
        f"{named(setting)} to an endpoint that serves yours"
    )


def unreachable(error: urllib3.exceptions.HTTPError, base: str, proxy: Proxy | None) -> UnavailableError:
    """The error for a request to `base`, a URL without secrets, that got no response."""
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in (*error.args, error.__cause__)):
        return MisconfiguredError(
            f"The certificate of {base} is not trusted; set SSL_CERT_FILE to the CA that signed it, or check "
            f"{named('binance_rest_url')}"
        )
    through = ""
    if proxy:
        through = f" through the proxy {proxy.address}"
        rejected = re.search(r"Tunnel connection failed: ([0-9]{3})", str(error))
        if rejected and int(rejected[1]) in REJECTIONS:
            return MisconfiguredError(str(proxy.permanent_error(int(rejected[1]))))
    # The text after the library's own object.
    why = printable(str(error).rpartition("): ")[2].rstrip("\"')"))
    why += ")" * (why.count("(") - why.count(")"))
    return UnavailableError(f"{base} did not answer{through} ({why})")


def rejected(response: Response, base: str, proxy: Proxy | None, symbol: str) -> UnavailableError:
    """The error for a response of another status than 200."""
    status = response.status
    if status == HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
        return UnavailableError(not_served("binance_rest_url"), lasting=True)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and proxy:
        return MisconfiguredError(str(proxy.permanent_error(status)))
    if status == HTTPStatus.NOT_FOUND:
        return MisconfiguredError(f"No REST API at {base} (HTTP 404); check {named('binance_rest_url')}")
    try:
        error = msgspec.json.decode(response.body, type=_Error)
    except BAD_INPUT:
        error = _Error()
    if error.code in _UNKNOWN_SYMBOL:
        return UnavailableError(
            f"The exchange does not know the symbol {symbol}; check {named('symbol')}, which is written "
            "without a separator, like BTCUSDT",
            lasting=True,
        )
    text = f"the exchange answered HTTP {status} {printable(error.msg)}".rstrip()
    wait = requested_pause(response.headers.get("Retry-After"))
    return UnavailableError(text, retry_after=wait or (_RETRY_AFTER if status in WAIT_FOR_US else 0.0))
