"""`make fleet`: plays a fleet, prints what it took, and exits with 1 if a guarantee was broken."""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
from pathlib import Path

import click

from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka.distribution import UnavailableError
from tests.tools.fleet.play import play
from tests.tools.fleet.report import Plan

_FULL = Plan()


@click.command()
@click.option("--symbols", type=click.IntRange(1, 100), default=_FULL.symbols, show_default=True)
@click.option(
    "--rate", type=click.FloatRange(1), default=_FULL.rate, show_default=True, help="Trades a second of each."
)
@click.option("--seconds", type=click.FloatRange(1, 3600), default=_FULL.seconds, show_default=True)
@click.option("--partitions", type=click.IntRange(1), default=_FULL.partitions, show_default=True)
@click.option("--topic-each", is_flag=True, help="A topic for each symbol, in place of one for all.")
def main(symbols: int, rate: float, seconds: float, partitions: int, topic_each: bool) -> None:
    """Load many symbols at once on Apache Kafka: a process a symbol, from one set of variables."""
    plan = Plan(symbols, rate, seconds, partitions, topic_each)
    # Ctrl-C and SIGTERM take the one path out of the `with` blocks.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load = f"load {os.getloadavg()[0]:.1f} at the start"
    try:
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Cluster(Path(folder), optimized=True) as cluster:
            report = play(cluster, plan, broker=cluster.nodes[0].pid)
    except UnavailableError as error:
        raise click.ClickException(str(error)) from error
    report.about = f"{os.cpu_count()} CPUs for all of it, Python {platform.python_version()}, {load}"
    for name, text in report.lines():
        click.echo(f"{name:<22}{text}")
    sys.exit(1 if report.broken else 0)


if __name__ == "__main__":
    main(prog_name="fleet")
