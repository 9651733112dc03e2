"""The command line: what each command takes, and what it calls.

What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loader_ws_trades import __version__
from loader_ws_trades.cli.check import check
from loader_ws_trades.cli.group import Group, examples, say
from loader_ws_trades.cli.options import KAFKA, bounds_options, gather_bounds, ready, seconds, settings_options, symbol
from loader_ws_trades.cli.schema import schema
from loader_ws_trades.config import parsers as values
from loader_ws_trades.config.settings import OPTIONS, Settings
from loader_ws_trades.errors import ConfigurationError

if TYPE_CHECKING:
    from loader_ws_trades.pipeline.interfaces import Sink, Source

STDOUT = click.option("--stdout", is_flag=True, help="Write records to standard output; only the symbol is needed.")
BEYOND = click.option(
    "--beyond",
    is_flag=True,
    help="Continue past the newest trade on the topic; unsafe alongside a live loader.",
)
NO_SCAN = click.option("--no-scan", is_flag=True, help="Load everything without scanning the topic first.")
NO_PROGRESS = click.option("--no-progress", is_flag=True, help="Show no progress on a terminal.")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="loader-ws-trades")
def cli() -> None:
    """Load every trade of one Binance pair into a Kafka topic.

    Each setting is a flag, an environment variable or a line in .env, in this order of precedence.
    """


@cli.command(
    epilog=examples(
        "loader-ws-trades run --env-file btcusdt.env",
        "loader-ws-trades run --symbol BTCUSDT --duration 10m",
        "KAFKA_TOPIC=trades loader-ws-trades run -X compression.type=lz4",
    )
)
@settings_options()
@click.option("--record", type=click.Path(), help="File to record raw frames to, one per line; .gz compresses it.")
@STDOUT
@NO_PROGRESS
def run(env_file: str | None, record: str | None, stdout: bool, no_progress: bool, **flags: Any) -> None:
    """Stream trades into Kafka until stopped."""
    from loader_ws_trades.run.frame_file import FrameWriter  # noqa: PLC0415
    from loader_ws_trades.run.live import Live  # noqa: PLC0415 - see the module's docstring

    settings = ready(flags, env_file, needed=_ALONE if stdout else None)
    if stdout:
        settings = replace(settings, resume="off")  # there is no topic to resume from

    def make_source() -> Source:
        return Live(settings, recorder=FrameWriter(record) if record else None)

    _load(settings, make_source, stdout=stdout, status=not no_progress)


def _load(
    settings: Settings, make_source: Callable[[], Source], *, stdout: bool, status: bool, kind: str = ""
) -> NoReturn:
    """Load from a source into Kafka or to standard output, and end with the run's exit code."""
    from loader_ws_trades import logs  # noqa: PLC0415
    from loader_ws_trades.kafka.transactions import make_publisher  # noqa: PLC0415
    from loader_ws_trades.monitoring import progress  # noqa: PLC0415
    from loader_ws_trades.run import service  # noqa: PLC0415
    from loader_ws_trades.run.stdout import Output  # noqa: PLC0415

    def make_sink() -> Sink:
        return Output(settings.symbol) if stdout else make_publisher(settings, kind)

    to = "standard output" if stdout else f"Kafka at {settings.kafka_bootstrap_servers}"
    logs.LOGGER.info(
        "loader-ws-trades %s starts; trades go to %s",
        __version__,
        to,
        extra={"event": "starting", "version": __version__},
    )
    display = progress.display(logs.LOGGER, "status", line=status and not stdout)
    sys.exit(service.run(settings, make_source, make_sink, reports=not stdout, display=display))


_OF_A_STREAM: dict[str, Any] = {"duration": None, "gap_repair": "on"}  # whatever a shared .env says of them
_ALONE = ("symbol",)  # what a run without Kafka needs
_OF_THE_STREAM = {"binance_ws_url", "feed_silence_limit", "feed_outage_limit", "max_connection_age", "duration"}
_OF_GAPS = {"gap_repair", "resume", "resume_limit", "resume_scan_limit"}
_BOUNDED = [option.name for option in OPTIONS if option.name not in _OF_THE_STREAM | _OF_GAPS]


