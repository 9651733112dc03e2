"""Parsers of setting values: each takes the text as given and returns the value.

Each raises `ValueError` with the end of a sentence that begins with the setting's name.
"""

from __future__ import annotations

import ipaddress
import math
import re
import ssl
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from loader_ws_trades.config import files
from loader_ws_trades.text import printable

# Day, time of day, fraction of a second, and hours and minutes of the offset.
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,]([0-9]{1,9}))?)?)\s*(?:[Zz]|([+-][0-9]{2}):?([0-9]{2}))?)?"
)
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


# What is stripped from a value: white space, line breaks, the byte order mark.
_AROUND: Final = "\ufeff" + "".join(filter(str.isspace, map(chr, range(0x3001))))
_UNSEEN: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, zero-width letters, halves of surrogate pairs
_LONGEST: Final = 1000  # letters of a name; Kafka's protocol takes no more than 32767 bytes


def stripped(value: str) -> str:
    """A value without surrounding white space, line breaks and BOM."""
    return value.strip(_AROUND)


def quoted(value: str) -> str:
    """A value for a message, without the user and password that a URL may contain."""
    return f"'{printable(re.sub('.*@', '***@', value, flags=re.DOTALL), 60)}'"


def text(value: str, *, longest: int = _LONGEST) -> str:
    """A name: not blank, no invisible characters, no quotes around it."""
    value = stripped(value)
    if not value:
        raise ValueError("is blank; set a value")
    if unseen := next((letter for letter in value if unicodedata.category(letter) in _UNSEEN), None):
        raise ValueError(f"contains U+{ord(unseen):04X}, an invisible character; remove it")
    if {value[0], value[-1]} & {"'", '"'}:
        raise ValueError("begins or ends with a quote, which `docker --env-file` keeps; remove the quotes")
    if len(value) > longest:
        raise ValueError(f"is too long; use at most {longest} characters")
    return value


def secret(value: str) -> str:
    """A password: any text on one line. It is never shown."""
    value = stripped(value)
    if not value:
        raise ValueError("is blank; set a value")
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in value):
        raise ValueError("contains a line break or another control character; use the password alone, in UTF-8")
    return value


def symbol(value: str) -> str:
    """A trading pair in upper case; any letters and digits, not only ASCII."""
    value = text(value)
    if not all(letter.isalnum() or letter in "_-." for letter in value):
        raise ValueError(f"is {quoted(value)}, which is not a trading pair; use one like BTCUSDT")
    return value.upper()


def topic(value: str) -> str:
    """A name that Kafka allows for a topic."""
    value = text(value)
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", value) or value in {".", ".."}:
        raise ValueError(
            f"is {quoted(value)}, which is not a topic name; use up to 249 letters, digits, '.', '_' and '-'"
        )
    return value


def _is_address(value: str) -> bool:
    """Whether this is a host as in a URL, with or without a port (`h:` has none)."""
    match = re.fullmatch(r"(\[([0-9A-Fa-f:.]+)(?:%[\w.-]+)?\]|[\w.-]+)(?::([0-9]{0,5}))?", value)
    if not match or (match[3] and not 1 <= int(match[3]) <= 65535):
        return False
    try:
        if match[2]:
            ipaddress.IPv6Address(match[2])
        else:
            match[1].encode("idna")  # as name resolution does
    except ValueError:
        return False
    return True


def servers(value: str) -> str:
    """Addresses of brokers, `host:port` separated by commas."""
    addresses = [text(part) if stripped(part) else "" for part in value.split(",")]
    for address in addresses:
        if not _is_address(address) or not re.search(r":[0-9]+\Z", address):
            raise ValueError(f"contains {quoted(address)}, which is not host:port with a port from 1 to 65535")
    return ",".join(addresses)


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of `schemes`, a host and, if it names one, a port in range."""

    def parse(value: str) -> str:
        value = text(value, longest=4000)
        # The value may contain a password, so it is not shown.
        fault = f"is not a valid URL; use one that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        try:
            parts = urlsplit(value)
        except ValueError as error:
            raise ValueError(f"{fault}, with a host") from error
        if parts.scheme not in schemes or not _is_address(parts.netloc.rpartition("@")[2]):
            raise ValueError(f"{fault}, with a host and, if needed, a port from 1 to 65535")
        if any(letter in "#\\" or letter.isspace() for letter in value):
            raise ValueError(f"{fault}, without spaces, '#' and '\\'")
        return value

    return parse


def url_list(value: str) -> list[str]:
    """The URLs in a text where commas separate them; a query may hold commas of its own."""
    return re.split(r",\s*(?=[a-z]+://)", value)


def urls(*schemes: str) -> Callable[[str], str]:
    """One or more such URLs, separated by commas."""
    parse_one = url(*schemes)
    return lambda value: ",".join(parse_one(part) for part in url_list(value))


def seconds(value: str, *, least: float = 0.001) -> float:
    """A time span: seconds, or a number with the unit s, m, h or d."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", value.strip())
    if not match:
        raise ValueError(f"is {quoted(value)}, which is not a duration; use seconds, or a number with s, m, h or d")
    span = float(match[1]) * _UNITS[match[2]]
    if not least <= span <= 365 * 86400:
        raise ValueError(f"is {quoted(value)}, which is out of range; use more than 0 and at most 365d")
    return span


