"""Finds out what a cluster rejects and why, in a sentence for the user.

librdkafka reports many rejections only as a closed connection, so `BrokerDiagnosis.check` connects to the address
itself. A closed connection proves nothing, as a broker that is starting or a load balancer without one behaves the
same: only an answer that nothing else could give counts.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.errors import plain
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.lifecycle import Deadline, Task
from loader_ws_trades.text import printable

log = logging.getLogger(__name__)

LONGEST_LINE = 1000  # characters of a debug line
_NO_REPORT = "no answer from any broker"
_STEP = 1.0  # seconds for one step of a probe
_CERTIFICATE_STEP = 5.0  # the same for a server that is known to answer, with a certificate
_PROBES = 2  # addresses that are probed after one failed attempt
_MOST = 100  # addresses that are tried at once
_NAMES = 10  # host names that a message lists

# The address in "sasl_ssl://host:port/bootstrap: something (after 3ms in state SSL_HANDSHAKE)". In the state CONNECT
# no connection was made, and there is nothing to probe.
_CLOSED = re.compile(
    r"(?:^|[\s/])(?P<address>(?:\[[0-9A-Fa-f:.%]+\]|[^\s/\[\]:]+):\d+)/(?:bootstrap|\d+): "
    r".* \(after \d+ms in state (?!CONNECT\b)\w+",
    re.DOTALL,
)
_CLIENT_CERTIFICATE = re.compile(r"alert (?:certificate required|bad certificate|unknown ca|certificate unknown)\b")
_OFFERED = re.compile(r"Unsupported SASL mechanism: broker's supported mechanisms: ?(?P<offered>[^(]*)")

_WRONG_NAME = {62, 63, 64}  # OpenSSL's codes for a host name, a mail address, an IP address that does not match
# SaslHandshake, version 1, with a mechanism that does not exist: every broker answers it before authentication.
_HANDSHAKE = struct.pack(">hhih", 17, 1, 1, -1) + struct.pack(">h4s", 4, b"NONE")
_ILLEGAL_SASL_STATE = 34  # the error code of a listener without SASL
_LARGEST = 4096  # bytes of an answer, which comes in one piece or does not count


class BrokerDiagnosis:
    """Collects what one client reports; `credentials` names the settings of its user."""

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.reason = _NO_REPORT
        """The last report, for a message."""
        self._fault: str | None = None  # what the last check found
        self.next_attempt()

    def next_attempt(self) -> None:
        """Forget the evidence of a rejection: another attempt brings it again."""
        self._reported = False  # whether anything was
        self._rejection: str | None = None
        self._untrusted = False
        self._closed: dict[str, None] = {}  # addresses that were connected and closed, the last one at the end

    def log(self, _level: int, line: str, *parts: object) -> None:
        """Take a line as librdkafka's logger; all of them are at debug level for us."""
        text = line % parts
        log.debug("librdkafka: %s", printable(text, LONGEST_LINE))
        self.note_line(text)

    def note_error(self, name: str, text: str) -> None:
        """Take an error by its name in librdkafka, like `_SSL`, and its text."""
        self.note_line(text)
        if name == "_ALL_BROKERS_DOWN":
            return
        self._reported = True
        self.reason = plain(text)
        if name == "_AUTHENTICATION":
            self._rejection = self._authentication_failure(text)
        elif name == "_SSL" and not self._untrusted and not self._rejection:
            self._rejection = (
                f"The TLS connection to Kafka failed ({plain(text)}); check {named('ca_path')} and "
                f"{named('kafka_bootstrap_servers')}"
            )

    def note_line(self, line: str) -> None:
        """Take a line of librdkafka's log, the only place that reports a closed connection."""
        closed = _CLOSED.search(line)
        if closed:
            self._reported = True
            self._closed.pop(closed["address"], None)
            self._closed[closed["address"]] = None
            if self.reason == _NO_REPORT:
                self.reason = plain(line[closed.start("address") :])
        if "certificate verify failed" in line:
            self._untrusted = True
        if _CLIENT_CERTIFICATE.search(line):
            self._rejection = (
                "The brokers require a client certificate, or do not trust the loader's; set "
                f"ssl.certificate.location and ssl.key.location with {named('kafka_properties')}"
            )

    def check(self, properties: KafkaProperties) -> None:
        """Find out whether the cluster rejects how the client is configured, by a probe if need be.

        Raises:
            ConfigurationError: if it does: running again will not help.
        """
        fault = None if self._untrusted else self._rejection
        for address in [] if fault else list(reversed(self._closed))[:_PROBES]:
            fault = _certificate_fault(address, properties) if self._untrusted else None
            fault = fault or self._protocol_mismatch(address, properties)
            if fault:
                break
        if self._untrusted and not fault:
            fault = self._rejection or (
                f"The certificate of the brokers is rejected ({self.reason}); check {named('ca_path')} and the host "
                f"names in {named('kafka_bootstrap_servers')}"
            )
        if not (fault or self._reported):
            fault = self._fault  # librdkafka keeps an error to itself for 30 s if it is identical to the one before
        self._fault = fault
        if fault:
            raise ConfigurationError(fault)

    def _authentication_failure(self, text: str) -> str:
        if offered := _OFFERED.search(text):
            return (
                f"Kafka does not offer the loader's SASL mechanism, only {plain(offered['offered']) or 'none'}; check "
                f"{named('kafka_sasl_mechanism')}"
            )
        if "not valid in current SASL state" in text:
            return (
                f"Kafka requires no user at this port; check {named('kafka_bootstrap_servers')} and "
                f"{named('kafka_security_protocol')}, or unset {self.credentials}"
            )
        if "OAUTHBEARER token" in text:
            return f"No token for Kafka could be fetched ({plain(text)}); check {self.credentials}"
        return f"Kafka rejected the user or the password; check {self.credentials}"

    def _protocol_mismatch(self, address: str, properties: KafkaProperties) -> str | None:
        listener = probe(address)
        if listener is None:
            return None
        protocol = str(properties["security.protocol"]).upper()
        has_user = protocol.startswith("SASL")
        offered = plain(", ".join(listener.mechanisms or ()))
        sasl = f" and requires a user (SASL {offered})" if offered else ""
        broker = f"The broker at {plain(address)}"
        check = f"check {named('kafka_security_protocol')} and the port in {named('kafka_bootstrap_servers')}"
        if listener.tls and "SSL" not in protocol:
            fix = f"set {named('ca_path')}" + (f", {self.credentials}" if offered and not has_user else "")
            return f"{broker} uses TLS{sasl}, the loader {protocol}; {fix}, or {check}"
        if not listener.tls and "SSL" in protocol:
            user = f" and {named('kafka_user_producer')}" if has_user and not offered else ""
            return f"{broker} does not use TLS{sasl}, the loader {protocol}; {check}, or unset {named('ca_path')}{user}"
        if offered and not has_user:
            return f"{broker}{sasl.removeprefix(' and')}, the loader has none; set {self.credentials}"
        return None


