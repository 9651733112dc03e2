"""Probes: what is tried one by one, what came of it, and what is not tried because of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, NamedTuple

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import LoaderError, UnavailableError

Verdict = Literal["ok", "warn", "FAIL", "skip"]


class Outcome(NamedTuple):
    """What came of a probe; the text says in one sentence how it is and, unless all is well, what to do."""

    verdict: Verdict
    text: str
    exit_code: int = 0


class Probe(NamedTuple):
    """Something that can be tried; `ask` may raise a `LoaderError`, whose text and exit code are the outcome then."""

    name: str
    ask: Callable[[], Outcome]
    after: tuple[str, ...] = ()
    """Names of earlier probes without which it cannot be tried."""
    needs: tuple[str, ...] = ()
    """Settings without which it cannot be tried."""


class Line(NamedTuple):
    """One probe and what came of it."""

    name: str
    verdict: Verdict
    text: str
    exit_code: int
    seconds: float


def ok(text: str) -> Outcome:
    """It is as it should be."""
    return Outcome("ok", text)


def warn(text: str) -> Outcome:
    """A run works, though not with all that it could do."""
    return Outcome("warn", text)


def skip(text: str) -> Outcome:
    """It was not tried, which keeps no other probe from being tried."""
    return Outcome("skip", text)


def attempt(
    probes: Iterable[Probe], unusable: Collection[str], *, on_begin: Callable[[str], None] = lambda _name: None
) -> Iterator[Line]:
    """Try `probes` in their order, but for those that need what failed or a setting in `unusable`."""
    blocked: dict[str, str] = {}  # probes that failed or could not be tried, and the one that is to blame
    for probe in probes:
        lacking = [named(name) for name in probe.needs if name in unusable]
        blame = next((blocked[name] for name in probe.after if name in blocked), None)
        if lacking or blame:
            blocked[probe.name] = blame or probe.name
            text = f"not tried: needs {' and '.join(lacking)}" if lacking else f"not tried, because of: {blame}"
            yield Line(probe.name, "skip", text, 0, 0.0)
            continue
        on_begin(probe.name)
        began = time.monotonic()
        outcome = _outcome(probe)
        if outcome.verdict == "FAIL":
            blocked[probe.name] = probe.name
        yield Line(probe.name, *outcome, time.monotonic() - began)


def _outcome(probe: Probe) -> Outcome:
    try:
        return probe.ask()
    except LoaderError as error:
        text = str(error)
        if text.partition(" ")[0].isalpha():
            text = text[0].upper() + text[1:]
        lasting = isinstance(error, UnavailableError) and error.lasting
        return Outcome("FAIL", text, 2 if lasting else error.exit_code)
    except Exception as error:
        return Outcome("FAIL", f"Internal error: {type(error).__name__}: {error}; please report it", 1)


def exit_code(lines: Iterable[Line]) -> int:
    """2 if anything failed that will not mend itself, 1 if anything else failed, 0 if nothing did."""
    return max((line.exit_code for line in lines), default=0)
