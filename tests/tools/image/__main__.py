"""Builds the image of docker/Dockerfile for real, runs it restricted, and tries the alert rules."""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import click

from loader_ws_trades import __version__
from tests.tools.image import building, points, rules

_T = TypeVar("_T")
_NEEDED = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux", "promtool": "prometheus"}


def main() -> int:
    """Print a line for each point; 0 if all are true."""
    missing = sorted({package for tool, package in _NEEDED.items() if not shutil.which(tool)})
    if missing:
        packages = " ".join(missing)
        click.echo(f"Missing on this machine: {packages}; run `apt-get install --no-install-recommends {packages}`")
        return 2
    if os.geteuid() != 0:
        click.echo("This builds a file system and enters namespaces; run it as root")
        return 2
    counts = {True: 0, False: 0}
    try:
        base = _timed("base image", building.make_base)
        click.echo(f"      {building.base().name}, of Debian's packages in place of the registry's")
        _timed("image", lambda: building.build(VERSION=__version__, REVISION="image-test"))
        size, of_base = (building.megabytes(name) for name in (building.TAG, building.base().name))
        click.echo(f"      {size:.0f} MB, {size - of_base:.0f} MB of it over the base")
        with building.mounted() as root:
            built = points.Built(root, base, building.configuration())
            for point in points.POINTS:
                counts[_judge(point.__name__, partial(point, built))] += 1
    except building.BuildError as error:
        click.echo(f"FAIL  {error}")
        counts[False] += 1
    for rule in rules.POINTS:
        counts[_judge(rule.__name__, rule)] += 1
    click.echo(f"{counts[True]} passed, {counts[False]} failed")
    return 1 if counts[False] else 0


def _timed(what: str, action: Callable[[], _T]) -> _T:
    begin = time.monotonic()
    result = action()
    click.echo(f"made  {what}, in {time.monotonic() - begin:.0f} s")
    return result


def _judge(name: str, point: Callable[[], str]) -> bool:
    what = name.replace("_", " ")
    try:
        click.echo(f"ok    {what}: {point()}")
    except (AssertionError, OSError) as error:
        [*_, where] = traceback.extract_tb(error.__traceback__)
        click.echo(f"FAIL  {what}: {where.line} {error}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