@cli.command(
    epilog=examples(
        "loader-ws-trades backfill --from-id 1000 --to-id 1999",
        "loader-ws-trades backfill --since 2024-08-01T12:00 --dry-run",
        "loader-ws-trades backfill --since 2024-08-01 --stdout | head",
        "loader-ws-trades backfill --archive BTCUSDT-trades-2024-08-01.zip --beyond",
    )
)
@settings_options(_BOUNDED)
@bounds_options
@click.option("--archive", multiple=True, help="Binance archive file, zip or csv; repeatable.")
@BEYOND
@NO_SCAN
@click.option("--dry-run", is_flag=True, help="Show what would be loaded and the cost, without loading.")
@STDOUT
@NO_PROGRESS
def backfill(
    *,
    env_file: str | None,
    archive: tuple[str, ...],
    beyond: bool,
    no_scan: bool,
    dry_run: bool,
    stdout: bool,
    no_progress: bool,
    **flags: Any,
) -> None:
    """Backfill the trades a topic is missing in a range of ids or times.

    Running it again resumes where it stopped, without duplicates. It stops at the newest trade on the topic, so it is
    safe alongside a live loader; give it a queue id of its own then, because its last event reports it finished.
    """
    from loader_ws_trades.run.backfill import FromArchive, FromRest, cost  # noqa: PLC0415
    from loader_ws_trades.run.bounded import Bounded  # noqa: PLC0415

    bounds, faults = gather_bounds(flags)
    if archive and bounds:
        faults.append("A range cannot be combined with --archive, which is loaded as a whole; drop one of them")
    if not archive and bounds.from_id is None and bounds.since is None:
        faults.append("The range has no start; set --from-id or --since")
    needed = _ALONE if stdout else ("symbol", "kafka_topic", "kafka_bootstrap_servers") if dry_run else None
    settings = ready(flags, env_file, needed=needed, faults=faults, defaults={"control_from": "now"})
    settings = replace(settings, **_OF_A_STREAM)
    supply = FromArchive(archive, settings.symbol) if archive else FromRest(settings, bounds)
    source = Bounded(settings, supply, topic=not stdout, scan=not no_scan, beyond=beyond)
    if not dry_run:
        _load(settings, lambda: source, stdout=stdout, status=not no_progress, kind="backfill")
    source.prepare()
    requests, minutes = (0, 0.0) if archive else cost(settings, source.lacking)
    ranges = f"{len(source.lacking)} range{'' if len(source.lacking) == 1 else 's'}"
    say(f"{source.total} trades in {ranges}: {requests} requests, about {minutes:.1f} minutes")


