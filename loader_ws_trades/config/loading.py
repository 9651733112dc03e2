"""Settings from texts: parses each value, then validates them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loader_ws_trades.config import overrides, parsers, symbols
from loader_ws_trades.config.settings import OPTIONS, TOPICS, Option, Settings, named
from loader_ws_trades.errors import ConfigurationError


def load(
    given: Mapping[str, str | Iterable[str] | None], *, needed: Iterable[str] | None = None, one_pair: bool = False
) -> Settings:
    """Settings from texts by option name; absent ones take their default.

    Args:
        given: the texts, whatever their source.
        needed: the options that must have a value; by default all that `run` needs.
        one_pair: whether several pairs are an error.

    Raises:
        ConfigurationError: with all faults, each naming the variable and the flag.
    """
    required = {option.name for option in OPTIONS if option.required} if needed is None else set(needed)
    texts = {name: parsers.stripped(value) if isinstance(value, str) else value for name, value in given.items()}
    secrets = _secrets_in(texts)
    faults = []
    checked: dict[str, Any] = {}
    for option in OPTIONS:
        value = texts.get(option.name) or None
        if value is None and option.name in required and not (option.name == "symbol" and texts.get("symbols")):
            faults.append(f"{option} is required; set it")
        value = value or option.default
        try:
            checked[option.name] = None if value is None else option.parse(value)
        except ValueError as error:
            faults.append(f"{option} {_without(secrets, value, option, error)}")
    faults += _choose_symbols(checked, needed="symbol" in required, one_pair=one_pair)
    faults += _fill_placeholders(checked)
    faults += _take_password_file(checked)
    faults += _contradictions(checked, given_file=bool(texts.get("kafka_password_file")))
    if faults:
        raise ConfigurationError(*faults)
    return Settings(**checked)


def _secrets_in(texts: Mapping[str, Any]) -> list[str]:
    found = []
    for option in OPTIONS:
        value = texts.get(option.name) or () if option.secret else ()
        if option.parse is overrides.properties:
            parts = value.split(",") if isinstance(value, str) else value
            found += [part.partition("=")[2].strip() for part in parts]
        elif value:
            found.append(value)
    return sorted((secret for secret in found if len(secret) >= 4), key=len, reverse=True)


def _without(secrets: Iterable[str], value: Any, option: Option, error: ValueError) -> str:
    """What is wrong with `value`, without secrets of other settings that were pasted into it by mistake."""
    if option.secret or not any(secret in value for secret in secrets):
        return str(error)
    for secret in secrets:
        value = value.replace(secret, "***")
    try:
        option.parse(value)
    except ValueError as redacted:
        return str(redacted)
    return "is invalid and contains a secret of another setting; give it its own value"


def _choose_symbols(checked: dict[str, Any], *, needed: bool, one_pair: bool) -> list[str]:
    if checked.get("symbol") and checked.get("symbols"):
        return [f"{named('symbol')} and {named('symbols')} are both set; set only one"]
    if needed and checked.get("symbol") and checked.get("job_completion_index"):
        return [
            f"{named('job_completion_index')} is {checked['job_completion_index']}, but {named('symbol')} names one "
            f"pair for all pods of the Job, so each would write its trades; set {named('symbols')} instead"
        ]
    if not checked.get("symbols") or not {"job_completion_index", "job_completions"} <= checked.keys():
        return []
    try:
        entries = symbols.split(checked["symbols"], checked["job_completion_index"], checked["job_completions"])
    except ValueError as error:
        # `stop` may run with the variables of the whole fleet.
        return [f"{named('job_completion_index')} {error}"] if needed else []
    checked["symbols"] = entries
    if len(entries) == 1 and not symbols.is_pattern(entries[0]):
        checked["symbol"] = entries[0]
    elif needed and one_pair:
        held = f"has {len(entries)} pairs" if len(entries) > 1 else "has a pattern"
        return [f"{named('symbols')} {held}, but this command takes one pair; set {named('symbol')} instead"]
    elif needed:
        checked["symbol"] = ""
    return []


def _fill_placeholders(checked: dict[str, Any]) -> list[str]:
    """Replace `{symbol}`; a text whose symbol is unknown is left unset, that of several pairs as it is."""
    faults = []
    for name in ("kafka_topic", "telemetry_producer_id", "heartbeat_file"):
        text, symbol = checked.get(name), checked.get("symbol")
        if not text or symbols.PLACE not in text:
            continue
        checked[name] = None if symbol is None else text
        try:
            if symbol:
                checked[name] = symbols.filled(text, symbol, is_topic=name == "kafka_topic")
            elif symbol == "":
                _check_template(name, text, checked["symbols"])
        except ValueError as error:
            checked[name] = None
            faults.append(f"{named(name)} {error}")
    return faults


def _check_template(name: str, text: str, entries: Iterable[str]) -> None:
    """Check what one process with several pairs fills in for each of them."""
    if name == "heartbeat_file":
        raise ValueError(
            f"contains {symbols.PLACE}, but one process loads all pairs of {named('symbols')}; use a name without it"
        )
    for entry in entries if name == "kafka_topic" else ():
        if not symbols.is_pattern(entry):
            symbols.filled(text, entry, is_topic=True)


def _take_password_file(checked: dict[str, Any]) -> list[str]:
    file = checked.get("kafka_password_file")
    if not file:
        return []
    if checked.get("kafka_password_producer"):
        return [f"{named('kafka_password_producer')} and {named('kafka_password_file')} are both set; set only one"]
    try:
        checked["kafka_password_producer"] = parsers.password_in(file)
    except ValueError as error:
        return [f"{named('kafka_password_file')} {error}"]
    return []


def _contradictions(checked: Mapping[str, Any], *, given_file: bool) -> list[str]:
    faults = []
    topics = [checked.get(name) for name in TOPICS]
    if len({topic for topic in topics if topic}) < len([topic for topic in topics if topic]):
        faults.append(f"{', '.join(map(named, TOPICS))} must be three different topics")
    for client in ("producer", "consumer"):
        user, password = f"kafka_user_{client}", f"kafka_password_{client}"
        if user not in checked or password not in checked:
            continue
        from_file = client == "producer" and given_file
        if checked[user] and not checked[password] and not from_file:
            file = f" or {named('kafka_password_file')}" if client == "producer" else ""
            faults.append(f"{named(user)} is set without a password; set {named(password)}{file}")
        if checked[password] and not checked[user]:
            where = named("kafka_password_file" if from_file else password)
            faults.append(f"{where} is set without a user; set {named(user)}")
    protocol = checked.get("kafka_security_protocol") or ""
    if checked.get("kafka_sasl_mechanism") == "OAUTHBEARER":
        faults += [
            f"{named(name)} is set, but {named('kafka_sasl_mechanism')} is OAUTHBEARER; unset one of them"
            for name in ("kafka_user_producer", "kafka_user_consumer")
            if checked.get(name)
        ]
        if protocol and not protocol.startswith("SASL"):
            faults.append(f"{named('kafka_security_protocol')} is {protocol}, but OAUTHBEARER needs SASL_SSL")
    elif protocol.startswith("SASL") and not checked.get("kafka_user_producer"):
        faults.append(f"{named('kafka_security_protocol')} is {protocol}, which needs {named('kafka_user_producer')}")
    return faults
