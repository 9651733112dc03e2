"""Flags, variables and the `.env` file to `Settings`."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import click
from dotenv.parser import parse_stream

from loader_ws_trades.config import files
from loader_ws_trades.config import parsers as values
from loader_ws_trades.config import settings as config
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.text import printable

_Command = TypeVar("_Command", bound=Callable[..., Any])

NO_PROGRESS: Final = click.option("--no-progress", is_flag=True, help="Show no progress on a terminal.")

ARCHIVE_AND_RANGE: Final = "A range cannot be combined with --archive, which is used as a whole; drop one of them"

# What every command that talks to Kafka needs.
KAFKA: Final = (
    "kafka_bootstrap_servers",
    *(option.name for option in config.OPTIONS if option.name.startswith(("kafka_user", "kafka_password"))),
    "ca_path",
    "kafka_security_protocol",
    "kafka_sasl_mechanism",
    "kafka_properties",
    "startup_timeout",
    "startup_grace",
    "log_level",
    "log_format",
)


def settings_options(names: Iterable[str] | None = None) -> Callable[[_Command], _Command]:
    """Flags for the settings `names`, or for all of them, and `--env-file`; the flags have no defaults."""

    def decorate(command: _Command) -> _Command:
        chosen = [option for option in config.OPTIONS if names is None or option.name in names]
        for option in reversed(chosen):
            flags = [option.short] if option.short else []
            default = f" [default: {option.default}]" if option.default else ""
            required = " [required]" if option.required else ""
            if option.name == "symbol":
                required = " [required, or SYMBOLS]"
            click.option(
                *flags,
                option.flag,
                option.name,
                multiple=bool(option.short),
                help=f"{option.help} [{option.variable}]{default}{required}",
            )(command)
        click.option("--env-file", type=click.Path(), help="File or pipe of variables, instead of .env.")(command)
        return command

    return decorate


class Given(NamedTuple):
    """The settings given by flags, variables and the file, as texts."""

    texts: dict[str, Any]
    """By option name."""
    faults: list[str]
    """What is wrong with the file."""
    notes: list[str]
    """What looks wrong there but may be intended."""


def collect(flags: dict[str, Any], env_file: str | None, defaults: Mapping[str, str] | None = None) -> Given:
    """The texts of all settings that are given; `defaults` have the lowest precedence.

    Raises:
        ConfigurationError: if the file cannot be read.
    """
    from_file, faults, notes = _read_env_file(env_file)
    layers = (
        {name: value for name, value in flags.items() if value != ()},
        {option.name: os.environ.get(option.variable) for option in config.OPTIONS},
        {option.name: from_file.get(option.variable) for option in config.OPTIONS},
    )
    given: dict[str, Any] = {}
    for layer in (*layers, defaults or {}):
        # If a setting has two forms, the higher layer decides for both.
        forms = (config.PASSWORD_FORMS, config.SYMBOL_FORMS)
        settled = given.keys() | {name for both in forms if both & given.keys() for name in both}
        if "symbol" in given:
            settled |= config.SHARE  # a pair set in a higher layer overrides the share of the Job
        # An empty value counts as not set.
        found = {name: values.stripped(value) if isinstance(value, str) else value for name, value in layer.items()}
        given |= {name: layer[name] for name, value in found.items() if value and name not in settled}
    return Given(given, faults, notes)


def gather(
    flags: dict[str, Any],
    env_file: str | None,
    *,
    needed: Iterable[str] | None = None,
    one_pair: bool = False,
    faults: Iterable[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> tuple[config.Settings, list[str]]:
    """Settings from flags, over environment variables, over the `.env` file, over defaults; and what looks wrong.

    Args:
        flags: those of the command line.
        env_file: the file to read instead of `.env`.
        needed: the settings that must have a value; by default all that `run` needs.
        one_pair: whether several pairs are an error.
        defaults: override the defaults of settings.
        faults: what is wrong with the rest of the command line, to be reported together.

    Raises:
        ConfigurationError: with all faults at once.
    """
    given = collect(flags, env_file, defaults)
    found = [*given.faults, *faults]
    try:
        settings = load(given.texts, needed=needed, one_pair=one_pair)
    except ConfigurationError as error:
        # A misspelt name may be why a required setting is missing.
        raise ConfigurationError(*error.faults, *found, *given.notes) from error
    if found:
        raise ConfigurationError(*found, *given.notes)
    return settings, given.notes


def ready(flags: dict[str, Any], env_file: str | None, **how: Any) -> config.Settings:
    """The settings of a command; configures the log as well."""
    from loader_ws_trades import logs  # noqa: PLC0415 - so that `--help` is quick

    settings, notes = gather(flags, env_file, **how)
    logs.configure(settings)
    for note in notes:
        logs.LOGGER.warning("%s", note, extra={"event": "env_file"})
    return settings


def _read_env_file(named: str | None) -> tuple[dict[str, str | None], list[str], list[str]]:
    """The variables of a file, verbatim: no `${...}` is expanded, as a password may contain one."""
    path = named or ".env"
    try:
        text = files.read(path).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if named is None:
            return {}, [], []  # a directory may be a virtual environment
        raise ConfigurationError(f"--env-file: {path!r} is not a file; name a readable one") from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigurationError(f"Cannot read the file {path!r} ({why}); it must be UTF-8 text") from error
    bindings = list(parse_stream(io.StringIO(text)))
    faults = [
        f"{path}, line {binding.original.line}, is not NAME=value; fix it" for binding in bindings if binding.error
    ]
    found = {binding.key: binding.value for binding in bindings if binding.key}
    return found, faults, _misspelt(found, path)


def _misspelt(names: Iterable[str], path: str) -> list[str]:
    """A warning for each name that resembles a setting; other names may belong to other programs."""
    known = {option.variable for option in config.OPTIONS}
    others = islice((name for name in names if name not in known and len(name) < _LONGEST_NAME), _NAMES)
    near = {name: difflib.get_close_matches(name.upper(), known, 1, _ALIKE) for name in others}
    return [
        f"{path} sets {printable(name)}, which is not a setting; did you mean {meant[0]}?"
        for name, meant in near.items()
        if meant
    ]


_LONGEST_NAME, _NAMES = 60, 1000  # compared at most, as it takes a while
_ALIKE = 0.8


def checked_option(
    flag: str, parse: Callable[[str], object], default: str, meaning: str
) -> Callable[[_Command], _Command]:
    """A flag that is not a setting but is checked like one."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(f"it {error}") from error

    return click.option(flag, default=default, show_default=True, callback=callback, help=meaning)


