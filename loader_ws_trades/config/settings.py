"""The settings: one table, the source of the flags, the variables, the validation and the documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from loader_ws_trades.config import overrides, parsers
from loader_ws_trades.config import symbols as pairs
from loader_ws_trades.text import redacted_url


@dataclass(frozen=True)
class Option:
    """One setting: its names, its parser and its help text."""

    name: str
    parse: Callable[[Any], Any]
    help: str
    default: str | None = None
    required: bool = False
    secret: bool = False
    short: str | None = None

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


def _option(parse: Callable[[str], Any], meaning: str, **rest: str | bool) -> Any:
    return field(default=None, metadata={"parse": parse, "help": meaning, **rest})


@dataclass(frozen=True, repr=False)
class Settings:
    """The validated settings of one process; times are in seconds. Made by `loading.load`."""

    queue_id: str = _option(parsers.text, "Workflow ID.", required=True)
    symbol: str = _option(parsers.symbol, "Trading pair, in upper or lower case.", required=True)
    symbols: tuple[str, ...] | None = _option(
        pairs.listed,
        "Trading pairs and patterns such as `*USDT` or `*`, separated by commas, instead of SYMBOL; one process loads "
        "them all.",
    )
    job_completion_index: int | None = _option(
        parsers.whole(0, 10**9, "a whole number from 0"),
        "Zero-based share of SYMBOLS to load; Kubernetes sets it in an Indexed Job.",
    )
    job_completions: int | None = _option(
        parsers.count,
        "Number of shares of SYMBOLS: the completions of the Job. By default one for each pair of a list.",
    )
    symbols_refresh: float = _option(
        parsers.seconds, "Time between look-ups of the pairs that match the patterns in SYMBOLS.", default="5m"
    )
    type: str = _option(parsers.text, "Data type reported in telemetry, e.g. ws_trade.", required=True)
    kafka_topic: str = _option(
        pairs.topic, "Topic for trades; it must exist. `{symbol}` is replaced by the symbol.", required=True
    )
    telemetry_producer_id: str = _option(
        pairs.label,
        "Instance ID reported in telemetry as `producer`. `{symbol}` is replaced by the symbol.",
        required=True,
    )
    kafka_bootstrap_servers: str = _option(parsers.servers, "Kafka brokers, host:port[,host:port].", required=True)
    kafka_user_producer: str | None = _option(parsers.text, "SASL user; implies SCRAM-SHA-512 over TLS.")
    kafka_password_producer: str | None = _option(parsers.secret, "Password of the SASL user.", secret=True)
    kafka_password_file: str | None = _option(
        parsers.text, "File with the password of the SASL user, such as a mounted secret."
    )
    kafka_user_consumer: str | None = _option(parsers.text, "SASL user for reading; defaults to the producer's.")
    kafka_password_consumer: str | None = _option(parsers.secret, "Password of the SASL user for reading.", secret=True)
    ca_path: str | None = _option(parsers.pem_file, "PEM file with the CA of the brokers' certificates; implies TLS.")
    kafka_security_protocol: str | None = _option(
        parsers.choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "Security protocol, if not the one implied by the user and CA.",
    )
    kafka_sasl_mechanism: str | None = _option(
        parsers.choice("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"),
        "SASL mechanism, if not SCRAM-SHA-512; OAUTHBEARER takes sasl.oauthbearer.* properties (-X) instead of a user.",
    )
    kafka_properties: tuple[tuple[str, str], ...] | None = _option(
        overrides.properties,
        "librdkafka properties for all Kafka clients, key=value,key=value; those the loader sets itself are rejected. "
        "The flag takes one and is repeatable.",
        secret=True,
        short="-X",
    )
    queue_control_topic: str = _option(parsers.topic, "Topic to read commands from.", default="queue-control")
    queue_events_topic: str = _option(parsers.topic, "Topic to send telemetry to.", default="queue-events")
    control_from: str = _option(
        parsers.choice("beginning", "now"),
        "Where to start reading commands; `now` ignores earlier ones.",
        default="beginning",
    )
    binance_ws_url: str = _option(
        parsers.urls("ws", "wss"),
        "Base URL of the streams; their names are appended. Several, separated by commas, are used in turn.",
        default="wss://stream.binance.com:9443/ws",
    )
    binance_rest_url: str = _option(
        parsers.url("http", "https"),
        "Base URL of the REST API, for the symbol check and gap repair.",
        default="https://api.binance.com",
    )
    telemetry_interval: float = _option(parsers.seconds, "Time between `loading` events.", default="10")
    max_records: int | None = _option(parsers.count, "Stop after this many trades.")
    duration: float | None = _option(parsers.seconds, "Stop after this long.")
    feed_silence_limit: float = _option(
        parsers.seconds, "Reconnect after this long without any frame, pings included.", default="60"
    )
    feed_outage_limit: float = _option(
        parsers.seconds, "Give up after this long without a connection to the exchange.", default="10m"
    )
    stream_check_interval: float = _option(
        parsers.seconds,
        "Ask REST whether a pair has newer trades after this long without one (request weight 2 per 20 pairs).",
        default="60",
    )
    feed_connections: int = _option(
        parsers.count_to(2, "which is enough for one to replace the other"),
        "Connections that carry each stream; with 2 the first copy of each trade counts.",
        default="1",
    )
    max_connection_age: float = _option(parsers.seconds, "Rotate the connection after about this long.", default="23h")
    gap_repair: str = _option(
        parsers.choice("on", "off"), "Fetch missing trades from REST, or only report them.", default="on"
    )
    repair_deadline: float = _option(
        parsers.seconds, "Treat trade ids as nonexistent after REST has not returned them for this long.", default="60"
    )
    repair_outage_limit: float = _option(
        parsers.seconds, "Give up on missing trades after REST has been unavailable for this long.", default="5m"
    )
    rest_weight_limit: int = _option(
        parsers.count_to(6000, "the limit per IP"),
        "Limit on request weight per minute, out of the 6000 per IP.",
        default="3000",
    )
    resume: str = _option(parsers.choice("on", "off"), "Resume after the newest trade on the topic.", default="on")
    resume_limit: int = _option(
        parsers.count,
        "If more trades than this are missing in a gap, report them instead of fetching them.",
        default="1000000",
    )
    resume_scan_limit: int = _option(
        parsers.count,
        "Maximum records to scan, over all partitions, for the newest trade on the topic.",
        default="20000000",
    )
    delivery: str = _option(
        parsers.choice("idempotent", "transactional"),
        "Delivery guarantee; `transactional` also fences another loader of the same workflow, for `read_committed` "
        "consumers.",
        default="idempotent",
    )
    transaction_interval: float = _option(parsers.seconds, "Commit a transaction after this long.", default="0.1")
    transaction_records: int = _option(
        parsers.count, "Commit a transaction early after this many records.", default="10000"
    )
    kafka_queue_records: int = _option(
        parsers.count_to(10_000_000, "librdkafka's maximum"),
        "Maximum records buffered for Kafka; beyond it, reading pauses (back-pressure).",
        default="400000",
    )
    kafka_outage_limit: float = _option(
        parsers.seconds, "Give up when a record has not been acknowledged for this long.", default="10m"
    )
    startup_timeout: float = _option(
        parsers.seconds, "Give up if no broker is reachable for this long at startup.", default="30"
    )
    startup_grace: float = _option(
        parsers.seconds,
        "How long to retry at startup what the cluster (credentials, ACLs, topics) or the exchange rejects.",
        default="10",
    )
    shutdown_timeout: float = _option(
        parsers.seconds, "Time limit for delivering queued records and the last event at shutdown.", default="20"
    )
    metrics_port: int | None = _option(
        parsers.port, "Port for metrics and the liveness probe, on all interfaces; disabled if not set."
    )
    heartbeat_file: str | None = _option(
        pairs.label,
        "File touched at least every two seconds while healthy. `{symbol}` is replaced by the symbol.",
    )
    record_headers: str = _option(
        parsers.choice("on", "off"),
        "Add Kafka headers to each record: when it was received (ns), the event time, and the source.",
        default="off",
    )
    log_level: str = _option(
        parsers.choice("debug", "info", "warning", "error"), "Minimum level to log.", default="info"
    )
    log_format: str = _option(
        parsers.choice("text", "json"), "Format of the log lines on standard error.", default="text"
    )

    def __repr__(self) -> str:
        shown = ((option, getattr(self, option.name)) for option in OPTIONS)
        return f"Settings({', '.join(f'{option.name}={_shown(option, value)}' for option, value in shown)})"

    @property
    def many(self) -> bool:
        """Whether this process loads several pairs; then `symbol` is empty, and `{symbol}` is not filled in."""
        entries = self.symbols or ()
        return len(entries) > 1 or any(map(pairs.is_pattern, entries))

    @property
    def share(self) -> tuple[int, int]:
        """Which share of the pairs this process loads, i of n; (0, 1) for all."""
        place, shares = self.job_completion_index, self.job_completions
        return (0, 1) if place is None or shares is None else (place, shares)

    def chosen(self, trading: Iterable[str]) -> list[str]:
        """The pairs of this process if these are `trading`, by their order in SYMBOLS, then by name."""
        entries = self.symbols or ()
        # A list of names alone is split already.
        return pairs.matching(entries, trading, self.share if any(map(pairs.is_pattern, entries)) else (0, 1))

    def for_symbol(self, symbol: str) -> Settings:
        """The settings of one of many pairs, with `{symbol}` filled in.

        Raises:
            ValueError: if its topic cannot have that name; the text names the setting.
        """
        try:
            topic = pairs.filled(self.kafka_topic, symbol, is_topic=True)
        except ValueError as error:
            raise ValueError(f"{named('kafka_topic')} {error}") from error
        if topic in {self.queue_events_topic, self.queue_control_topic}:
            raise ValueError(f"{named('kafka_topic')} is {topic} for {symbol}, which is another topic of the loader's")
        producer = self.telemetry_producer_id and pairs.filled(self.telemetry_producer_id, symbol, is_topic=False)
        return replace(self, symbol=symbol, kafka_topic=topic, telemetry_producer_id=producer)

    @property
    def instance(self) -> str:
        """What the process is called by what it loads: the pair, or the share of many."""
        place, shares = self.share
        return f"share-{place}-of-{shares}" if self.many else self.symbol

    @property
    def client_id(self) -> str:
        """The name of the process for brokers and logs."""
        return (self.telemetry_producer_id or "").replace(pairs.PLACE, self.instance or "")


OPTIONS: Final = tuple(Option(part.name, **part.metadata) for part in fields(Settings))

TOPICS: Final = ("kafka_topic", "queue_events_topic", "queue_control_topic")
# Alternative ways to set one thing.
PASSWORD_FORMS: Final = frozenset({"kafka_password_producer", "kafka_password_file"})
SYMBOL_FORMS: Final = frozenset({"symbol", "symbols"})
SHARE: Final = frozenset({"job_completion_index", "job_completions"})


def _shown(option: Option, value: object) -> str:
    if option.secret and value:
        return "***"
    return repr(redacted_url(value) if isinstance(value, str) and "://" in value else value)


def named(name: str) -> str:
    """The variable and the flag of a setting, for messages."""
    return str(next(option for option in OPTIONS if option.name == name))
