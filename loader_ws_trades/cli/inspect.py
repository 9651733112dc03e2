"""The commands around a run: `check`, `audit`, `stop` and `schema`. What they need is imported when they run."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import click
import msgspec

from loader_ws_trades.cli.group import command, say
from loader_ws_trades.cli.options import (
    ARCHIVE_AND_RANGE,
    KAFKA,
    NO_PROGRESS,
    bounds_options,
    checked_option,
    collect,
    gather_bounds,
    ready,
    settings_options,
)
from loader_ws_trades.config import parsers as values
from loader_ws_trades.config.settings import SHARE
from loader_ws_trades.errors import RunError

_AUDITED = ("symbol", "kafka_topic")


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


@command(
    "loader-ws-trades audit --env-file btcusdt.env",
    "loader-ws-trades audit --since 2024-08-01 --until 2024-08-02",
    "loader-ws-trades audit --from-id 1000 --to-id 1999 --json | jq .missing",
    "loader-ws-trades audit --since 2024-08-01 --html report.html",
    "loader-ws-trades audit --archive BTCUSDT-trades-2024-08-01.zip",
)
@settings_options((*_AUDITED, "symbols", *SHARE, *KAFKA))
@bounds_options
@click.option("--archive", multiple=True, help="Binance archive file to compare the topic with; repeatable.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a report with charts to this file, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")
@NO_PROGRESS
def audit(
    *,
    env_file: str | None,
    archive: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    no_progress: bool,
    **flags: Any,
) -> None:
    """Check a topic for missing, duplicate, out-of-order or malformed trades.

    With SYMBOLS a topic that the pairs share is read once. With --archive every id, price, quantity, time and side is
    compared with the exchange's own files. Exit code 0: no faults. 1: faults, or no trades in the given range.
    """
    from loader_ws_trades.audit import report  # noqa: PLC0415
    from loader_ws_trades.audit.scan import audit as read  # noqa: PLC0415
    from loader_ws_trades.audit.scan import audit_pairs  # noqa: PLC0415

    bounds, faults = gather_bounds(flags)
    if archive and bounds:
        faults.append(ARCHIVE_AND_RANGE)
    if html and (html.is_dir() or not os.access(html if html.exists() else html.parent, os.W_OK)):
        faults.append(f"--html names {str(html)!r}, which cannot be written; give a file in a writable directory")
    settings = ready(
        flags,
        env_file,
        needed=(*_AUDITED, "kafka_bootstrap_servers"),
        one_pair=bool(archive or html),
        faults=faults,
    )
    if settings.many:
        pairs = audit_pairs(settings, bounds, bar=not no_progress)
        if as_json:
            for symbol, one in pairs.items():
                say(report.as_json(one, settings.for_symbol(symbol)))
        else:
            say(report.all_as_text(pairs, settings))
        sys.exit(max((one.exit_code for one in pairs.values()), default=0))
    found = read(settings, bounds, bar=not no_progress, archive=archive, timed=html is not None)
    if html:
        from loader_ws_trades.audit.page import page  # noqa: PLC0415

        try:
            html.write_text(page(found, settings), "utf-8")
        except OSError as error:
            raise RunError(
                f"The report {html} cannot be written ({error.strerror}); free some disk space, or give another file"
            ) from error
    say((report.as_json if as_json else report.as_text)(found, settings))
    sys.exit(found.exit_code)


@command(
    "loader-ws-trades stop --queue-id wf-1 --kafka-bootstrap-servers kafka:9092",
    "loader-ws-trades stop --wait --wait-timeout 5m",
)
@settings_options(("queue_id", "queue_control_topic", "queue_events_topic", *KAFKA))
@click.option("--wait", is_flag=True, help="Wait for the last event of a loader that obeyed.")
@checked_option("--wait-timeout", values.seconds, "60s", "How long --wait waits.")
def stop(env_file: str | None, wait: bool, wait_timeout: float, **flags: Any) -> None:
    """Send the stop command to the loaders of a workflow.

    With --wait, prints the last event of the first loader that ends. Exit code 0: it was stopped or had finished.
    1: it ended with an error, or no such event arrived in time.
    """
    from loader_ws_trades.kafka.stop import stop as send_stop  # noqa: PLC0415

    settings = ready(flags, env_file, needed=("queue_id", "kafka_bootstrap_servers"))
    ended = send_stop(settings, wait_timeout if wait else None)
    say(ended.message)
    sys.exit(ended.exit_code)


_DOCUMENT = resources.files("loader_ws_trades") / "asyncapi.json"
MESSAGES = ("record", "event", "command")


@command(
    "loader-ws-trades schema > asyncapi.json",
    "loader-ws-trades schema record | jq .properties.price",
)
@click.argument("message", type=click.Choice(MESSAGES), required=False, metavar="[record|event|command]")
def schema(message: str | None) -> None:
    """Print the message schemas as AsyncAPI, or [record|event|command] as JSON Schema."""
    text = _DOCUMENT.read_bytes()
    if message:
        # As it stands there: decoding and encoding a number may change its digits.
        for key in ("components", "schemas", message):
            text = bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[key])
        text = msgspec.json.format(text)
    say(text.decode().rstrip())
