"""What the cluster refuses and why, in a sentence for the user: out of what librdkafka tells, and a look of our own."""

from __future__ import annotations

import re
import ssl

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka.listener import Listener, certificate_fault, look
from loader_ws_trades.kafka.properties import KafkaProperties
from loader_ws_trades.text import printable

_NOTHING = "nothing was heard of the brokers"
_LOOK = 1.0  # seconds for one step of a look at an address
_ADDRESSES = 2  # addresses that are looked at after one failed try

# The address in "sasl_ssl://host:port/bootstrap: something (after 3ms in state SSL_HANDSHAKE)". In the state CONNECT
# nobody was reached, and there is nothing to look at.
_FAILED = re.compile(
    r"(?:^|[\s/])(?P<address>(?:\[[0-9A-Fa-f:.%]+\]|[^\s/\[\]:]+):\d+)/(?:bootstrap|\d+): "
    r".* \(after \d+ms in state (?!CONNECT\b)\w+",
    re.DOTALL,
)
_OWN_CERTIFICATE = re.compile(r"alert (?:certificate required|bad certificate|unknown ca|certificate unknown)\b")
_OFFERED = re.compile(r"Unsupported SASL mechanism: broker's supported mechanisms: ?(?P<offered>[^(]*)")


class Trouble:
    """What a client's callbacks told since the last `clear`."""

    def __init__(self, credentials: str) -> None:
        self.credentials = credentials
        self.reason = _NOTHING
        """The last of it in words."""
        self.next_try()

    def clear(self) -> None:
        """Forget all of it."""
        self.reason = _NOTHING
        self.next_try()

    def next_try(self) -> None:
        """Forget what speaks for a refusal: another try tells it again."""
        self._refusal: str | None = None
        self._refused_certificate = False
        self._cut_off: dict[str, None] = {}  # addresses that were reached and broke off, the last one at the end

    def note(self, kind: str, text: str) -> None:
        """Take an error by its name in librdkafka, like `_SSL`, and its text."""
        self.note_line(text)
        if kind == "_ALL_BROKERS_DOWN":
            return
        self.reason = plain(text)
        if kind == "_AUTHENTICATION":
            self._refusal = self._of_authentication(text)
        elif kind == "_SSL" and not self._refused_certificate and not self._refusal:
            self._refusal = (
                f"The TLS connection to Kafka failed ({plain(text)}); check {named('ca_path')} and "
                f"{named('kafka_bootstrap_servers')}"
            )

    def note_line(self, line: str) -> None:
        """Take a line of librdkafka's log: that a connection was cut off stands nowhere else."""
        failed = _FAILED.search(line)
        if failed:
            self._cut_off.pop(failed["address"], None)
            self._cut_off[failed["address"]] = None
            if self.reason == _NOTHING:
                self.reason = plain(line[failed.start("address") :])
        if "certificate verify failed" in line:
            self._refused_certificate = True
        if _OWN_CERTIFICATE.search(line):
            self._refusal = (
                "The brokers ask for a certificate of the loader's own, or do not trust it; give "
                f"ssl.certificate.location and ssl.key.location with {named('kafka_properties')}"
            )

    def check(self, properties: KafkaProperties) -> None:
        """Find out whether the cluster refuses what the client is configured to do, asking it ourselves if need be.

        Raises:
            ConfigurationError: if it does: running again will not help.
        """
        if self._refusal and not self._refused_certificate:
            raise ConfigurationError(self._refusal)
        for address in list(reversed(self._cut_off))[:_ADDRESSES]:
            fault = self._certificate(address, properties) if self._refused_certificate else None
            listener = None if fault else look(address, _LOOK)
            fault = fault or (self._mismatch(address, listener, properties) if listener else None)
            if fault:
                raise ConfigurationError(fault)
        if self._refusal or self._refused_certificate:
            raise ConfigurationError(
                self._refusal
                or f"The certificate of the brokers is refused ({self.reason}); check {named('ca_path')} and the host "
                f"names in {named('kafka_bootstrap_servers')}"
            )

    def _of_authentication(self, text: str) -> str:
        offered = _OFFERED.search(text)
        if offered:
            return (
                "Kafka does not offer the SASL mechanism that the loader uses, but "
                f"{offered['offered'].strip() or 'none'}; check {named('kafka_sasl_mechanism')}"
            )
        if "not valid in current SASL state" in text:
            return (
                f"Kafka asks for no user at the port that the loader uses; check {named('kafka_bootstrap_servers')} "
                f"and {named('kafka_security_protocol')}, or unset {self.credentials}"
            )
        if "OAUTHBEARER token" in text:
            return f"There is no token for Kafka ({plain(text)}); check {self.credentials}"
        return f"Kafka refused the user or the password; check {self.credentials}"

    def _certificate(self, address: str, properties: KafkaProperties) -> str | None:
        fault = certificate_fault(address, _context(properties), _LOOK)
        if fault is None:
            return None
        if fault.other_names:
            return (
                f"The certificate of the broker at {address} is for other host names ({fault.detail}); use one of them "
                f"in {named('kafka_bootstrap_servers')}"
            )
        return (
            f"The certificate of the broker at {address} is not trusted ({fault.detail}); set {named('ca_path')} to "
            "the CA that signed it"
        )

    def _mismatch(self, address: str, listener: Listener, properties: KafkaProperties) -> str | None:
        protocol = str(properties["security.protocol"]).upper()
        has_user = protocol.startswith("SASL")
        user = f" and asks for a user (SASL {', '.join(listener.mechanisms)})" if listener.mechanisms else ""
        where = f"{named('kafka_security_protocol')} and the port in {named('kafka_bootstrap_servers')}"
        if listener.tls and "SSL" not in protocol:
            mend = f"set {named('ca_path')}" + (f", {self.credentials}" if user and not has_user else "")
            return f"The broker at {address} speaks TLS{user}, the loader {protocol}; {mend}, or check {where}"
        if not listener.tls and "SSL" in protocol:
            also = f" and {named('kafka_user_producer')}" if has_user and not user else ""
            return (
                f"The broker at {address} speaks no TLS{user}, the loader {protocol}; check {where}, or unset "
                f"{named('ca_path')}{also}"
            )
        if user and not has_user:
            return f"The broker at {address}{user.removeprefix(' and')}, the loader has none; set {self.credentials}"
        return None


def plain(text: str) -> str:
    """A text of librdkafka without its details, on one line; a server's answer may stand in it."""
    return printable(" ".join(text.partition(" (after ")[0].split()), 300)


def _context(properties: KafkaProperties) -> ssl.SSLContext:
    """TLS that trusts what the client trusts, with OpenSSL's own strictness, as librdkafka has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = properties.get("ssl.endpoint.identification.algorithm") != "none"
    try:
        context.load_verify_locations(str(properties["ssl.ca.location"]))
    except (KeyError, OSError):
        context.load_default_certs()
    return context
