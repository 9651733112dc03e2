"""The command `check`: what it takes, and what it calls."""

from __future__ import annotations

import sys
from typing import Any

import click

from loader_ws_trades.cli.group import command, say
from loader_ws_trades.cli.options import checked, collect, settings_options
from loader_ws_trades.config import parsers as values


@command(
    "loader-ws-trades check --env-file btcusdt.env",
    "loader-ws-trades check --timeout 2m",
    "loader-ws-trades check --json | jq '.lines[] | select(.verdict != \"ok\")'",
)
@settings_options()
@click.option(
    "--timeout",
    default="30s",
    show_default=True,
    callback=checked(values.seconds),
    help="How long to wait for a trade.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")
def check(*, env_file: str | None, timeout: float, as_json: bool, **flags: Any) -> None:
    """Test every setting against the real services and report what to fix.

    Takes the settings of `run`; writes to no topic. Exit code 0: a run would start. 1: a failure that may be temporary.
    2: a failure that needs fixing.
    """
    from loader_ws_trades import logs  # noqa: PLC0415 - see the docstring of `cli`
    from loader_ws_trades.check import report as check_report  # noqa: PLC0415 - see the docstring of `cli`
    from loader_ws_trades.check.check import check as try_all  # noqa: PLC0415
    from loader_ws_trades.check.check import configuration  # noqa: PLC0415
    from loader_ws_trades.check.probes import exit_code  # noqa: PLC0415

    given = collect(flags, env_file)
    # What goes wrong stands in a line of its own; the log is for those who ask for it.
    made = configuration({"log_level": "error", **given.texts}, faults=given.faults, notes=given.notes)
    logs.configure(made.settings)
    if as_json:
        lines = list(try_all(made, len(given.texts), timeout))
        say(check_report.as_json(lines))
    else:
        report = check_report.Report()
        lines = check_report.show(try_all(made, len(given.texts), timeout, on_begin=report.begin), report)
    sys.exit(exit_code(lines))
