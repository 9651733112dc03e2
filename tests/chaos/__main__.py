"""Plays the fault matrix and prints its table; exits with 1 if a promise was broken."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import click

from tests.apache_kafka import Cluster
from tests.apache_kafka.distribution import UnavailableError
from tests.chaos import broker_rows, exchange_rows, exchange_scripts, process_rows
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Scenario, Stage
from tests.chaos.table import print_table

# Those that take longest first.
SCENARIOS = [
    *exchange_scripts.SCENARIOS,
    *exchange_rows.SCENARIOS,
    *process_rows.SCENARIOS,
    *broker_rows.SCENARIOS,
]
_AT_ONCE = 6
LOGS = Path(__file__).parents[2] / ".cache" / "chaos"
"""Where the logs of loaders go that broke a promise."""


@click.command()
@click.option("--rows", default="", help="Numbers of the rows to play, as in '13 19'; all of them, if none is given.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of what is left to chance.")
def main(rows: str, seed: int) -> None:
    """Live through the fault matrix on Apache Kafka, and print what came of it."""
    known = {scenario.row for scenario in SCENARIOS}
    wanted = {int(row) for row in rows.replace(",", " ").split()} or known
    if unknown := wanted - known:
        raise click.BadParameter(f"there is no row {min(unknown)}", param_hint="--rows")
    # Ctrl-C and SIGTERM take the one path out of the `with` blocks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenarios = [scenario for scenario in SCENARIOS if scenario.row in wanted]
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        try:
            with Cluster(Path(directory, "one")) as cluster:
                outcomes = _play(scenarios, lambda: Stage(cluster, Path(directory), seed))
        except UnavailableError as error:
            sys.exit(f"The fault matrix needs Apache Kafka. {error}")
    print_table(outcomes, seed, sys.stdout)
    sys.exit(1 if any(outcome.broken for outcome in outcomes) else 0)


def _play(scenarios: Sequence[Scenario], new_stage: Callable[[], Stage]) -> list[Outcome]:
    """Play those that may be played together, then the others one by one; all lines in the order of the matrix."""

    def play(scenario: Scenario) -> list[Outcome]:
        return _play_one(scenario, new_stage())

    together = [scenario for scenario in scenarios if not scenario.alone]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(play, together))
    found += [play(scenario) for scenario in scenarios if scenario.alone]
    return sorted(chain.from_iterable(found), key=lambda outcome: outcome.row)


def _play_one(scenario: Scenario, stage: Stage) -> list[Outcome]:
    began = time.monotonic()
    try:
        scenario.play(stage)
    except Exception as error:  # whatever it is, the other rows are still to be played
        if not any(outcome.broken or outcome.not_run for outcome in stage.outcomes):
            stage.outcomes.append(Outcome(scenario.row, "", broken=[f"{type(error).__name__}: {error}"]))
    for outcome in stage.outcomes:
        said = "passed" if outcome.passed else f"NOT PASSED: {'; '.join(outcome.broken) or outcome.not_run}"
        click.echo(f"{outcome.row:>2} {outcome.name}: {said} ({time.monotonic() - began:.0f} s)", err=True)
        if outcome.broken:
            LOGS.mkdir(parents=True, exist_ok=True)
            (LOGS / f"{outcome.row} {re.sub('[^a-z0-9]+', '-', outcome.name.lower())}.log").write_text(outcome.log)
    return stage.outcomes


if __name__ == "__main__":
    main()
