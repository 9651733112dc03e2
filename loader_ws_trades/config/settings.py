"""Settings: one table, from which the flags, the variables, the checks and the documentation all come.

Nothing here reads the environment or a clock; only the files that a setting names are opened, to check them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from loader_ws_trades.config import overrides
from loader_ws_trades.config import parsers as values
from loader_ws_trades.config import symbols as fleet
from loader_ws_trades.errors import ConfigurationError


@dataclass(frozen=True)
class Option:
    """One setting: how it is called outside, what it may be and what it means."""

    name: str
    parse: Callable[[Any], Any]
    default: str | None
    help: str
    secret: bool
    required: bool
    short: str | None

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return self.name.upper()

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return "--" + self.name.replace("_", "-")

    def __str__(self) -> str:
        return f"{self.variable} ({self.short or self.flag})"


def _option(
    parse: Callable[[str], Any],
    meaning: str,
    *,
    default: str | None = None,
    required: bool = False,
    secret: bool = False,
    short: str | None = None,
) -> Any:
    metadata = {
        "parse": parse,
        "default": default,
        "help": meaning,
        "secret": secret,
        "required": required,
        "short": short,
    }
    return field(default=None, metadata=metadata)


@dataclass(frozen=True, repr=False)
class Settings:
    """The checked settings of one process; times are in seconds. Made by `load`."""

    queue_id: str = _option(values.text, "The whole workflow's id.", required=True)
    symbol: str = _option(values.symbol, "Trading pair, in any case.", required=True)
    symbols: tuple[str, ...] | None = _option(
        fleet.listed, "Trading pairs, separated by commas, in place of SYMBOL; JOB_COMPLETION_INDEX picks one of them."
    )
    job_completion_index: int | None = _option(
        fleet.index, "Which of SYMBOLS to load, from 0; Kubernetes sets it in an Indexed Job."
    )
    type: str = _option(values.text, "Kind of data, repeated in telemetry, like ws_trade.", required=True)
    kafka_topic: str = _option(
        fleet.topic, "Topic for the trades; it must exist. `{symbol}` in it stands for the symbol.", required=True
    )
    telemetry_producer_id: str = _option(
        fleet.label,
        "This instance, repeated in telemetry as `producer`. `{symbol}` in it stands for the symbol.",
        required=True,
    )
    kafka_bootstrap_servers: str = _option(values.servers, "Kafka's brokers, host:port[,host:port].", required=True)
    kafka_user_producer: str | None = _option(values.text, "SASL user; if set, SCRAM-SHA-512 over TLS is used.")
    kafka_password_producer: str | None = _option(values.secret, "Password of the SASL user.", secret=True)
    kafka_password_file: str | None = _option(
        values.text, "File that holds the password of the SASL user, for a mounted secret."
    )
    kafka_user_consumer: str | None = _option(
        values.text, "SASL user for all that is read; without it the producer's is used."
    )
    kafka_password_consumer: str | None = _option(values.secret, "Password of the SASL user for reading.", secret=True)
    ca_path: str | None = _option(
        values.pem_file, "PEM file of the CA that signed the brokers' certificates; if set, TLS is used."
    )
    kafka_security_protocol: str | None = _option(
        values.choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "Overrides the security protocol that user and CA imply.",
    )
    kafka_sasl_mechanism: str | None = _option(
        values.choice("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"),
        "Overrides the SASL mechanism, SCRAM-SHA-512; OAUTHBEARER takes sasl.oauthbearer.* of -X in place of a user.",
    )
    kafka_properties: tuple[tuple[str, str], ...] | None = _option(
        overrides.properties,
        "librdkafka properties, key=value,key=value, for every Kafka client, but for those that the loader sets "
        "itself; the flag takes one and can be repeated.",
        secret=True,
        short="-X",
    )
    queue_control_topic: str = _option(values.topic, "Topic that commands are read from.", default="queue-control")
    queue_events_topic: str = _option(values.topic, "Topic that telemetry is written to.", default="queue-events")
    control_from: str = _option(
        values.choice("beginning", "now"),
        "Where reading commands starts; `now` ignores earlier ones.",
        default="beginning",
    )
    binance_ws_url: str = _option(
        values.url("ws", "wss"),
        "Base URL of the streams; the stream's name is appended.",
        default="wss://stream.binance.com:9443/ws",
    )
    binance_rest_url: str = _option(
        values.url("http", "https"),
        "Base URL of the REST API, for the symbol check and for repair.",
        default="https://api.binance.com",
    )
    telemetry_interval: float = _option(values.seconds, "Time between `loading` events.", default="10")
    max_records: int | None = _option(values.count, "Finish after this many trades.")
    duration: float | None = _option(values.seconds, "Finish after this time.")
    feed_silence_limit: float = _option(
        values.seconds, "Connect anew after this time without any frame, pings included.", default="60"
    )
    feed_outage_limit: float = _option(
        values.seconds, "Give up after this time without a connection to the exchange.", default="10m"
    )
    max_connection_age: float = _option(
        values.seconds, "Replace a connection by a new one after about this time.", default="23h"
    )
    gap_repair: str = _option(
        values.choice("on", "off"), "Whether missing trades are fetched from REST, or only reported.", default="on"
    )
    repair_deadline: float = _option(
        values.seconds, "Give up on trade ids that REST answers without for this time.", default="60"
    )
    repair_outage_limit: float = _option(
        values.seconds, "Give up on missing trades when REST has not answered for this time.", default="5m"
    )
    rest_weight_limit: int = _option(
        values.count_to(6000, "the weight a minute that an IP has"),
        "Request weight a minute to stay below, of the 6000 that an IP has.",
        default="3000",
    )
    resume: str = _option(
        values.choice("on", "off"), "Whether a run goes on behind the newest trade on the topic.", default="on"
    )
    resume_limit: int = _option(
        values.count, "Report, and do not fetch, what is missing if it is more trades than this.", default="1000000"
    )
    resume_scan_limit: int = _option(
        values.count,
        "Records, in all partitions together, that are searched for the newest trade on the topic.",
        default="20000000",
    )
    delivery: str = _option(
        values.choice("idempotent", "transactional"),
        "How trades are made to come once; `transactional` also fences off another loader of the same workflow, for "
        "readers with `read_committed`.",
        default="idempotent",
    )
    transaction_interval: float = _option(values.seconds, "Time after which a transaction is committed.", default="0.1")
    transaction_records: int = _option(
        values.count, "Records after which a transaction is committed before its time.", default="10000"
    )
    kafka_queue_records: int = _option(
        values.count_to(10_000_000, "librdkafka's most"),
        "Records that may wait for Kafka; over it the stream is not read.",
        default="400000",
    )
    kafka_outage_limit: float = _option(
        values.seconds, "Give up when a record has waited this long for Kafka's acknowledgement.", default="10m"
    )
    startup_timeout: float = _option(
        values.seconds, "Give up if the brokers are not reached in this time.", default="30"
    )
    startup_grace: float = _option(
        values.seconds,
        "Try again for this time at the start what the brokers or the exchange refuse or do not know.",
        default="10",
    )
    shutdown_timeout: float = _option(
        values.seconds, "Time for delivering the tail and the last event after a stop.", default="20"
    )
    metrics_port: int | None = _option(
        values.port, "Port at which metrics and the liveness probe are served, on all addresses; off if not set."
    )
    heartbeat_file: str | None = _option(
        fleet.label,
        "File whose time of modification is renewed every second while the loader is alive. `{symbol}` in it stands "
        "for the symbol.",
    )
    log_level: str = _option(
        values.choice("debug", "info", "warning", "error"), "Least level that is logged.", default="info"
    )
    log_format: str = _option(values.choice("text", "json"), "Form of the log lines on standard error.", default="text")

    def __repr__(self) -> str:
        shown = ((option, getattr(self, option.name)) for option in OPTIONS)
        return f"Settings({', '.join(f'{option.name}={_shown(option, value)}' for option, value in shown)})"

    @property
    def stream_url(self) -> str:
        """URL of the symbol's trade stream: its name behind the base URL's path and before its query."""
        parts = urlsplit(self.binance_ws_url)
        name = quote(self.symbol.lower(), safe="") + "@trade"
        path = parts.path.rstrip("/")
        if self.combined_stream:
            query = "&".join(part for part in (f"streams={name}", parts.query) if part)
            return urlunsplit(parts._replace(path=path, query=query))
        return urlunsplit(parts._replace(path=f"{path}/{name}"))

    @property
    def combined_stream(self) -> bool:
        """Whether frames come wrapped in `{"stream":..,"data":..}`."""
        return urlsplit(self.binance_ws_url).path.rstrip("/").endswith("/stream")

    def secrets(self) -> list[str]:
        """All secret values, the longest first, for keeping them out of whatever is shown."""
        found = {self.kafka_password_producer, self.kafka_password_consumer}
        found.update(value for _, value in self.kafka_properties or () if len(value) >= 8)
        for address in (self.binance_ws_url, self.binance_rest_url):
            parts = urlsplit(address or "")
            held = parts.password or parts.username or ""  # a token may stand in the user's place
            found |= {held, unquote(held)}
            found.update(value for _, value in parse_qsl(parts.query) if len(value) >= 8)
        # What is shorter than this is no secret, and would tear holes into other words.
        return sorted({value for value in found if value and len(value) >= 4}, key=len, reverse=True)


OPTIONS: Final = tuple(Option(name=part.name, **part.metadata) for part in fields(Settings))


TOPICS: Final = ("kafka_topic", "queue_events_topic", "queue_control_topic")
# Settings that are one in two forms.
PASSWORD_FORMS: Final = frozenset({"kafka_password_producer", "kafka_password_file"})
SYMBOL_FORMS: Final = frozenset({"symbol", "symbols"})


def _shown(option: Option, value: object) -> str:
    if option.secret and value:
        return "***"
    return repr(redacted_url(value) if isinstance(value, str) and "://" in value else value)


def redacted_url(value: str) -> str:
    """`value` without the user, the password and the query that a URL may hold."""
    return re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1?***", re.sub(r"(?<=://)[^/?#]*@", "***@", value))


def redacted(shown: str, settings: Settings) -> str:
    """`shown` without the secrets of `settings`."""
    for secret in settings.secrets():
        shown = shown.replace(secret, "***")
    return shown


def producer_credentials(settings: Settings) -> str:
    """The settings that name the user who writes, for messages."""
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f"sasl.oauthbearer.* in {named('kafka_properties')}"
    password = "kafka_password_file" if settings.kafka_password_file else "kafka_password_producer"
    return f"{named('kafka_user_producer')} and {named(password)}"


def consumer_credentials(settings: Settings) -> str:
    """The settings that name the user who reads, for messages."""
    if settings.kafka_user_consumer:
        return f"{named('kafka_user_consumer')} and {named('kafka_password_consumer')}"
    return producer_credentials(settings)


def load(given: Mapping[str, str | Iterable[str] | None], *, needed: Iterable[str] | None = None) -> Settings:
    """Settings from texts by the name of the option; what is absent takes its default.

    Args:
        given: the texts, from wherever they come.
        needed: the options that must have a value; all that `run` needs, if not said.

    Raises:
        ConfigurationError: with all faults at once, each naming the variable and the flag.
    """
    required = {option.name for option in OPTIONS if option.required} if needed is None else set(needed)
    texts = {name: values.stripped(value) if isinstance(value, str) else value for name, value in given.items()}
    secrets = _secrets_in(texts)
    faults = []
    checked: dict[str, Any] = {}
    for option in OPTIONS:
        value = texts.get(option.name) or None
        if value is None and option.name in required and not (option.name == "symbol" and texts.get("symbols")):
            faults.append(f"{option} is required; set it")
        value = value or option.default
        try:
            checked[option.name] = None if value is None else option.parse(value)
        except ValueError as error:
            faults.append(f"{option} {_without(secrets, value, option, error)}")
    faults += _choose_symbol(checked, needed="symbol" in required)
    faults += _put_symbol_in(checked)
    faults += _take_password_file(checked)
    faults += _contradictions(checked, given_file=bool(texts.get("kafka_password_file")))
    if faults:
        raise ConfigurationError(*faults)
    return Settings(**checked)


def _secrets_in(texts: Mapping[str, Any]) -> list[str]:
    found = []
    for option in OPTIONS:
        value = texts.get(option.name) or () if option.secret else ()
        if option.parse is overrides.properties:
            parts = value.split(",") if isinstance(value, str) else value
            found += [part.partition("=")[2].strip() for part in parts]
        elif value:
            found.append(value)
    return sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True)


def _without(secrets: Iterable[str], value: Any, option: Option, error: ValueError) -> str:
    """What is wrong with `value`, said without the secrets of other settings that may stand in it by mistake."""
    if option.secret or not any(secret in value for secret in secrets):
        return str(error)
    for secret in secrets:
        value = value.replace(secret, "***")
    try:
        option.parse(value)
    except ValueError as told:
        return str(told)
    return "is not usable, and holds a secret of another setting; give it a value of its own"


def _choose_symbol(checked: dict[str, Any], *, needed: bool) -> list[str]:
    if checked.get("symbol") and checked.get("symbols"):
        return [f"{named('symbol')} and {named('symbols')} are both set; set one"]
    if needed and checked.get("symbol") and checked.get("job_completion_index"):
        return [
            f"{named('job_completion_index')} is {checked['job_completion_index']}, but {named('symbol')} names one "
            f"pair for all of the Job's pods, and each would write its trades; set {named('symbols')} in its place"
        ]
    if not checked.get("symbols") or "job_completion_index" not in checked:
        return []
    try:
        checked["symbol"] = fleet.chosen(checked["symbols"], checked["job_completion_index"])
    except ValueError as error:
        # Who stops a whole fleet shares its variables, and is none of it.
        return [f"{named('job_completion_index')} {error}"] if needed or checked["job_completion_index"] else []
    return []


_WITH_A_PLACE: Final = {
    "kafka_topic": fleet.topic_of,
    "telemetry_producer_id": fleet.label_of,
    "heartbeat_file": fleet.label_of,
}


def _put_symbol_in(checked: dict[str, Any]) -> list[str]:
    """Put the symbol where its place is; a text with a place that stays open is left out."""
    faults = []
    for name, put_in in _WITH_A_PLACE.items():
        text = checked.get(name)
        if not text or fleet.PLACE not in text:
            continue
        checked[name] = None
        try:
            checked[name] = put_in(checked["symbol"], text) if checked.get("symbol") else None
        except ValueError as error:
            faults.append(f"{named(name)} {error}")
    return faults


def _take_password_file(checked: dict[str, Any]) -> list[str]:
    file = checked.get("kafka_password_file")
    if not file:
        return []
    if checked.get("kafka_password_producer"):
        return [f"{named('kafka_password_producer')} and {named('kafka_password_file')} are both set; set one"]
    try:
        checked["kafka_password_producer"] = values.password_in(file)
    except ValueError as error:
        return [f"{named('kafka_password_file')} {error}"]
    return []


def _contradictions(checked: Mapping[str, Any], *, given_file: bool) -> list[str]:
    faults = []
    topics = [checked.get(name) for name in TOPICS]
    if len({topic for topic in topics if topic}) < len([topic for topic in topics if topic]):
        faults.append(f"{', '.join(map(named, TOPICS))} are not three different topics; give each its own")
    for client in ("producer", "consumer"):
        user, password = f"kafka_user_{client}", f"kafka_password_{client}"
        if user not in checked or password not in checked:
            continue
        from_file = client == "producer" and given_file
        if checked[user] and not checked[password] and not from_file:
            file = f" or {named('kafka_password_file')}" if client == "producer" else ""
            faults.append(f"{named(user)} is set without a password; set {named(password)}{file}")
        if checked[password] and not checked[user]:
            where = named("kafka_password_file" if from_file else password)
            faults.append(f"{where} is set without a user; set {named(user)}")
    protocol = checked.get("kafka_security_protocol") or ""
    if checked.get("kafka_sasl_mechanism") == "OAUTHBEARER":
        faults += [
            f"{named(name)} is set, and {named('kafka_sasl_mechanism')} is OAUTHBEARER; unset one"
            for name in ("kafka_user_producer", "kafka_user_consumer")
            if checked.get(name)
        ]
        if protocol and not protocol.startswith("SASL"):
            faults.append(f"{named('kafka_security_protocol')} is {protocol}, and OAUTHBEARER needs SASL_SSL")
    elif protocol.startswith("SASL") and not checked.get("kafka_user_producer"):
        faults.append(f"{named('kafka_security_protocol')} is {protocol}, which needs {named('kafka_user_producer')}")
    return faults


def named(name: str) -> str:
    """The variable and the flag of a setting, for messages."""
    return str(next(option for option in OPTIONS if option.name == name))
