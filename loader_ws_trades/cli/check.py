"""The command `check`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import click

from loader_ws_trades.cli.group import command, say
from loader_ws_trades.cli.options import checked_option, collect, settings_options
from loader_ws_trades.config import parsers as values


@command(
    "loader-ws-trades check --env-file btcusdt.env",
    "loader-ws-trades check --timeout 2m",
    "loader-ws-trades check --json | jq '.lines[] | select(.verdict != \"ok\")'",
)
@settings_options()
@checked_option("--timeout", values.seconds, "30s", "How long to wait for a trade.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")
def check(*, env_file: str | None, timeout: float, as_json: bool, **flags: Any) -> None:
    """Test every setting against the real services and report what to fix.

    Takes the settings of `run`; writes to no topic. Exit code 0: a run would start. 1: a failure that may be temporary.
    2: a failure that needs fixing.
    """
    from loader_ws_trades import logs  # noqa: PLC0415 - see the docstring of `cli`
    from loader_ws_trades.check import check as checks  # noqa: PLC0415
    from loader_ws_trades.check import report  # noqa: PLC0415
    from loader_ws_trades.check.steps import exit_code  # noqa: PLC0415

    given = collect(flags, env_file)
    configured = checks.configuration(given.texts, faults=given.faults, warnings=given.notes)
    # Failures are in the report; log lines are for those who ask for them.
    level = configured.settings.log_level if "log_level" in given.texts else "error"
    logs.configure(replace(configured.settings, log_level=level))
    if as_json:
        results = list(checks.check(configured, timeout))
        say(report.as_json(results))
    else:
        results = report.show(lambda on_begin: checks.check(configured, timeout, on_begin=on_begin))
    sys.exit(exit_code(results))
