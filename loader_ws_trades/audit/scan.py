"""`audit`: a topic read from end to end, and what is right and wrong with the trades of one symbol on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from loader_ws_trades.audit.analysis import Examination
from loader_ws_trades.audit.findings import Findings
from loader_ws_trades.config.settings import Settings, consumer_credentials, named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka import client as kafka
from loader_ws_trades.kafka.properties import consumer_properties
from loader_ws_trades.kafka.reader import HiddenError, Record, TopicScanner
from loader_ws_trades.kafka.topics import Inspector
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.monitoring.progress import Progress
from loader_ws_trades.pipeline.id_ranges import Bounds

log = logging.getLogger(__name__)

_BATCH = 10_000  # records between two looks at the clock


class Audited(NamedTuple):
    """What an audit found, and how."""

    findings: Findings
    bounds: Bounds
    hidden: dict[
        int, int
    ]  # of each partition that is not judged to its end, the offset where an open transaction begins
    seconds: float
    compacted: bool = False  # whether the topic is, and so will not keep what it holds

    @property
    def faults(self) -> list[str]:
        """The kinds of faults that were found."""
        return [*self.findings.faults, *(["compacted topic"] if self.compacted else [])]

    @property
    def exit_code(self) -> int:
        """1 if anything is wrong, or nothing is there of what was asked for; else 0."""
        return int(bool(self.faults) or (bool(self.bounds) and not self.findings.spans.count))


def audit(settings: Settings, bounds: Bounds, *, bar: bool) -> Audited:
    """Read the topic as it is now, with what is committed on it.

    Raises:
        ConfigurationError: if the topic, the credentials or a right is missing.
        RunError: if the brokers did not answer in time, or stopped answering.
    """
    topic = settings.kafka_topic
    scanner = TopicScanner(consumer_properties(settings), topic, credentials=consumer_credentials(settings))
    try:
        startup = Startup(Deadline(settings.startup_timeout), settings.startup_grace, stopped=lambda: False)
        kafka.await_topic(scanner, topic, "kafka_topic", startup, right=kafka.AclOperation.READ)
        compacted = Inspector(scanner.properties).settings(topic).compacted
        stretches = scanner.stretches(bounds.since)
        total = sum(end - start for start, end in stretches.values())
        log.info("Auditing %s on the topic %s: %d offsets", settings.symbol, topic, total, extra={"event": "audit"})
        examination, hidden = Examination(settings.symbol, bounds), dict[int, int]()
        with Progress("Auditing", total, bar=bar) as progress:
            done = records = 0
            for partition, (start, end) in stretches.items():
                try:
                    for batch in _batches(scanner.read(partition, start, end)):
                        examination.take(batch)
                        records += len(batch)
                        progress.update(done + batch[-1].offset - start, records)
                except HiddenError as error:
                    hidden[partition] = error.offset
                done += end - start
            seconds = progress.seconds
    except UnavailableError as error:
        if not error.lasting:
            raise RunError(f"The audit could not go on: {error}; check the brokers, then run it again") from error
        raise ConfigurationError(
            f"Kafka gives no right to read the topic {topic}; grant it to the user, or check {named('kafka_topic')} "
            f"and {consumer_credentials(settings)}"
        ) from error
    finally:
        scanner.close()
    return Audited(examination.findings(), bounds, hidden, seconds, compacted)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """The records some at a time; what was read before an error comes before it."""
    batch: list[Record] = []
    try:
        for record in records:
            batch.append(record)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except HiddenError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
