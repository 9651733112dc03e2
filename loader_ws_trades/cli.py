"""The command line: flags and variables to `Settings`, errors to exit codes.

What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from dotenv.parser import parse_stream

from loader_ws_trades import __version__, config, values
from loader_ws_trades.errors import ConfigurationError, LoaderError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Group(click.Group):
    """A group whose commands end with one sentence and an exit code when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo("Error: the configuration is not usable:", err=True)
            for fault in error.faults:
                click.echo(f"  - {fault}", err=True)
            ctx.exit(error.exit_code)
        except LoaderError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


def settings_options(names: Iterable[str] | None = None) -> Callable[[_Command], _Command]:
    """Flags for the settings called `names`, or for all, and `--env-file`; none of them has a default of its own."""

    def decorate(command: _Command) -> _Command:
        chosen = [option for option in config.OPTIONS if names is None or option.name in names]
        for option in reversed(chosen):
            flags = [option.short] if option.short else []
            default = f" [default: {option.default}]" if option.default else ""
            click.option(
                *flags,
                option.flag,
                option.name,
                multiple=bool(option.short),
                help=f"{option.help} [{option.variable}]{default}{' [required]' if option.required else ''}",
            )(command)
        click.option("--env-file", type=click.Path(), help="File of variables, instead of .env.")(command)
        return command

    return decorate


def gather(flags: dict[str, Any], env_file: str | None, *, needed: Iterable[str] | None = None) -> config.Settings:
    """Settings from flags, over environment variables, over the `.env` file, over defaults.

    Raises:
        ConfigurationError: with all faults at once.
    """
    path = Path(env_file or ".env")
    if env_file and not path.is_file():
        raise ConfigurationError(f"--env-file names {env_file!r}, which is no file; give a readable one")
    from_file = _read_env_file(path) if path.is_file() else {}
    layers = (
        {name: value for name, value in flags.items() if value != ()},
        {option.name: os.environ.get(option.variable) for option in config.OPTIONS},
        {option.name: from_file.get(option.variable) for option in config.OPTIONS},
    )
    given: dict[str, Any] = {}
    for layer in layers:
        # The password and its file are one setting in two forms: the layer above decides for both.
        settled = {*given, *(config.PASSWORD_FORMS if config.PASSWORD_FORMS & given.keys() else ())}
        # An empty value counts as not set.
        given |= {name: value for name, value in layer.items() if value and name not in settled}
    return config.load(given, needed=needed)


def _read_env_file(path: Path) -> dict[str, str | None]:
    """The variables of a file, as they stand: no `${...}` is replaced, a password may hold one."""
    try:
        bindings = list(parse_stream(io.StringIO(path.read_text("utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The file {str(path)!r} cannot be read ({error}); make it readable text") from error
    faults = [
        f"{path}, line {binding.original.line}, is not NAME=value; mend it" for binding in bindings if binding.error
    ]
    if faults:
        raise ConfigurationError(*faults)
    return {binding.key: binding.value for binding in bindings if binding.key}


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader-ws-trades")
def cli() -> None:
    """Loads every trade of one Binance pair into a Kafka topic.

    Each setting is a flag, an environment variable or a line in .env, in this order of precedence.
    """


@cli.command()
@settings_options()
def run(env_file: str | None, **flags: Any) -> None:
    """Stream trades into Kafka until stopped."""
    from loader_ws_trades import logs, service  # noqa: PLC0415 - see the module's docstring

    settings = gather(flags, env_file)
    logs.configure(settings)
    sys.exit(service.run_live(settings))


_RATE = click.FloatRange(min=0, max=1_000_000, min_open=True)


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        return values.seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"it {error}") from error


@cli.command()
@click.option("--duration", default="15s", show_default=True, callback=_seconds, help="How long the loader runs.")
@click.option("--rate", type=_RATE, default=500.0, show_default=True, help="Trades a second, on average.")
def demo(duration: float, rate: float) -> None:
    """Show trades flow from a simulated exchange into an embedded broker; needs no settings."""
    with _extra_needed():
        from loader_ws_trades.sandbox.demo import demonstrate  # noqa: PLC0415
    if not rate > 0:
        raise click.BadParameter("--rate is no number; give trades a second")
    sys.exit(demonstrate(duration, rate))


@cli.command()
@click.option("--symbol", default="BTCUSDT", show_default=True, help="Trading pair of generated trades.")
@click.option("--rate", type=_RATE, help="Trades a second, on average.  [default: 100; the recorded pace]")
@click.option("--speed", type=_RATE, help="Times the recorded pace, for --frames.")
@click.option("--flat-out", is_flag=True, help="As fast as clients read, from the first one on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated trades.")
@click.option("--frames", type=click.Path(exists=True, dir_okay=False), help="Recorded frames, one a line; may be .gz.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the exchange.  [default: a free one]")
@click.option("--ping-interval", default="20s", show_default=True, callback=_seconds, help="Time between pings.")
@click.option("--broker/--no-broker", default=True, help="Run an embedded broker too.  [default: broker]")
@click.option(
    "--fault",
    multiple=True,
    metavar="KIND[:NAME=VALUE,...]",
    help="What goes wrong and when, as in cut:at=5s,code=1008; may be said again. KIND is one of cut, half-open, "
    "freeze, server-shutdown, huge-frame, fragments, skip, hole, duplicate, replay, shuffle, malformed, id-reset, "
    "handshake-status, handshake-silence, rest-status, rest-silence, rest-cut, rest-truncated, rest-lag, random; a "
    "wrong NAME shows the right ones.",
)
def sandbox(**options: Any) -> None:
    """Run a simulated exchange and an embedded broker until Ctrl-C, and print the variables to use."""
    with _extra_needed():
        from loader_ws_trades.sandbox.serve import serve  # noqa: PLC0415
    try:
        serve(**options)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The simulated exchange cannot run so: {error}; change its flags") from error


@contextlib.contextmanager
def _extra_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"This command needs {error.name}; install the extra: pip install 'loader-ws-trades[sandbox]'"
        ) from error


def main() -> None:
    """Entry point of the console script."""
    cli()
