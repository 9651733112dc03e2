"""Runs the fault matrix and prints its table; exits with 1 if a guarantee was broken."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import click

from loader_ws_trades.sandbox import EmbeddedBroker
from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka.distribution import UnavailableError, obtain
from tests.tools.chaos import (
    broker_rows,
    exchange_rows,
    exchange_scripts,
    outage_rows,
    pair_rows,
    process_rows,
    restart_rows,
    stream_rows,
)
from tests.tools.chaos.outcome import Outcome
from tests.tools.chaos.stage import Brokers, Scenario, Stage
from tests.tools.chaos.table import report

# Those that take longest first.
SCENARIOS = [
    *stream_rows.SCENARIOS,
    *exchange_scripts.SCENARIOS,
    *exchange_rows.SCENARIOS,
    *process_rows.SCENARIOS,
    *restart_rows.SCENARIOS,
    *broker_rows.SCENARIOS,
    *outage_rows.SCENARIOS,
    *pair_rows.SCENARIOS,
]
_AT_ONCE = 6
LOGS = Path(__file__).parents[3] / ".cache" / "chaos"
"""The loaders' logs, a file for each line."""


@click.command()
@click.option("--rows", default="", help="Numbers of the rows to run, as in '13 19'; all of them by default.")
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
def main(rows: str, seed: int) -> None:
    """Run the fault matrix on Apache Kafka and print its table.

    Without Apache Kafka, the rows that claim nothing about duplicates run on the embedded broker.
    """
    known = {scenario.row for scenario in SCENARIOS}
    wanted = {int(row) for row in rows.replace(",", " ").split()} or known
    if unknown := wanted - known:
        raise click.BadParameter(f"there is no row {min(unknown)}", param_hint="--rows")
    # Ctrl-C and SIGTERM take the one path out of the `with` blocks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenarios = [scenario for scenario in SCENARIOS if scenario.row in wanted]
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, _brokers(Path(directory)) as brokers:
        outcomes = _play(scenarios, lambda scenario: Stage(scenario, brokers, seed))
    for text in report(outcomes, seed):
        click.echo(text)
    sys.exit(1 if any(outcome.broken for outcome in outcomes) else 0)


@contextlib.contextmanager
def _brokers(directory: Path) -> Iterator[Brokers]:
    try:
        obtain()
    except UnavailableError as error:
        with EmbeddedBroker() as embedded:
            yield Brokers(None, embedded, str(error).splitlines()[0], directory)
    else:
        with Cluster(directory / "one") as cluster:
            yield Brokers(cluster, None, "", directory)


def _play(scenarios: Sequence[Scenario], stage_for: Callable[[Scenario], Stage]) -> list[Outcome]:
    """Run those that may run together, then the others one by one; all lines in the order of the matrix."""

    def play(scenario: Scenario) -> list[Outcome]:
        began = time.monotonic()
        outcomes = stage_for(scenario).play()
        for outcome in outcomes:
            _tell(outcome, time.monotonic() - began)
        return outcomes

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(play, [scenario for scenario in scenarios if not scenario.alone]))
    found += [play(scenario) for scenario in scenarios if scenario.alone]
    return sorted(chain.from_iterable(found), key=lambda outcome: outcome.row)


def _tell(outcome: Outcome, seconds: float) -> None:
    said = "passed" if outcome.passed else f"NOT PASSED: {'; '.join(outcome.broken) or outcome.not_run}"
    click.echo(f"{outcome.row:>2} {outcome.name}: {said} ({seconds:.0f} s)", err=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / f"{outcome.row}-{re.sub('[^a-z0-9]+', '-', outcome.name.lower())}.log").write_text(outcome.log)


if __name__ == "__main__":
    main()
