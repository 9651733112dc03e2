"""What listens at a broker's address, found out by hand: librdkafka says of many refusals only that it was cut off.

A connection that is closed says nothing by itself: so does a broker that is half up, or a balancer with none behind
it. Only an answer that could come from nowhere else counts here. Each step takes `seconds` at most.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from loader_ws_trades.lifecycle import Deadline, Task

# SaslHandshake, version 1, with a mechanism that nobody has: every broker answers it, before anybody signed in.
_MECHANISM = b"NONE"
_REQUEST = struct.pack(">hhih", 17, 1, 1, -1) + struct.pack(">h", len(_MECHANISM)) + _MECHANISM
_ASKS_FOR_NO_USER = 34  # the error ILLEGAL_SASL_STATE
_LARGEST = 4096  # bytes of an answer, which comes in one piece or does not count

_OTHER_NAME = {62, 63, 64}  # OpenSSL's codes for a host name, a mail address, an IP address that does not match

_NAMES = 10  # host names that a message lists
_ADDRESSES = 100  # addresses that are connected to at once


class Listener(NamedTuple):
    """What an address speaks, as far as it showed."""

    tls: bool
    mechanisms: tuple[str, ...] | None
    """What a user may sign in with; empty if the broker asks for no user, None if no broker answered."""


class CertificateFault(NamedTuple):
    """Why a certificate is refused."""

    other_names: bool
    """Whether it is trusted, but belongs to other host names."""
    detail: str


def split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def unreachable(addresses: list[str], seconds: float) -> dict[str, str]:
    """Those of `addresses` that cannot be connected to within `seconds`, and why."""
    found: dict[str, str] = {}

    def connect(address: str) -> None:
        try:
            socket.create_connection(split(address), seconds).close()
        except (OSError, UnicodeError, ValueError, OverflowError) as error:
            found[address] = why(error)

    # All at once, and not waited for beyond the time: a name server may take longer than a connection.
    tasks = {address: Task("look", partial(connect, address)) for address in addresses[:_ADDRESSES]}
    for task in tasks.values():
        task.start()
    deadline = Deadline(seconds)
    for address, task in tasks.items():
        if not task.join(deadline.remaining):
            found.setdefault(address, "no answer in time")
    return {address: found[address] for address in tasks if address in found}


def why(error: Exception) -> str:
    """Why there is no connection, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def listed(away: dict[str, str]) -> str:
    """What `unreachable` found, for a sentence."""
    return ", ".join(f"{address} ({reason})" for address, reason in away.items())


def look(address: str, seconds: float) -> Listener | None:
    """What listens at `host:port`; None if nothing certain can be said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _tls(address, context, seconds) as connection:
            return Listener(tls=True, mechanisms=_mechanisms(connection))
    except OSError as error:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return Listener(tls=True, mechanisms=None)
    try:
        with _plain(address, seconds) as connection:
            mechanisms = _mechanisms(connection)
    except OSError:
        return None
    return None if mechanisms is None else Listener(tls=False, mechanisms=mechanisms)


def certificate_fault(address: str, context: ssl.SSLContext, seconds: float) -> CertificateFault | None:
    """What is wrong with the certificate that `host:port` shows, as `context` sees it; None if nothing is."""
    try:
        with _tls(address, context, seconds):
            return None
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in _OTHER_NAME:
            return CertificateFault(other_names=False, detail=error.verify_message)
    except OSError:
        return None
    context.check_hostname = False
    names: list[str] = []
    with contextlib.suppress(OSError), _tls(address, context, seconds) as connection:
        certificate = connection.getpeercert() or {}
        names = [str(pair[1]) for pair in certificate.get("subjectAltName", ())]
    return CertificateFault(other_names=True, detail=", ".join(names[:_NAMES]) or "none")


@contextlib.contextmanager
def _plain(address: str, seconds: float) -> Iterator[socket.socket]:
    with socket.create_connection(split(address), seconds) as connection:
        yield connection


@contextlib.contextmanager
def _tls(address: str, context: ssl.SSLContext, seconds: float) -> Iterator[ssl.SSLSocket]:
    host, _ = split(address)
    with _plain(address, seconds) as raw, context.wrap_socket(raw, server_hostname=host) as connection:
        yield connection


def _mechanisms(connection: socket.socket) -> tuple[str, ...] | None:
    try:
        connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
        answer = connection.recv(_LARGEST)
        size, correlation, code, count = struct.unpack_from(">iihi", answer)
        if size != len(answer) - 4 or correlation != 1:
            return None
        found, at = [], struct.calcsize(">iihi")
        for _ in range(count if code != _ASKS_FOR_NO_USER else 0):
            (length,) = struct.unpack_from(">h", answer, at)
            found.append(answer[at + 2 : at + 2 + length].decode())
            at += 2 + length
    except (OSError, struct.error, ValueError):
        return None
    return tuple(found)
