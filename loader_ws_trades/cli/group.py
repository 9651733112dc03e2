"""What all commands share: help in sections, and errors as one sentence and an exit code, never a stack trace."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.errors import ConfigurationError, LoaderError


class Command(click.Command):
    """A command whose help groups the settings by topic."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, the command's own ones first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            # Newer versions of click list arguments too, which have no help of their own.
            if record and isinstance(parameter, click.Option):
                sections.setdefault(_section(parameter.name or ""), []).append(record)
        for title in filter(sections.__contains__, _SECTIONS):
            with formatter.section(title):
                formatter.write_dl(sections[title])


# By the beginnings of their settings' names; all other settings are of the workflow.
_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Options": (),
    "Workflow": (),
    "Exchange": ("binance_", "feed_", "max_connection", "gap_", "repair_", "rest_"),
    "Kafka": ("kafka_", "ca_path", "resume", "delivery", "transaction_"),
    "Commands and telemetry": ("queue_control", "queue_events", "control_", "telemetry_interval"),
    "Limits": ("max_records", "duration", "startup_", "shutdown_timeout"),
    "Log": ("log_",),
}


def _section(name: str) -> str:
    """The section of the help that lists the option called `name`."""
    if name not in {option.name for option in OPTIONS}:
        return "Options"
    return next((title for title, starts in _SECTIONS.items() if starts and name.startswith(starts)), "Workflow")


class Group(click.Group):
    """A group whose commands end with one sentence and an exit code when something is wrong."""

    command_class = Command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does, without cutting the sentence short."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in found.items() if each])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo("Error: invalid configuration:", err=True)
            for fault in error.faults:
                click.echo(f"  - {fault}", err=True)
            ctx.exit(error.exit_code)
        except LoaderError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            ctx.exit(128 + signal.SIGINT)


def say(text: str) -> None:
    """Print on standard output; a reader that has gone away, as `head` does, is not an error."""
    try:
        click.echo(text, color=True)  # the text has colors only where they are wanted
    except BrokenPipeError:
        # The interpreter flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(*examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a command whose help ends with examples, each on a line of its own."""
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
    return click.command(cls=Command, epilog=epilog)
