"""The command line, and the commands that need no exchange and no brokers: `demo` and `sandbox`.

The others are in `load` and `inspect`. What a command needs is imported when it runs, so `--help` is quick.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from loader_ws_trades import __version__
from loader_ws_trades.cli.group import Group, command
from loader_ws_trades.cli.inspect import audit, check, schema, stop
from loader_ws_trades.cli.load import backfill, replay, run
from loader_ws_trades.cli.options import checked_option
from loader_ws_trades.config import parsers as values
from loader_ws_trades.errors import ConfigurationError

_RATE = click.FloatRange(min=0, max=1_000_000, min_open=True)


@command("loader-ws-trades demo", "loader-ws-trades demo --duration 1m --rate 5000")
@checked_option("--duration", values.seconds, "15s", "How long the loader runs.")
@click.option("--rate", type=_RATE, default=500.0, show_default=True, help="Trades per second, on average.")
def demo(duration: float, rate: float) -> None:
    """Load from a simulated exchange that loses the connection and skips trades; needs no settings."""
    with _extra_needed():
        from loader_ws_trades.sandbox.demo import run_demo  # noqa: PLC0415
    if not rate > 0:
        raise click.BadParameter("--rate is not a number; give trades per second")
    sys.exit(run_demo(duration, rate))


@command(
    "loader-ws-trades sandbox",
    "loader-ws-trades sandbox --rate 1000 --fault cut:at=5s --fault hole:at=10s",
    "loader-ws-trades sandbox --symbols 1600 --rate 3000",
    "loader-ws-trades sandbox --frames btcusdt.jsonl.gz --speed 10 --no-broker",
)
@checked_option("--symbol", values.symbol, "BTCUSDT", "Trading pair of generated trades.")
@click.option(
    "--symbols",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Number of pairs, at rates as uneven as the real ones.",
)
@click.option(
    "--rate", type=_RATE, help="Trades per second of all pairs, on average.  [default: 100; the recorded pace]"
)
@click.option("--speed", type=_RATE, help="Multiple of the recorded pace, for --frames.")
@click.option("--flat-out", is_flag=True, help="As fast as clients read, starting with the first client.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated trades.")
@click.option(
    "--frames", type=click.Path(exists=True, dir_okay=False), help="Recorded frames, one per line; may be .gz."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 makes the exchange reachable from other machines.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the exchange.  [default: a free one]")
@checked_option("--ping-interval", values.seconds, "20s", "Time between pings.")
@click.option("--broker/--no-broker", default=True, help="Run an embedded broker too.  [default: broker]")
@click.option(
    "--fault",
    multiple=True,
    metavar="KIND[:NAME=VALUE,...]",
    help="What goes wrong and when, for example cut:at=5s,code=1008; repeatable. KIND is one of cut, half-open, "
    "freeze, server-shutdown, huge-frame, fragments, delay, skip, hole, duplicate, replay, shuffle, malformed, "
    "id-reset, handshake-status, handshake-silence, rest-status, rest-silence, rest-cut, rest-truncated, "
    "rest-drip, rest-other-rows, rest-lag, list, delist, silent, random; a wrong NAME lists the valid ones.",
)
def sandbox(**options: Any) -> None:
    """Run a simulated exchange and an embedded broker until Ctrl-C, and print the variables for a loader."""
    with _extra_needed():
        from loader_ws_trades.sandbox.serve import serve  # noqa: PLC0415
    try:
        serve(**options)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"Cannot run the simulated exchange: {error}; change its flags") from error


@contextlib.contextmanager
def _extra_needed() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"This command needs {error.name}; install the extra with pip install '.[sandbox]' in its source directory"
        ) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader-ws-trades")
def cli() -> None:
    """Load every trade of one Binance pair into a Kafka topic.

    Each setting is a flag, an environment variable or a line in .env, in this order of precedence.
    """


for each in (run, backfill, replay, check, schema, audit, stop, demo, sandbox):
    cli.add_command(each)
