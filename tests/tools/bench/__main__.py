"""`make bench` and `make bench-compare`."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import click
import msgspec

from tests.tools.apache_kafka import Cluster
from tests.tools.apache_kafka.distribution import UnavailableError
from tests.tools.apache_kafka.node import NodeError
from tests.tools.bench.arena import Arena
from tests.tools.bench.contenders import CACHE, CONTENDERS, Contender, before
from tests.tools.bench.measures import BY_DEFAULT, FULL, PARTS, QUICK, Bench
from tests.tools.bench.process import ROOT, RunError
from tests.tools.bench.results import Results, comparison, load, summary


@click.group()
def main() -> None:
    """Measure the loader."""


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--quick", is_flag=True, help="Fewer rounds, shorter runs.")
@click.option("--alone", is_flag=True, help="The loader without the baselines.")
@click.option(
    "--before",
    "tree",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another source tree, whose loader takes part: the state before a change.",
)
@click.option("--bursts", type=click.FloatRange(5, 1700), help="Seconds of recorded bursts, in place of 50 or 15.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the table goes as JSON.")
def run(
    parts: tuple[str, ...], *, quick: bool, alone: bool, tree: Path | None, bursts: float | None, out: Path | None
) -> None:
    """Measure PARTS (by default saturation to start) and print the table."""
    contenders = CONTENDERS[:1] if alone else CONTENDERS
    if tree:
        contenders = (contenders[0], before(tree.resolve()), *contenders[1:])
    now = datetime.now(timezone.utc)
    out = out or CACHE / f"{now:%Y-%m-%dT%H%M%S}.json"
    scale = QUICK if quick else FULL
    if bursts:
        scale = scale._replace(bursts=bursts)
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        click.echo(f"Other work is running (load {os.getloadavg()[0]:.1f}): results will not mean much", err=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for contender in contenders:
                contender.prepare()
            results = Results(_about(now, contenders, quick=quick))
            with Cluster(Path(folder, "kafka"), optimized=True) as cluster:
                arena = Arena(Path(folder), cluster)
                bench = Bench(arena, results, scale, contenders, lambda text: click.echo(text, err=True))
                for part in parts or BY_DEFAULT:
                    PARTS[part](bench)
                    results.save(out)
        except (UnavailableError, NodeError, RunError) as error:
            raise click.ClickException(str(error)) from error
    click.echo(summary(results))
    click.echo(f"\nWritten to {out}", err=True)


@main.command()
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Show two results side by side: BEFORE as A, AFTER as B."""
    try:
        click.echo(comparison(load(before), load(after)))
    except msgspec.MsgspecError as error:
        raise click.ClickException(f"that is not a benchmark result: {error}") from error


def _about(now: datetime, contenders: tuple[Contender, ...], *, quick: bool) -> dict[str, str]:
    load_now = os.getloadavg()[0]
    about = {
        "when": f"{now:%Y-%m-%d %H:%M} UTC, {'quick' if quick else 'in full'}",
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, load {load_now:.1f} at the start",
        "commit": _commit(),
        "python": platform.python_version(),
    }
    for contender in contenders:
        packages = contender.packages or ("confluent-kafka", "websocket-client", "msgspec")
        versions = contender.versions(*packages, *(("confluent-kafka",) if "quixstreams" in packages else ()))
        about[contender.name] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return about


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


if __name__ == "__main__":
    main(prog_name="bench")