def _speed(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        return values.speed(value)
    except ValueError as error:
        raise click.BadParameter(f"it {error}") from error


@cli.command(
    epilog=examples(
        "loader-ws-trades run --stdout --record btcusdt.jsonl.gz > /dev/null",
        "loader-ws-trades replay btcusdt.jsonl.gz --symbol BTCUSDT --stdout | head",
        "loader-ws-trades replay btcusdt.jsonl.gz --speed max",
    )
)
@click.argument("file", type=click.Path())
@settings_options([name for name in _BOUNDED if not name.startswith(("binance", "re"))])
@click.option("--speed", default="1", show_default=True, callback=_speed, help="Multiple of the recorded pace, or max.")
@BEYOND
@NO_SCAN
@STDOUT
@NO_PROGRESS
def replay(
    *,
    file: str,
    env_file: str | None,
    speed: float,
    beyond: bool,
    no_scan: bool,
    stdout: bool,
    no_progress: bool,
    **flags: Any,
) -> None:
    """Replay recorded frames (one per line) from FILE, skipping trades already on the topic."""
    from loader_ws_trades.run.bounded import Bounded  # noqa: PLC0415
    from loader_ws_trades.run.replay import FromRecording  # noqa: PLC0415

    settings = ready(flags, env_file, needed=_ALONE if stdout else None, defaults={"control_from": "now"})
    settings = replace(settings, **_OF_A_STREAM)
    supply = FromRecording(file, settings.symbol, speed)
    source = Bounded(settings, supply, topic=not stdout, scan=not no_scan, beyond=beyond)
    _load(settings, lambda: source, stdout=stdout, status=not no_progress, kind="replay")


cli.add_command(check)
cli.add_command(schema)

_AUDITED = ("symbol", "kafka_topic")


@cli.command(
    epilog=examples(
        "loader-ws-trades audit --env-file btcusdt.env",
        "loader-ws-trades audit --since 2024-08-01 --until 2024-08-02",
        "loader-ws-trades audit --from-id 1000 --to-id 1999 --json | jq .missing",
    )
)
@settings_options((*_AUDITED, "symbols", "job_completion_index", *KAFKA))
@bounds_options
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")
@NO_PROGRESS
def audit(env_file: str | None, as_json: bool, no_progress: bool, **flags: Any) -> None:
    """Check a topic for missing, duplicate, out-of-order or malformed trades.

    Exit code 0: no faults. 1: faults, or no trades in the given range.
    """
    from loader_ws_trades.audit import report  # noqa: PLC0415
    from loader_ws_trades.audit.scan import audit as read  # noqa: PLC0415

    bounds, faults = gather_bounds(flags)
    settings = ready(flags, env_file, needed=(*_AUDITED, "kafka_bootstrap_servers"), faults=faults)
    found = read(settings, bounds, bar=not no_progress)
    if as_json:
        say(report.as_json(found, settings))
    else:
        report.show(found, settings)
    sys.exit(found.exit_code)


@cli.command(
    epilog=examples(
        "loader-ws-trades stop --queue-id wf-1 --kafka-bootstrap-servers kafka:9092",
        "loader-ws-trades stop --wait --wait-timeout 5m",
    )
)
@settings_options(("queue_id", "queue_control_topic", "queue_events_topic", *KAFKA))
@click.option("--wait", is_flag=True, help="Wait for the last event of a loader that obeyed.")
@click.option("--wait-timeout", default="60s", show_default=True, callback=seconds, help="How long --wait waits.")
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


_RATE = click.FloatRange(min=0, max=1_000_000, min_open=True)


@cli.command(
    epilog=examples("loader-ws-trades demo", "loader-ws-trades demo --duration 1m --rate 5000"),
)
@click.option("--duration", default="15s", show_default=True, callback=seconds, help="How long the loader runs.")
@click.option("--rate", type=_RATE, default=500.0, show_default=True, help="Trades a second, on average.")
def demo(duration: float, rate: float) -> None:
    """Load from a simulated exchange that loses the connection and skips trades; needs no settings."""
    with _extra_needed():
        from loader_ws_trades.sandbox.demo import run_demo  # noqa: PLC0415
    if not rate > 0:
        raise click.BadParameter("--rate is no number; give trades a second")
    sys.exit(run_demo(duration, rate))


@cli.command(
    epilog=examples(
        "loader-ws-trades sandbox",
        "loader-ws-trades sandbox --rate 1000 --fault cut:at=5s --fault hole:at=10s",
        "loader-ws-trades sandbox --frames btcusdt.jsonl.gz --speed 10 --no-broker",
    )
)
@click.option(
    "--symbol", default="BTCUSDT", show_default=True, callback=symbol, help="Trading pair of generated trades."
)
@click.option("--rate", type=_RATE, help="Trades a second, on average.  [default: 100; the recorded pace]")
@click.option("--speed", type=_RATE, help="Times the recorded pace, for --frames.")
@click.option("--flat-out", is_flag=True, help="As fast as clients read, from the first one on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of generated trades.")
@click.option("--frames", type=click.Path(exists=True, dir_okay=False), help="Recorded frames, one a line; may be .gz.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address that the exchange listens at; 0.0.0.0 for all, so that other machines reach it.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the exchange.  [default: a free one]")
@click.option("--ping-interval", default="20s", show_default=True, callback=seconds, help="Time between pings.")
@click.option("--broker/--no-broker", default=True, help="Run an embedded broker too.  [default: broker]")
@click.option(
    "--fault",
    multiple=True,
    metavar="KIND[:NAME=VALUE,...]",
    help="What goes wrong and when, as in cut:at=5s,code=1008; repeatable. KIND is one of cut, half-open, "
    "freeze, server-shutdown, huge-frame, fragments, skip, hole, duplicate, replay, shuffle, malformed, id-reset, "
    "handshake-status, handshake-silence, rest-status, rest-silence, rest-cut, rest-truncated, rest-drip, "
    "rest-other-rows, rest-lag, random; a wrong NAME shows the right ones.",
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
            f"This command needs {error.name}; install the extra: pip install '.[sandbox]' where its sources are"
        ) from error


def main() -> None:
    """Entry point of the console script."""
    cli()
