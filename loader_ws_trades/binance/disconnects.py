"""Why a connection to the exchange ended: as a label, as text, and whether to reconnect."""

from __future__ import annotations

import ssl
from http import HTTPStatus

from websocket import WebSocketBadStatusException

from loader_ws_trades.binance.proxies import REJECTIONS
from loader_ws_trades.binance.rate_limits import requested_pause
from loader_ws_trades.binance.rest_errors import not_served
from loader_ws_trades.binance.transport import ProxyError, SilenceError, StallError
from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.text import printable, redacted_url

REASONS = ("close", "error", "refused", "rotation", "server_shutdown", "silence", "silent", "stall", "unreachable")
"""Labels of the reasons for reconnecting."""

_NOT_HERE = HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS
_NO_STREAM = {HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}
_NO_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}


def disconnect_reason(ending: Exception | None, *, opened: bool) -> str:
    """The one of `REASONS` why a connection ended, or could not be opened."""
    if not opened:
        answered = isinstance(ending, (WebSocketBadStatusException, ConnectionRefusedError))
        return "refused" if answered else "unreachable"
    if isinstance(ending, SilenceError):
        return "silence"
    if isinstance(ending, StallError):
        return "stall"
    # For a close frame the library reports an error with the close code, or (1.9.0) the frame itself.
    return "close" if not isinstance(ending, Exception) or hasattr(ending, "status_code") else "error"


def is_blocked(ending: Exception | None) -> bool:
    """Whether the exchange does not serve this location."""
    return isinstance(ending, WebSocketBadStatusException) and ending.status_code == _NOT_HERE


def describe(ending: Exception | None) -> str:
    """Why a connection ended, as text of bounded length."""
    if ending is None:
        return "closed"
    if isinstance(ending, WebSocketBadStatusException):
        status = ending.status_code
        hint = " (restricted location)" if status == _NOT_HERE else ""
        if 300 <= status < 400:
            place = printable(redacted_url((ending.resp_headers or {}).get("location", "nowhere")))
            hint = f", a redirect to {place}, which is not followed"
        return f"the exchange answered the handshake with HTTP {status}{hint}"
    return printable(redacted_url(str(ending))) or type(ending).__name__


def permanent_error(ending: Exception | None) -> ConfigurationError | None:
    """The error if reconnecting will not help; None if it may."""
    if isinstance(ending, WebSocketBadStatusException):
        if ending.status_code == _NOT_HERE:
            return ConfigurationError(not_served("binance_ws_url"))
        if ending.status_code in _NO_STREAM:
            return ConfigurationError(
                f"No stream at this URL (HTTP {ending.status_code}); check {named('binance_ws_url')}"
            )
    if isinstance(ending, ProxyError) and ending.status in REJECTIONS:
        return ending.proxy.permanent_error(ending.status)
    if isinstance(ending, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"The exchange's certificate is not trusted ({ending.verify_message}); check {named('binance_ws_url')}, or "
            "set SSL_CERT_FILE to the CA that signed it"
        )
    if isinstance(ending, ssl.SSLError) and ending.reason in _NO_TLS:
        return ConfigurationError(f"The exchange does not use TLS on this port; check {named('binance_ws_url')}")
    return None


def retry_after(ending: Exception | None) -> float:
    """Seconds to wait according to a rejected handshake, at most an hour."""
    if not isinstance(ending, WebSocketBadStatusException) or not ending.resp_headers:
        return 0.0
    return requested_pause(ending.resp_headers.get("retry-after"))
