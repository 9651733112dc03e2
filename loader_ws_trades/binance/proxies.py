"""Whether a URL is asked for through a proxy, and through which: one decision for the stream, REST and `check`.

The usual variables decide: `https_proxy` for wss and https, `http_proxy` for ws and http, `no_proxy` for what is asked
for directly; in capitals too, of which the small letters have precedence. A proxy's user and password are never shown.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from loader_ws_trades.errors import ConfigurationError

REFUSALS = frozenset({400, 401, 403, 404, 405, 407, 501})
"""HTTP statuses by which a proxy says that it will not connect us, now or later."""

_SECURE = {"wss", "https"}


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy."""

    variable: str
    """The environment variable that names it."""
    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What it is sent with a request: the user and the password, if there are any."""

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def refusal(self, status: int) -> ConfigurationError:
        """The error for one of `REFUSALS`."""
        if status == 407:
            return ConfigurationError(
                f"The proxy {self.address} refuses the user and the password that {self.variable} holds, or holds "
                "none (HTTP 407); correct them"
            )
        return ConfigurationError(
            f"The proxy {self.address} does not connect the loader to the exchange (HTTP {status}); have it permit "
            f"that, correct {self.variable}, or name the exchange's host in no_proxy"
        )


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy through which `url` is asked for; None if it is asked for directly.

    Raises:
        ConfigurationError: if it cannot be used.
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
    # The value may hold a password, so it is not shown.
    fault = f"{variable} names a proxy that cannot be used"
    mend = "give one as http://host:port, or http://user:password@host:port with special characters escaped, as in %40"
    scheme, separator, _ = value.partition("://")
    if separator and scheme.lower() != "http":
        shown = f"a proxy of the kind {scheme}://" if scheme.isalnum() and len(scheme) <= 10 else "no URL"
        raise ConfigurationError(f"{fault}: it is {shown}, and only HTTP proxies are supported; {mend}")
    try:
        parts = urlsplit(value if separator else f"http://{value}")
        host, port = parts.hostname, 80 if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    # What stands behind the port is the rest of a password with a '/', '?' or '#' in it.
    more = parts.path.strip("/") or parts.query or parts.fragment if host else ""
    if not host or not port or more or not value.isprintable() or " " in value:
        # Without its cause, which holds a part of the value.
        raise ConfigurationError(f"{fault}: it is not a URL with a host and a port from 1 to 65535; {mend}")
    return Proxy(variable, host, port, _credentials(parts.username, parts.password))


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    plain = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(plain).decode('ascii')}"}


def _is_direct(parts: SplitResult, exceptions: str) -> bool:
    """Whether `no_proxy` names the host of a URL: by name, suffix, address or network, with or without a port."""
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or (443 if parts.scheme in _SECURE else 80)
    return any(_names(entry.lower(), host, port) for entry in exceptions.replace(",", " ").split())


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network:
        address = _network(host)
        return address is not None and address.version == network.version and address[0] in network
    name, colon, wanted = entry.rpartition(":")
    if colon:
        return wanted == str(port) and _names(name, host, port)
    suffix = entry.removeprefix("*").strip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
