"""Reads a topic from end to end and audits the trades of one symbol."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from loader_ws_trades.audit.analysis import Analysis
from loader_ws_trades.audit.comparison import Comparison
from loader_ws_trades.audit.findings import Agreement, Findings
from loader_ws_trades.audit.timeline import Timeline
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.errors import ConfigurationError, RunError, UnavailableError
from loader_ws_trades.kafka.errors import HiddenError
from loader_ws_trades.kafka.properties import consumer_credentials
from loader_ws_trades.kafka.reader import Record, TopicScanner
from loader_ws_trades.kafka.startup import await_topic
from loader_ws_trades.lifecycle import Deadline, Startup
from loader_ws_trades.logs import LOGGER, Events
from loader_ws_trades.monitoring.progress import Progress, display
from loader_ws_trades.pipeline.id_ranges import Bounds

events = Events(logging.getLogger(__name__))

_BATCH = 10_000  # records between two updates of the progress bar


def audit(
    settings: Settings, bounds: Bounds, *, bar: bool, archive: Sequence[str] = (), timed: bool = False
) -> Findings:
    """Read what is committed on the topic now.

    Args:
        settings: the symbol, the topic and the brokers.
        bounds: the range of trades; that of the archive if one is given.
        bar: whether to show progress on a terminal.
        archive: files of the exchange's archive to compare the topic with.
        timed: whether to keep what happened when.

    Raises:
        ConfigurationError: if the topic does not exist, the credentials or ACLs are rejected, or an archive is invalid.
        RunError: if the brokers do not answer in time.
    """
    topic = settings.kafka_topic
    scanner = TopicScanner(settings)
    try:
        startup = Startup(Deadline(settings.startup_timeout), settings.startup_grace)
        await_topic(scanner, topic, "kafka_topic", startup, operation="READ")
        compacted = scanner.settings().compacted
        comparison = Comparison(archive, settings.symbol) if archive else None
        if comparison:
            bounds = comparison.bounds
        offsets = scanner.ranges(comparison.first_time if comparison else bounds.since)
        total = sum(end - start for start, end in offsets.values())
        events.info("audit", f"Auditing {settings.symbol} on topic {topic}: {total} offsets")
        timeline = Timeline(settings.symbol, bounds) if timed else None
        analysis, hidden = Analysis(settings.symbol, bounds, timeline), dict[int, int]()
        shown, begin, done = display(LOGGER, "progress", line=bar), time.monotonic(), 0
        with contextlib.closing(shown):
            for partition, (start, end) in offsets.items():
                unread = _until_hidden(scanner.read(partition, start, end), hidden, partition)
                while batch := list(islice(unread, _BATCH)):
                    analysis.take(batch)
                    if timeline:
                        timeline.take(batch)
                    if comparison:
                        comparison.take(batch)
                    shown.show(Progress("auditing", done + batch[-1].offset - start, total))
                done += end - start
        seconds = time.monotonic() - begin
    except UnavailableError as error:
        if not error.lasting:
            raise RunError(f"The audit was interrupted: {error}; check the brokers, then run it again") from error
        raise ConfigurationError(
            f"No permission to read the topic {topic}; grant READ to the user, or check {named('kafka_topic')} "
            f"and {consumer_credentials(settings)}"
        ) from error
    finally:
        scanner.close()
    found = replace(analysis.findings(), compacted=compacted, hidden=hidden, seconds=seconds, timeline=timeline)
    return compared(found, comparison.agreement()) if comparison else found


def compared(found: Findings, agreement: Agreement) -> Findings:
    """Findings that take the archive's word for which ids exist."""
    lacking = agreement.lacking
    return replace(found, agreement=agreement, missing=lacking, fillable=lacking.first)


def _until_hidden(records: Iterator[Record], hidden: dict[int, int], partition: int) -> Iterator[Record]:
    """End where an open transaction hides the rest, and note the offset in `hidden`."""
    try:
        yield from records
    except HiddenError as error:
        hidden[partition] = error.offset
