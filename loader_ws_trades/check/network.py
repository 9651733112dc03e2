"""Whether host names resolve."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from loader_ws_trades.binance.proxies import proxy_for
from loader_ws_trades.check.probes import Outcome, ok, skip, warn
from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.addresses import listed, split, why

_ADDRESSES = 4  # addresses of a name that are shown


def _resolve(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


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
            f"The host name {host} does not resolve ({why(error)}); check {named(setting)} and the DNS of this machine"
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
            lacking[host] = why(error)
    if not lacking:
        return ok(", ".join(_shown(*pair) for pair in found.items()))
    mend = f"check {named('kafka_bootstrap_servers')} and the DNS of this machine"
    text = f"These host names do not resolve: {listed(lacking)}; {mend}"
    if not found:
        raise UnavailableError(text)
    return warn(text)


def _shown(host: str, addresses: list[str]) -> str:
    if addresses == [host]:
        return f"{host}, an address"
    more = len(addresses) - _ADDRESSES
    return f"{host} is {', '.join(addresses[:_ADDRESSES])}" + (f" and {more} more" if more > 0 else "")
