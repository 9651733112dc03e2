"""The steps of a check: each passes, warns or fails; a failure skips the steps that depend on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, NamedTuple

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import LoaderError, UnavailableError


class Result(NamedTuple):
    """How a step ended; the text of a warning or failure says what is wrong and what to do."""

    verdict: Literal["ok", "warn", "FAIL", "skip"]
    text: str
    exit_code: int = 0
    name: str = ""
    """The step's; `run_steps` sets it, and the next one."""
    seconds: float = 0.0


class Step(NamedTuple):
    """One step; `run` may raise a `LoaderError`, which is a failure with its text and exit code."""

    name: str
    run: Callable[[], Result]
    after: tuple[str, ...] = ()
    """Earlier steps that it depends on."""
    needs: tuple[str, ...] = ()
    """Settings that it depends on."""


def passed(text: str, *warnings: str) -> Result:
    """The step passed, unless there are `warnings`."""
    return warned(*warnings) if warnings else Result("ok", text)


def warned(*warnings: str) -> Result:
    """The step passed, but a run would lack something."""
    return Result("warn", "\n".join(warnings))


def skipped(text: str) -> Result:
    """The step did not apply; steps that depend on it still run."""
    return Result("skip", text)


def run_steps(
    steps: Iterable[Step], unusable: Collection[str], *, on_begin: Callable[[str], None] = lambda _name: None
) -> Iterator[Result]:
    """Run `steps` in order, except those that depend on a failed step or on a setting in `unusable`."""
    causes: dict[str, str] = {}  # failed and skipped steps, each with the step that caused it
    failures: dict[str, str] = {}  # texts, each with the first step that failed with it
    for step in steps:
        missing = [named(name) for name in step.needs if name in unusable]
        cause = next((causes[name] for name in step.after if name in causes), None)
        if missing or cause:
            causes[step.name] = cause or step.name
            text = f"not tested: needs {' and '.join(missing)}" if missing else f"not tested: depends on {cause}"
            yield skipped(text)._replace(name=step.name)
            continue
        on_begin(step.name)
        began = time.monotonic()
        result = _run(step)
        if result.verdict == "FAIL":
            causes[step.name] = step.name
            first = failures.setdefault(result.text, step.name)
            if first != step.name:
                result = result._replace(text=f"Same failure as {first}")
        yield result._replace(name=step.name, seconds=time.monotonic() - began)


def _run(step: Step) -> Result:
    try:
        return step.run()
    except LoaderError as error:
        text = str(error)
        if text.partition(" ")[0].isalpha():
            text = text[0].upper() + text[1:]
        lasting = isinstance(error, UnavailableError) and error.lasting
        return Result("FAIL", text, 2 if lasting else error.exit_code)
    except Exception as error:
        return Result("FAIL", f"Internal error: {type(error).__name__}: {error}; please report it", 1)


def exit_code(results: Iterable[Result]) -> int:
    """2 if any failure needs fixing, 1 if all failures may be temporary, 0 without a failure."""
    return max((result.exit_code for result in results), default=0)
