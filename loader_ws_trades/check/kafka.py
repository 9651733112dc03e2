"""The steps at Kafka: the brokers, the topics as a run opens them, the checkpoint and the transactional id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from loader_ws_trades.check.steps import Result, Step, passed, skipped, warned
from loader_ws_trades.config.settings import OPTIONS, Settings, named
from loader_ws_trades.config.symbols import PLACE
from loader_ws_trades.errors import ConfigurationError, UnavailableError
from loader_ws_trades.kafka.admin import TopicAdmin
from loader_ws_trades.kafka.checkpoint import Checkpoint, Search, newest_trade
from loader_ws_trades.kafka.control import Control
from loader_ws_trades.kafka.diagnosis import listed, unreachable
from loader_ws_trades.kafka.properties import (
    KafkaProperties,
    consumer_credentials,
    producer_credentials,
    trade_producer_properties,
    transactional_id,
)
from loader_ws_trades.kafka.publisher import Publisher
from loader_ws_trades.kafka.reader import TopicScanner
from loader_ws_trades.kafka.telemetry import Telemetry
from loader_ws_trades.kafka.topic_settings import TopicSettings
from loader_ws_trades.kafka.topics import check_topics
from loader_ws_trades.kafka.transactions import TransactionalPublisher
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.text import format_duration, format_time

_ANSWER = 10.0  # seconds for the brokers to answer
_CONNECT = 5.0  # seconds to connect to the brokers
_SHORT = 3600.0  # seconds; after a shorter retention the checkpoint may be gone before the next run
_KIND = "check"  # part of the transactional id: the real one would fence a running loader
_CLIENT: Final = (
    "ca_path",
    *(option.name for option in OPTIONS if option.name.startswith("kafka_") and option.name != "kafka_topic"),
)


class KafkaSteps:
    """The steps of one check.

    Args:
        settings: the settings that are usable.
        pairs: the pairs that a run would load, once they are known.
    """

    def __init__(self, settings: Settings, pairs: Sequence[str] = ()) -> None:
        self._settings = settings
        self._pairs = pairs
        self._refused: set[str] = set()  # topics that cannot be used

    def steps(self) -> list[Step]:
        """All of them, in order."""
        brokers, topics = ("brokers",), ("trades topic", "commands topic")
        events, commands = "queue_events_topic", "queue_control_topic"
        steps = [
            Step("brokers", self._reach_brokers, needs=("kafka_bootstrap_servers",)),
            Step("events topic", lambda: self._open(Telemetry, events), brokers, (*_CLIENT, events)),
            Step("trades topic", self._open_publisher, brokers, (*_CLIENT, "kafka_topic", "symbol")),
            Step("commands topic", lambda: self._open(Control, commands), brokers, (*_CLIENT, commands)),
            Step("checkpoint", self._find_checkpoint, after=topics),
        ]
        if self._settings.delivery == "transactional":
            steps.append(Step("transactional id", self._init_transactions, topics[:1], ("queue_id", "delivery")))
        return steps

    def _reach_brokers(self) -> Result:
        self._startup = _startup()  # shared by the topics, as in a run
        addresses = self._settings.kafka_bootstrap_servers.split(",")
        away = unreachable(addresses, _CONNECT)
        if not away:
            return passed(", ".join(addresses))
        text = f"Cannot connect to {listed(away)}; check {named('kafka_bootstrap_servers')} and that the brokers are up"
        if len(away) == len(addresses):
            raise UnavailableError(text)
        return warned(text)

    def _open(self, client: type[Telemetry | Control], setting: str) -> Result:
        client(self._settings).open(self._startup)
        return passed(getattr(self._settings, setting))

    def _open_publisher(self) -> Result:
        Publisher(self._settings, _KIND).open(self._startup)
        properties = trade_producer_properties(self._settings, _KIND)
        if PLACE in self._settings.kafka_topic:
            return self._check_topics(properties)
        topic = TopicAdmin(properties, self._settings.kafka_topic, seconds=_ANSWER).settings()
        kept = ""
        if topic.retention is not None:
            kept = ", kept forever" if topic.retention == math.inf else f", kept for {topic.retention / 86400:.3g} d"
        return passed(f"{topic.topic}{kept}", *topic_warnings(topic))

    def _by_topic(self) -> tuple[dict[str, list[str]], list[str]]:
        """The pairs by topic, and why others have none."""
        found: dict[str, list[str]] = {}
        faults: list[str] = []
        for pair in self._pairs:
            try:
                found.setdefault(self._settings.for_symbol(pair).kafka_topic, []).append(pair)
            except ValueError as error:  # noqa: PERF203 - once a pair
                faults.append(str(error))
        return found, faults

    def _check_topics(self, properties: KafkaProperties) -> Result:
        by_topic, faults = self._by_topic()
        credentials = producer_credentials(self._settings)
        refused = check_topics(properties, list(by_topic), self._startup, credentials=credentials)
        self._refused = set(refused)
        faults += map(str, refused.values())
        if not faults:
            return passed(f"{len(by_topic)} topics")
        text = f"{len(faults)} of {len(self._pairs)} pairs cannot be loaded, the others can: {faults[0]}"
        if len(faults) < len(self._pairs):
            return warned(text)
        raise ConfigurationError(f"No pair can be loaded: {faults[0]}")

    def _find_checkpoints(self) -> Result:
        found: list[Checkpoint] = []
        with closing(TopicScanner(self._settings)) as scanner:
            for topic, pairs in self._by_topic()[0].items():
                if topic in self._refused:
                    continue
                scanner.turn_to(topic)
                found += Search(self._settings.for_symbol(pairs[0]), pairs, scanner).run(_ANSWER).values()
        doubts = [each.doubt for each in found if each.doubt]
        if doubts:
            return warned(f"{len(doubts)} of {len(found)} pairs may lack earlier trades: {doubts[0]}; run backfill")
        return passed(f"{sum(each.last is not None for each in found)} of {len(found)} pairs resume")

    def _find_checkpoint(self) -> Result:
        settings = self._settings
        if settings.resume == "off":
            return skipped(f"not tested: {named('resume')} is off")
        try:
            if settings.many:
                return self._find_checkpoints()
            found = newest_trade(settings)
        except UnavailableError as error:
            if not error.lasting:
                raise
            return warned(
                f"No READ permission on the topic {settings.kafka_topic}, so each run starts at the first live trade; "
                f"grant it, check {consumer_credentials(settings)}, or set {named('resume')} to off",
            )
        if found.doubt:
            start = f"the first trade since {format_time(found.since)}" if found.since else "the first live trade"
            return warned(f"{found.doubt}: a run starts at {start}; backfill what is before it")
        if found.last is None:
            return passed(f"no trade of {settings.symbol} yet")
        return passed(f"resumes after trade id {found.last.trade_id}")

    def _init_transactions(self) -> Result:
        settings = self._settings
        try:
            TransactionalPublisher(settings, _KIND).open(_startup())
        except ConfigurationError:
            return skipped(
                "not tested: it would fence a running loader; the user needs WRITE on "
                f"{transactional_id(settings)}, or on the prefix loader-ws-trades., which can be tested"
            )
        return passed(f"tested with {transactional_id(settings, _KIND)}")


def _startup() -> Startup:
    # Without grace, so that a rejection is reported at once.
    return Startup(Deadline(_ANSWER), 0)


def topic_warnings(topic: TopicSettings) -> list[str]:
    """What is risky about the settings of the trades topic, as far as the cluster reports them."""
    warnings = [
        f"The topic {topic.topic} rejects trades {what} than {format_duration(bound[1])}, which ends a run with exit "
        f"code 2; raise its {bound[0]}"
        for bound, what in ((topic.max_age, "older"), (topic.max_ahead, "further ahead of its clock"))
        if bound and bound[1] < _SHORT
    ]
    if topic.uses_append_time:
        warnings.append(
            f"The topic {topic.topic} replaces trade times by append times in record timestamps; set its "
            "message.timestamp.type to CreateTime"
        )
    if topic.retention is not None and topic.retention < _SHORT:
        warnings.append(
            f"The topic {topic.topic} keeps trades for only {topic.retention:g} s, after which a run cannot find where "
            "the last one ended; raise its retention.ms"
        )
    return warnings
