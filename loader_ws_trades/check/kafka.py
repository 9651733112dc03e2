"""What `check` tries of Kafka: addresses, credentials, topics and rights; it writes to no topic."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from loader_ws_trades.check.network import resolve_brokers
from loader_ws_trades.check.probes import Outcome, Probe, ok, skip, warn
from loader_ws_trades.config.settings import OPTIONS, Settings, consumer_credentials, named, producer_credentials
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka import startup as kafka
from loader_ws_trades.kafka.addresses import listed, unreachable
from loader_ws_trades.kafka.admin import TopicAdmin, check_addresses
from loader_ws_trades.kafka.checkpoint import newest_trade
from loader_ws_trades.kafka.producer import Producer
from loader_ws_trades.kafka.properties import (
    KafkaProperties,
    consumer_properties,
    telemetry_producer_properties,
    trade_producer_properties,
    transactional_id,
)
from loader_ws_trades.kafka.reader import TopicReader
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.text import format_duration, format_time

ANSWER: Final = 10.0  # seconds that brokers have to answer one probe
CONNECTION: Final = tuple(
    option.name for option in OPTIONS if option.name.startswith("kafka_") and option.name != "kafka_topic"
)
"""The settings that a client of Kafka is made from, with some that do no harm."""

_CONNECT = 5.0  # seconds for addresses to be connected to
_SHORT = 3600.0  # seconds; a topic that keeps less may be empty when a run looks for its checkpoint
_UNTRIED = "not tried: it would fence off a running loader"
_KIND = "check"  # sets the transactional id that is tried apart from those of loaders
_T = TypeVar("_T")


def patiently(ask: Callable[[], _T], client: kafka.Client) -> _T:
    """Ask until brokers answer, for a while; a refusal counts at once.

    Raises:
        ConfigurationError: if the cluster refuses.
        RunError: if no broker answered.
    """
    found: list[_T] = []

    def attempt() -> None:
        try:
            found.append(ask())
        finally:
            client.diagnosis.next_attempt()

    def poll(seconds: float) -> None:
        # A producer that may write nowhere has failed, and can be asked all the same.
        with contextlib.suppress(RunError):
            client.poll(seconds)

    kafka.retry_until_ready(attempt, Startup(Deadline(ANSWER), 0, stopped=lambda: False), poll)
    return found[0]


class KafkaProbes:
    """The probes of one check; `close` ends the connections that they leave open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._writer: Producer
        self._reader: TopicReader | None = None

    def probes(self) -> list[Probe]:
        """All of them, in their order."""
        settings = self._settings
        found = [
            Probe("broker hosts", self._resolve, needs=("kafka_bootstrap_servers",)),
            Probe("brokers", self._connect, after=("broker hosts",), needs=("kafka_bootstrap_servers",)),
            Probe("credentials", self._sign_in, after=("brokers",), needs=("ca_path", *CONNECTION)),
        ]
        reads = "credentials"
        if settings.kafka_user_consumer:
            reads = "read credentials"
            found.append(Probe(reads, self._sign_in_to_read, after=("brokers",), needs=("ca_path", *CONNECTION)))
        topics: tuple[tuple[str, str, kafka.Operation], ...] = (
            ("trades", "kafka_topic", "WRITE"),
            ("events", "queue_events_topic", "WRITE"),
            ("commands", "queue_control_topic", "READ"),
        )
        for name, setting, right in topics:
            topic, verb = f"{name} topic", right.lower()
            after = "credentials" if right == "WRITE" else reads
            found.append(Probe(topic, partial(self._find, setting, right), after=(after,), needs=(setting,)))
            found.append(Probe(f"{verb} {name}", partial(self._allowed, setting, right), after=(topic,)))
        found.append(Probe("checkpoint", self._go_on, after=("trades topic", reads), needs=("symbol",)))
        if settings.delivery == "transactional":
            needs = ("queue_id", "symbol", "delivery")
            found.append(Probe("transactional id", self._fence, after=("write trades",), needs=needs))
        return found

    def close(self) -> None:
        """End the connections."""
        if self._reader:
            self._reader.close()

    def _resolve(self) -> Outcome:
        return resolve_brokers(self._settings.kafka_bootstrap_servers)

    def _connect(self) -> Outcome:
        addresses = self._settings.kafka_bootstrap_servers.split(",")
        away = unreachable(addresses, _CONNECT)
        text = (
            f"Nothing answers at {listed(away)}; check {named('kafka_bootstrap_servers')} and that the brokers are up"
        )
        if len(away) == len(addresses):
            raise UnavailableError(text)
        return warn(text) if away else ok(", ".join(addresses))

    def _sign_in(self) -> Outcome:
        properties, credentials = telemetry_producer_properties(self._settings), producer_credentials(self._settings)
        self._writer = Producer(properties, lambda _error, _message: None, credentials=credentials)
        return self._ask(self._writer)

    def _sign_in_to_read(self) -> Outcome:
        return self._ask(self.reading())

    def reading(self) -> TopicReader:
        """The reader of the commands."""
        settings = self._settings
        if self._reader is None:
            properties, credentials = consumer_properties(settings), consumer_credentials(settings)
            self._reader = TopicReader(properties, settings.queue_control_topic, credentials=credentials)
        return self._reader

    def _ask(self, client: kafka.Client) -> Outcome:
        """Be let in, and see whether the addresses that brokers tell of themselves can be used."""
        # A topic is named, not to be told of all topics that there are.
        cluster = patiently(lambda: kafka.ask_cluster(client, self._settings.queue_events_topic), client)
        check_addresses(cluster, _CONNECT)
        properties = client.properties
        user = f"user {properties['sasl.username']}, {properties['sasl.mechanism']}, " if _has_user(properties) else ""
        return ok(f"{user}{properties['security.protocol']}, {_counted(len(cluster.brokers), 'broker')}")

    def _client(self, right: kafka.Operation) -> kafka.Client:
        return self._writer if right == "WRITE" else self.reading()

    def _find(self, setting: str, right: kafka.Operation) -> Outcome:
        client, topic = self._client(right), getattr(self._settings, setting)
        found = patiently(lambda: kafka.check_topic(client, topic, setting, right), client)
        lacking = [number for number, partition in found.partitions.items() if partition.leader < 0]
        if lacking:
            raise UnavailableError(f"The topic {topic} has no leader for partition {lacking[0]}; check the brokers")
        text = f"{topic}, {_counted(len(found.partitions), 'partition')}"
        if right != "WRITE":
            return ok(text)
        told = TopicAdmin(client.properties, topic, seconds=ANSWER).settings()
        if setting == "kafka_topic":
            told.check(setting)
            return _judged(told, text)
        told.check_size(setting)
        return ok(text)

    def _allowed(self, setting: str, right: kafka.Operation) -> Outcome:
        client, topic = self._client(right), getattr(self._settings, setting)
        if not kafka.check_permission(client, topic, setting, right, seconds=ANSWER):
            return skip("not tried: the brokers do not tell rights")
        return ok(f"{right} on {topic}")

    def _go_on(self) -> Outcome:
        settings = self._settings
        if settings.resume == "off":
            return skip(f"not tried: {named('resume')} is off")
        try:
            found = newest_trade(settings)
        except UnavailableError as error:
            if not error.lasting:
                raise
            return warn(
                f"There is no right to READ on the topic {settings.kafka_topic}, so each run starts at the first live "
                f"trade; grant it to the user, check {consumer_credentials(settings)}, or set {named('resume')} to off"
            )
        if found.doubt:
            start = f"the first trade from {format_time(found.since)} on" if found.since else "the first live trade"
            return warn(f"{found.doubt}: a run starts at {start}; run backfill for what is before")
        if found.last is None:
            return ok(f"no trade of {settings.symbol} yet")
        return ok(f"goes on behind trade id {found.last.trade_id}")

    def _fence(self) -> Outcome:
        """Try the right on an id beside the real one: that one would end the loader that has it."""
        settings = self._settings
        beside = transactional_id(settings, _KIND)
        properties = trade_producer_properties(settings, _KIND)
        producer = Producer(properties, lambda _error, _message: None, credentials=producer_credentials(settings))
        try:
            patiently(producer.init_transactions, producer)
        except ConfigurationError:
            return skip(
                f"{_UNTRIED}; the user must have WRITE on {transactional_id(settings)}, or on the prefix "
                "loader-ws-trades., which could be tried"
            )
        finally:
            with contextlib.suppress(RunError):
                producer.poll(0)
        return ok(f"tried with {beside}")


def _judged(told: TopicSettings, text: str) -> Outcome:
    """What the topic of the trades takes and keeps, as far as the cluster tells."""
    for bound, what in ((told.max_age, "older than"), (told.max_ahead, "ahead of its clock by more than")):
        if bound and bound[1] < _SHORT:
            return warn(
                f"The topic {told.topic} refuses trades that are {what} {format_duration(bound[1])}, which ends a run "
                f"with exit code 2; raise its {bound[0]}"
            )
    if told.uses_append_time:
        return warn(
            f"The topic {told.topic} replaces trade times by the time of writing, for readers that go by the times of "
            "records; set its message.timestamp.type to CreateTime"
        )
    if told.retention is None:
        return ok(f"{text}; what it keeps is not told")
    if told.retention < _SHORT:
        return warn(
            f"The topic {told.topic} keeps trades for {told.retention:g} s only, and a run that begins later does not "
            "see where the last one ended; raise its retention.ms"
        )
    return ok(f"{text}, kept {'for ever' if told.retention == math.inf else f'for {told.retention / 86400:.3g} d'}")


def _has_user(properties: KafkaProperties) -> bool:
    return str(properties["security.protocol"]).startswith("SASL") and "sasl.username" in properties


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
