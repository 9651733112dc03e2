"""Which proxy to use for a URL, if any: one decision for the stream, REST and `check`.

The usual environment variables apply: `https_proxy` for wss and https, `http_proxy` for ws and http, and `no_proxy` for
hosts to connect to directly; upper case works too, lower case takes precedence. Credentials are never shown.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from loader_ws_trades.errors import ConfigurationError

REJECTIONS = frozenset({400, 401, 403, 404, 405, 407, 501})
"""HTTP statuses with which a proxy rejects us permanently."""

_SECURE = {"wss", "https"}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    variable: str
    """The environment variable that sets it."""
    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to it with each request: the credentials, if any."""

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def permanent_error(self, status: int) -> ConfigurationError:
        """The error for one of `REJECTIONS`."""
        if status == 407:
            return ConfigurationError(
                f"The proxy {self.address} rejects the user and the password in {self.variable}, or requires them "
                "(HTTP 407); correct them"
            )
        return ConfigurationError(
            f"The proxy {self.address} rejects connections to the exchange (HTTP {status}); allow them there, "
            f"correct {self.variable}, or add the exchange's host to no_proxy"
        )


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy to use for `url`; None to connect directly.

    Raises:
        ConfigurationError: if the proxy is invalid.
    """
    parts = urlsplit(url)
    variable, value = _look_up("https_proxy" if parts.scheme in _SECURE else "http_proxy", environ)
    _, exceptions = _look_up("no_proxy", environ)
    if not value or _is_direct(parts, exceptions):
        return None
    return _parse(variable, value)


def _look_up(variable: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The name under which a variable is set, and its value."""
    name = variable if variable in environ else variable.upper()
    return name, environ.get(name, "").strip()


def _parse(variable: str, value: str) -> Proxy:
    # The value may contain a password, so it is not shown.
    fault = f"{variable} is not a usable proxy"
    fix = "set it to http://host:port, or http://user:password@host:port with special characters escaped, like %40"
    scheme, separator, _ = value.partition("://")
    if separator and scheme.lower() != "http":
        shown = f"{scheme}:// proxies" if scheme.isalnum() and len(scheme) <= 10 else "other kinds"
        raise ConfigurationError(f"{fault}: only HTTP proxies are supported, not {shown}; {fix}")
    try:
        parts = urlsplit(value if separator else f"http://{value}")
        host, port = parts.hostname, 80 if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    # Anything after the port is the rest of a password with an unescaped '/', '?' or '#'.
    more = parts.path.strip("/") or parts.query or parts.fragment if host else ""
    if not host or not port or more or not value.isprintable() or " " in value:
        # Without the cause, which contains part of the value.
        raise ConfigurationError(f"{fault}: it is not a URL with a host and a port from 1 to 65535; {fix}")
    return Proxy(variable, host, port, _credentials(parts.username, parts.password))


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    plain = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(plain).decode('ascii')}"}


def _is_direct(parts: SplitResult, exceptions: str) -> bool:
    """Whether `no_proxy` matches the host of a URL by name, suffix, address or network, with or without a port."""
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme in _SECURE else 80)
    return any(_matches(entry.lower(), host, port) for entry in exceptions.replace(",", " ").split())


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network:
        address = _network(host)
        return address is not None and address.version == network.version and address[0] in network
    name, colon, wanted = entry.rpartition(":")
    if colon:
        return wanted == str(port) and _matches(name, host, port)
    suffix = entry.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