def moment(value: str) -> int:
    """A time in Unix milliseconds, from ISO 8601 (UTC unless it has an offset) or from those milliseconds.

    Fractions of a millisecond are rounded up, so that comparing whole milliseconds with it stays exact.
    """
    value = value.strip()
    fault = f"is {quoted(value)}, which is not a time; use one like 2024-08-01T10:00:00Z, or Unix milliseconds"
    if re.fullmatch(r"[0-9]{1,20}", value):
        # Fewer or more digits are seconds, microseconds or a date; do not guess.
        if not 10**11 <= int(value) < 10**14:
            raise ValueError(f"{fault}, of 12 to 14 digits")
        return int(value)
    match = _ISO.fullmatch(value)
    if not match:
        raise ValueError(fault)
    day, clock, fraction, hours, minutes = match.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{re.split('[.,]', clock or '00:00')[0]}{hours or '+00'}:{minutes or '00'}")
    except ValueError as error:
        raise ValueError(fault) from error
    since = at - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return since // timedelta(milliseconds=1) + ceil(Decimal(f"0.{fraction or 0}") * 1000)


def whole(least: int, most: int, kind: str) -> Callable[[str], int]:
    """A whole number from `least` to `most`; `kind` says what it must be."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value.strip()) or not least <= int(value) <= most:
            raise ValueError(f"is {quoted(value)}, which is not {kind}")
        return int(value)

    return parse


trade_id = whole(0, 10**18 - 1, "a trade id; use a whole number")
count = whole(1, 10**18 - 1, f"a whole number from 1 to {10**18 - 1}")


def count_to(most: int, why: str) -> Callable[[str], int]:
    """A whole number from 1 to `most`; `why` says what allows no more."""
    return whole(1, most, f"a whole number from 1 to {most}, {why}")


def port(value: str) -> int:
    """A port to listen on."""
    advice = "use a number from 1 to 65535"
    if value.startswith("tcp://"):
        advice = "Kubernetes sets this variable for a Service of that name; set enableServiceLinks: false in the pod"
    return whole(1, 65535, f"a port; {advice}")(value)


def speed(value: str) -> float:
    """A multiple of the recorded pace; `max`, which never waits, is infinite."""
    if value.strip().lower() == "max":
        return math.inf
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", value.strip()) or not float(value):
        raise ValueError(f"is {quoted(value)}, which is not a speed; use a number above 0, such as 1 or 10, or max")
    return float(value)


def choice(*choices: str) -> Callable[[str], str]:
    """One of a few words, in the case given here."""

    def parse(value: str) -> str:
        for known in choices:
            if value.strip().lower() == known.lower():
                return known
        raise ValueError(f"is {quoted(value)}; use one of {', '.join(choices)}")

    return parse


def pem_file(value: str) -> str:
    """A file that holds certificates in PEM form; its name is not shown, as a password may be there by mistake."""
    value = text(value)
    try:
        if not Path(value).is_file() and Path(value).exists():
            raise ValueError("is not a file; use the PEM file of the CA")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except ssl.SSLError as error:
        raise ValueError("names a file without a valid PEM certificate; use the one of the CA") from error
    except OSError as error:
        raise ValueError(f"names a file that cannot be read ({error.strerror}); use a readable one") from error
    return value


def password_in(file: str) -> str:
    """The password in a file, which may be a pipe."""
    try:
        held = files.read(file, most=65536).decode()
    except OSError as error:
        raise ValueError(f"names a file that cannot be read ({error.strerror}); use a readable one") from error
    except UnicodeDecodeError as error:
        raise ValueError("names a file that is not UTF-8 text; use one with the password alone") from error
    if not stripped(held):
        raise ValueError("names an empty file; write the password into it")
    try:
        return secret(held)
    except ValueError as error:
        raise ValueError(f"names a file that {error}") from error
