"""`check`: every setting tried for real, so that what is to mend is known before a run needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from loader_ws_trades.check.exchange import ExchangeProbes
from loader_ws_trades.check.kafka import KafkaProbes
from loader_ws_trades.check.probes import Line, Outcome, Probe, attempt, ok, warn
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import OPTIONS, Settings, redacted
from loader_ws_trades.errors import ConfigurationError


class Configuration(NamedTuple):
    """The settings as far as they are usable, what is wrong with the others, their names, and what looks wrong."""

    settings: Settings
    faults: tuple[str, ...] = ()
    unusable: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def configuration(given: Mapping[str, Any], *, faults: Iterable[str] = (), notes: Iterable[str] = ()) -> Configuration:
    """Settings for `run` out of texts by the name of the option; what is wrong is left out, and told.

    Args:
        given: the texts.
        faults: what is wrong with the place they come from.
        notes: what looks wrong there.
    """
    elsewhere = tuple(faults)
    faults, unusable = tuple[str, ...](), frozenset[str]()
    # Without a setting that is wrong another may be: a password without its user.
    for _ in OPTIONS:
        left = {name: text for name, text in given.items() if name not in unusable}
        try:
            settings = load(left, needed=() if faults else None)
        except ConfigurationError as error:
            faults = faults or error.faults
            unusable |= {option.name for option in OPTIONS if any(str(option) in fault for fault in error.faults)}
        else:
            # What takes its value from a setting that is wrong has none.
            lacking = {option.name for option in OPTIONS if option.required and not getattr(settings, option.name)}
            return Configuration(settings, (*faults, *elsewhere), unusable | lacking, tuple(notes))
    raise ConfigurationError(*faults)


def check(
    made: Configuration, given: int, timeout: float, *, on_begin: Callable[[str], None] = lambda _name: None
) -> Iterator[Line]:
    """Try everything, one line after the other; nothing is written to the topics of trades and events.

    Args:
        made: the settings.
        given: how many of them are set.
        timeout: seconds that the first trade is waited for.
        on_begin: gets the name of each probe that begins.
    """
    settings = made.settings

    def judge() -> Outcome:
        if made.faults:
            return Outcome("FAIL", "\n".join((*made.faults, *made.notes)), 2)
        found = f"{given} of {len(OPTIONS)} settings are set"
        return warn("\n".join((found, *made.notes))) if made.notes else ok(found)

    exchange, cluster = ExchangeProbes(settings, timeout), KafkaProbes(settings)
    with contextlib.closing(exchange), contextlib.closing(cluster):
        probes = [
            Probe("configuration", judge),
            *exchange.probes(),
            *cluster.probes(),
        ]
        for line in attempt(probes, made.unusable, on_begin=on_begin):
            yield line._replace(text=redacted(line.text, settings))
