"""`check`: the settings, then the start of a run step by step, going on after a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from loader_ws_trades.check.exchange import ExchangeSteps
from loader_ws_trades.check.kafka import KafkaSteps
from loader_ws_trades.check.steps import Result, Step, passed, run_steps
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import OPTIONS, Settings
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.logs import redacted


class Configuration(NamedTuple):
    """The settings that are usable, what is wrong with the others, and their names."""

    settings: Settings
    given: int
    faults: tuple[str, ...] = ()
    unusable: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


def configuration(
    texts: Mapping[str, Any], *, faults: Iterable[str] = (), warnings: Iterable[str] = ()
) -> Configuration:
    """The settings of `run` from texts by option name; invalid ones are left out and reported.

    Args:
        texts: the texts.
        faults: what is wrong with their source.
        warnings: what looks wrong there.
    """
    source_faults = tuple(faults)
    faults, unusable = tuple[str, ...](), frozenset[str]()
    # Leaving out one setting may make another invalid: a password without its user.
    for _ in OPTIONS:
        left = {name: text for name, text in texts.items() if name not in unusable}
        try:
            settings = load(left, needed=() if faults else None)
        except ConfigurationError as error:
            faults = faults or error.faults
            unusable |= {option.name for option in OPTIONS if any(str(option) in fault for fault in error.faults)}
        else:
            # A setting that contains an invalid one has no value either.
            missing = {option.name for option in OPTIONS if option.required and not getattr(settings, option.name)}
            if settings.many:
                missing.discard("symbol")
            return Configuration(settings, len(texts), (*faults, *source_faults), unusable | missing, tuple(warnings))
    raise ConfigurationError(*faults)


def check(
    configured: Configuration, timeout: float, *, on_begin: Callable[[str], None] = lambda _name: None
) -> Iterator[Result]:
    """Run all steps; none writes to a topic.

    Args:
        configured: the settings.
        timeout: seconds to wait for the first trade.
        on_begin: called with the name of each step that begins.
    """
    settings = configured.settings

    def report_configuration() -> Result:
        if configured.faults:
            return Result("FAIL", "\n".join((*configured.faults, *configured.warnings)), 2)
        count = f"{configured.given} of {len(OPTIONS)} settings are set"
        return passed(count, *((count, *configured.warnings) if configured.warnings else ()))

    with contextlib.closing(ExchangeSteps(settings, timeout)) as exchange:
        steps = [
            Step("configuration", report_configuration),
            *exchange.steps(),
            *KafkaSteps(settings, exchange.pairs).steps(),
        ]
        for result in run_steps(steps, configured.unusable, on_begin=on_begin):
            yield result._replace(text=redacted(result.text, settings))
