"""The commands that load trades: `run`, `backfill` and `replay`. What they need is imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from loader_ws_trades import __version__, streams
from loader_ws_trades.cli.group import command, say
from loader_ws_trades.cli.options import (
    ARCHIVE_AND_RANGE,
    NO_PROGRESS,
    bounds_options,
    checked_option,
    gather_bounds,
    ready,
    settings_options,
)
from loader_ws_trades.config import parsers as values
from loader_ws_trades.config.settings import OPTIONS, Settings
from loader_ws_trades.text import counted

if TYPE_CHECKING:
    from loader_ws_trades.pipeline.interfaces import Sink, Source

STDOUT = click.option("--stdout", is_flag=True, help="Write records to standard output; only the symbol is needed.")
BEYOND = click.option(
    "--beyond",
    is_flag=True,
    help="Continue past the newest trade on the topic; unsafe alongside a live loader.",
)
NO_SCAN = click.option("--no-scan", is_flag=True, help="Load everything without scanning the topic first.")


@command(
    "loader-ws-trades run --env-file btcusdt.env",
    "loader-ws-trades run --symbol BTCUSDT --duration 10m",
    "KAFKA_TOPIC=trades loader-ws-trades run -X compression.type=lz4",
)
@settings_options()
@click.option("--record", type=click.Path(), help="File to record raw frames to, one per line; .gz compresses it.")
@STDOUT
@NO_PROGRESS
def run(env_file: str | None, record: str | None, stdout: bool, no_progress: bool, **flags: Any) -> None:
    """Stream trades into Kafka until stopped."""
    from loader_ws_trades.run.frame_file import FrameWriter  # noqa: PLC0415
    from loader_ws_trades.run.live import Live  # noqa: PLC0415 - see the module's docstring

    # A recording is of one pair, which `replay` names.
    settings = ready(flags, env_file, needed=_ALONE if stdout else None, one_pair=record is not None)
    if stdout:
        settings = replace(settings, resume="off")  # nothing to resume from

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
        return Output() if stdout else make_publisher(settings, kind)

    to = "standard output" if stdout else f"Kafka at {settings.kafka_bootstrap_servers}"
    logs.LOGGER.info(
        "loader-ws-trades %s starting; trades go to %s",
        __version__,
        to,
        extra={"event": "starting", "version": __version__},
    )
    display = progress.display(logs.LOGGER, "status", line=status and not stdout)
    streams.leave(service.run(settings, make_source, make_sink, reports=not stdout, display=display))


# Whatever a shared .env sets them to.
_OF_A_STREAM: dict[str, Any] = {"duration": None, "gap_repair": "on", "feed_connections": 1}
_ALONE = ("symbol",)  # what a run without Kafka needs
_OF_THE_STREAM = {"binance_ws_url", "feed_silence_limit", "feed_outage_limit", "max_connection_age", "duration"}
_OF_THE_STREAM |= {"feed_connections", "stream_check_interval", "symbols_refresh"}
_OF_GAPS = {"gap_repair", "resume", "resume_limit", "resume_scan_limit"}
_BOUNDED = [option.name for option in OPTIONS if option.name not in _OF_THE_STREAM | _OF_GAPS]


@command(
    "loader-ws-trades backfill --from-id 1000 --to-id 1999",
    "loader-ws-trades backfill --since 2024-08-01T12:00 --dry-run",
    "loader-ws-trades backfill --since 2024-08-01 --stdout | head",
    "loader-ws-trades backfill --archive BTCUSDT-trades-2024-08-01.zip --beyond",
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
    from loader_ws_trades.run.backfill import ArchiveProvider, RestProvider, cost  # noqa: PLC0415
    from loader_ws_trades.run.bounded import Bounded  # noqa: PLC0415

    bounds, faults = gather_bounds(flags)
    if archive and bounds:
        faults.append(ARCHIVE_AND_RANGE)
    if not archive and bounds.from_id is None and bounds.since is None:
        faults.append("The range has no start; set --from-id or --since")
    needed = _ALONE if stdout else ("symbol", "kafka_topic", "kafka_bootstrap_servers") if dry_run else None
    settings = ready(flags, env_file, needed=needed, one_pair=True, faults=faults, defaults={"control_from": "now"})
    settings = replace(settings, **_OF_A_STREAM)
    provider = ArchiveProvider(archive, settings.symbol) if archive else RestProvider(settings, bounds)
    source = Bounded(settings, provider, topic=not stdout, scan=not no_scan, beyond=beyond)
    if not dry_run:
        _load(settings, lambda: source, stdout=stdout, status=not no_progress, kind="backfill")
    source.prepare()
    work = f"{counted(source.total or 0, 'trade')} in {counted(len(source.missing), 'range')}"
    if not archive:
        requests, minutes = cost(settings, source.missing)
        work += f": {counted(requests, 'request')}, about {minutes:.1f} minutes"
    say(work)


@command(
    "loader-ws-trades run --stdout --record btcusdt.jsonl.gz > /dev/null",
    "loader-ws-trades replay btcusdt.jsonl.gz --symbol BTCUSDT --stdout | head",
    "loader-ws-trades replay btcusdt.jsonl.gz --speed max",
)
@click.argument("file", type=click.Path())
@settings_options([name for name in _BOUNDED if not name.startswith(("binance", "re"))])
@checked_option("--speed", values.speed, "1", "Multiple of the recorded pace, or max.")
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
    from loader_ws_trades.run.replay import RecordingProvider  # noqa: PLC0415

    settings = ready(
        flags, env_file, needed=_ALONE if stdout else None, one_pair=True, defaults={"control_from": "now"}
    )
    settings = replace(settings, **_OF_A_STREAM)
    provider = RecordingProvider(file, settings.symbol, speed)
    source = Bounded(settings, provider, topic=not stdout, scan=not no_scan, beyond=beyond)
    _load(settings, lambda: source, stdout=stdout, status=not no_progress, kind="replay")
