"""Whether host names resolve, and whether an address can be connected to."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from loader_ws_trades.config import named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.probes import Outcome, ok, skip, warn
from loader_ws_trades.proxies import proxy_for

_CONNECT = 5.0  # seconds to connect to one address
_ADDRESSES = 4  # addresses of a name that are shown


def _resolve(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def resolve_url(url: str, setting: str) -> Outcome:
    """Resolve the host of `url`, which the setting called `setting` gives, unless a proxy does.

    Raises:
        UnavailableError: if it does not resolve.
        ConfigurationError: if it is to be asked for through a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = proxy_for(url, os.environ)
    if proxy:
        return skip(f"not tried: the proxy {proxy.address} resolves {host}")
    try:
        return ok(_shown(host, _resolve(host)))
    except (OSError, UnicodeError) as error:
        raise UnavailableError(
            f"The host name {host} does not resolve ({_why(error)}); check {named(setting)} and the DNS of this machine"
        ) from error


def resolve_brokers(servers: str) -> Outcome:
    """Resolve the hosts of `host:port,...`.

    Raises:
        UnavailableError: if none of them resolves.
    """
    found, lacking = dict[str, list[str]](), dict[str, str]()
    for host in dict.fromkeys(split(address)[0] for address in servers.split(",")):
        try:
            found[host] = _resolve(host)
        except (OSError, UnicodeError) as error:  # noqa: PERF203 - there are few
            lacking[host] = _why(error)
    if not lacking:
        return ok(", ".join(_shown(*pair) for pair in found.items()))
    mend = f"check {named('kafka_bootstrap_servers')} and the DNS of this machine"
    text = f"These host names do not resolve: {', '.join(f'{host} ({why})' for host, why in lacking.items())}; {mend}"
    if not found:
        raise UnavailableError(text)
    return warn(text)


def unreachable(addresses: list[str]) -> dict[str, str]:
    """Those of `addresses` that cannot be connected to, and why."""
    found = {}
    for address in addresses:
        try:
            socket.create_connection(split(address), _CONNECT).close()
        except (OSError, UnicodeError) as error:  # noqa: PERF203 - there are few
            found[address] = _why(error)
    return found


def _shown(host: str, addresses: list[str]) -> str:
    if addresses == [host]:
        return f"{host}, an address"
    more = len(addresses) - _ADDRESSES
    return f"{host} is {', '.join(addresses[:_ADDRESSES])}" + (f" and {more} more" if more > 0 else "")


def _why(error: OSError | UnicodeError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