def bounds_options(command: _Command) -> _Command:
    """Flags for a range of trades, by id or by time."""
    for name, meaning in reversed(
        {
            "--from-id": "First trade id (inclusive).",
            "--to-id": "Last trade id (inclusive).",
            "--since": "Start of the range (inclusive): ISO 8601 (UTC unless it has an offset) or Unix milliseconds.",
            "--until": "End of the range (exclusive).",
        }.items()
    ):
        click.option(name, help=meaning)(command)
    return command


def gather_bounds(flags: dict[str, Any]) -> tuple[Bounds, list[str]]:
    """The range that `bounds_options` give, removed from `flags`, and what is wrong with it."""
    parsers = {"from_id": values.trade_id, "to_id": values.trade_id, "since": values.moment, "until": values.moment}
    faults: list[str] = []
    found: dict[str, int] = {}
    for name, parse in parsers.items():
        text = flags.pop(name)
        try:
            if text is not None:
                found[name] = parse(text)
        except ValueError as error:
            faults.append(f"--{name.replace('_', '-')} {error}")
    if found.keys() & {"from_id", "to_id"} and found.keys() & {"since", "until"}:
        faults.append("The range is given both by ids and by times; use --from-id and --to-id, or --since and --until")
    if found.get("from_id", 0) > found.get("to_id", 2**63):
        faults.append("--from-id is above --to-id, so the range is empty; swap them")
    if "since" in found and found["since"] >= found.get("until", 2**63):
        faults.append("--since is not before --until, so the range is empty; swap them")
    return Bounds(**found), faults
