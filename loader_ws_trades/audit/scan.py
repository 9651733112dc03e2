"""Reads a topic from end to end and audits the trades of one symbol, or of several in one pass."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from loader_ws_trades.audit.analyses import Analyses
from loader_ws_trades.audit.analysis import Analysis
from loader_ws_trades.audit.comparison import Comparison
from loader_ws_trades.audit.findings import Agreement, Findings
from loader_ws_trades.audit.timeline import Timeline
from loader_ws_trades.config.settings import Settings, named
from loader_ws_trades.config.symbols import PLACE, is_pattern
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
    with _opened(settings) as scanner:
        comparison = Comparison(archive, settings.symbol) if archive else None
        bounds = comparison.bounds if comparison else bounds
        timeline = Timeline(settings.symbol, bounds) if timed else None
        analysis = Analysis(settings.symbol, bounds, timeline)
        takers = [taker.take for taker in (analysis, timeline, comparison) if taker]
        read = _read(scanner, settings, comparison.first_time if comparison else bounds.since, takers, bar=bar)
    found = replace(analysis.findings(), timeline=timeline, **read)
    return compared(found, comparison.agreement()) if comparison else found


def audit_pairs(settings: Settings, bounds: Bounds, *, bar: bool) -> dict[str, Findings]:
    """Audit several pairs: a topic that they share is read once, as `audit` does, else that of each pair.

    Raises:
        ConfigurationError: as `audit`, or if the topic of a pair cannot have its name.
    """
    if PLACE not in settings.kafka_topic:
        analyses = Analyses(settings, bounds)
        with _opened(settings) as scanner:
            read = _read(scanner, settings, bounds.since, [analyses.take], bar=bar)
        return {symbol: replace(found, **read) for symbol, found in analyses.findings().items()}
    try:
        each = [settings.for_symbol(symbol) for symbol in settings.chosen(())]
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if not each or any(map(is_pattern, settings.symbols or ())):
        raise ConfigurationError(
            f"{named('kafka_topic')} contains {PLACE}, so {named('symbols')} must name the pairs to audit; list them "
            "in place of patterns"
        )
    return {one.symbol: audit(one, bounds, bar=bar) for one in each}


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[TopicScanner]:
    """A scanner of the topic, which is there."""
    topic = settings.kafka_topic
    scanner = TopicScanner(settings)
    try:
        startup = Startup(Deadline(settings.startup_timeout), settings.startup_grace)
        await_topic(scanner, topic, "kafka_topic", startup, operation="READ")
        yield scanner
    except UnavailableError as error:
        if not error.lasting:
            raise RunError(f"The audit was interrupted: {error}; check the brokers, then run it again") from error
        raise ConfigurationError(
            f"No permission to read the topic {topic}; grant READ to the user, or check {named('kafka_topic')} "
            f"and {consumer_credentials(settings)}"
        ) from error
    finally:
        scanner.close()


def _read(
    scanner: TopicScanner,
    settings: Settings,
    since: int | None,
    takers: Sequence[Callable[[list[Record]], None]],
    *,
    bar: bool,
) -> dict[str, Any]:
    """Hand all records over; what the findings say of the topic as a whole."""
    compacted = scanner.settings().compacted
    offsets = scanner.ranges(since)
    total = sum(end - start for start, end in offsets.values())
    audited = settings.symbol or ", ".join(settings.symbols or ())
    events.info("audit", f"Auditing {audited} on topic {settings.kafka_topic}: {total} offsets")
    shown, begin, done = display(LOGGER, "progress", line=bar), time.monotonic(), 0
    hidden: dict[int, int] = {}
    with contextlib.closing(shown):
        for partition, (start, end) in offsets.items():
            unread = _until_hidden(scanner.read(partition, start, end), hidden, partition)
            while batch := list(islice(unread, _BATCH)):
                for take in takers:
                    take(batch)
                shown.show(Progress("auditing", done + batch[-1].offset - start, total))
            done += end - start
    return {"compacted": compacted, "hidden": hidden, "seconds": time.monotonic() - begin}


def compared(found: Findings, agreement: Agreement) -> Findings:
    """Findings that take the archive's word for which ids exist."""
    missing = agreement.missing
    return replace(found, agreement=agreement, missing=missing, fillable=missing.first)


def _until_hidden(records: Iterator[Record], hidden: dict[int, int], partition: int) -> Iterator[Record]:
    """End where an open transaction hides the rest, and note the offset in `hidden`."""
    try:
        yield from records
    except HiddenError as error:
        hidden[partition] = error.offset