class Listener(NamedTuple):
    """What an address was found to be."""

    tls: bool
    mechanisms: tuple[str, ...] | None
    """How a user may authenticate; empty if the broker requires none, None if no broker answered."""


def probe(address: str) -> Listener | None:
    """What listens at `host:port`; None if nothing certain can be said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _connected(address, context) as connection:
            return Listener(tls=True, mechanisms=_mechanisms(connection))
    except OSError as error:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
            return Listener(tls=True, mechanisms=None)
    try:
        with _connected(address) as connection:
            mechanisms = _mechanisms(connection)
    except OSError:
        return None
    return None if mechanisms is None else Listener(tls=False, mechanisms=mechanisms)


def _mechanisms(connection: socket.socket) -> tuple[str, ...] | None:
    try:
        connection.sendall(struct.pack(">i", len(_HANDSHAKE)) + _HANDSHAKE)
        answer = connection.recv(_LARGEST)
        size, correlation, code, count = struct.unpack_from(">iihi", answer)
        if size != len(answer) - 4 or correlation != 1:
            return None
        found, at = [], struct.calcsize(">iihi")
        for _ in range(count if code != _ILLEGAL_SASL_STATE else 0):
            (length,) = struct.unpack_from(">h", answer, at)
            found.append(answer[at + 2 : at + 2 + length].decode())
            at += 2 + length
    except (OSError, struct.error, ValueError):
        return None
    return tuple(found)


def _certificate_fault(address: str, properties: KafkaProperties) -> str | None:
    """What is wrong with the certificate of the broker at `host:port`; None if nothing is, or it does not answer."""
    # As librdkafka, with OpenSSL's own strictness.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = properties.get("ssl.endpoint.identification.algorithm") != "none"
    try:
        context.load_verify_locations(str(properties["ssl.ca.location"]))
    except (KeyError, OSError):
        context.load_default_certs()
    certificate = f"The certificate of the broker at {plain(address)} is"
    try:
        with _connected(address, context, _CERTIFICATE_STEP):
            return None
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in _WRONG_NAME:
            return (
                f"{certificate} not trusted ({plain(error.verify_message)}); set {named('ca_path')} to the CA that "
                "signed it"
            )
    except OSError:
        return None
    context.check_hostname = False
    names: list[str] = []
    with contextlib.suppress(OSError), _connected(address, context, _CERTIFICATE_STEP) as connection:
        shown = (connection.getpeercert() or {}) if isinstance(connection, ssl.SSLSocket) else {}
        names = [str(pair[1]) for pair in shown.get("subjectAltName", ())]
    held = plain(", ".join(names[:_NAMES])) or "none"
    return f"{certificate} for other host names ({held}); use one of them in {named('kafka_bootstrap_servers')}"


@contextlib.contextmanager
def _connected(address: str, context: ssl.SSLContext | None = None, seconds: float = _STEP) -> Iterator[socket.socket]:
    host, port = _split(address)
    with socket.create_connection((host, port), seconds) as raw:
        if context is None:
            yield raw
        else:
            with context.wrap_socket(raw, server_hostname=host) as secured:
                yield secured


def _split(address: str) -> tuple[str, int]:
    """Host and port of `host:port`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def unreachable(addresses: list[str], seconds: float) -> dict[str, str]:
    """Those of `addresses` that cannot be connected to within `seconds`, and why."""
    found: dict[str, str] = {}

    def connect(address: str) -> None:
        try:
            socket.create_connection(_split(address), seconds).close()
        except TimeoutError:
            found[address] = "no answer in time"
        except (OSError, ValueError, OverflowError) as error:
            found[address] = getattr(error, "strerror", None) or str(error)

    # In parallel and not joined beyond the time: a name server may take longer than a connection.
    tasks = {address: Task("connect", partial(connect, address)) for address in addresses[:_MOST]}
    for task in tasks.values():
        task.start()
    deadline = Deadline(seconds)
    for address, task in tasks.items():
        if not task.join(deadline.remaining):
            found.setdefault(address, "no answer in time")
    return {address: found[address] for address in tasks if address in found}


def listed(away: dict[str, str]) -> str:
    """What `unreachable` found, for a sentence."""
    return ", ".join(f"{plain(address)} ({plain(reason)})" for address, reason in away.items())
