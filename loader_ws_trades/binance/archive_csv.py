"""One file of Binance's public spot trade archives, a zip or the csv inside: its checksum, its name, its rows.

Source: the "trades" files of the exchange's public data: id, price, qty, quoteQty, time, isBuyerMaker, isBestMatch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from zipfile import BadZipFile

from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.logs import Events
from loader_ws_trades.pipeline.trade import DECIMAL, Trade

events = Events(logging.getLogger(__name__))

_CHUNK = 256 * 1024  # bytes decoded at once: about 3,500 trades; a longer line is rejected
_BLOCK = 1024 * 1024  # bytes hashed at once
_BOM = "\xef\xbb\xbf"  # decoded as Latin-1, like everything else

_FILE_NAME = re.compile(r"(.+)-(?:agg)?trades-[0-9]{4}-[0-9]{2}", re.IGNORECASE)
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.*)")

_COLUMNS = ("id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch")
_HEADER = [name.lower() for name in _COLUMNS]
_OTHER_HEADERS = {
    "a": "aggregated trades",
    "aggtradeid": "aggregated trades",
    "aggregatetradeid": "aggregated trades",
    "opentime": "candlesticks",
}

_ID = "[0-9]{1,18}"
# The first 13 digits are milliseconds; three more, from 10**15 on, make it microseconds.
_TIME = "([1-9][0-9]{0,12})(?:(?<=[0-9]{13})[0-9]{3})?"
_BOOLEAN = "(?:[Tt]rue|[Ff]alse)"

# One call of the pattern decodes and checks a whole chunk: three times as fast as a loop over split lines.
_find_rows = re.compile(
    rf"^({_ID}),({DECIMAL}),({DECIMAL}),[^,\n]*,{_TIME},(?:([Tt])rue|[Ff]alse),{_BOOLEAN}\r?$", re.MULTILINE
).findall

# By column: what is used must match, and what to call it in an error.
_FORMATS = {
    0: (re.compile(_ID), "a whole number of at most 18 digits"),
    1: (re.compile(DECIMAL), "a plain decimal number"),
    2: (re.compile(DECIMAL), "a plain decimal number"),
    4: (re.compile(_TIME), "a time in milliseconds or microseconds"),
    5: (re.compile(_BOOLEAN), "True or False"),
    6: (re.compile(_BOOLEAN), "True or False"),
}

# What zipfile and the decompressors raise for a damaged file; a RuntimeError is a password.
_DAMAGE = (
    BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
    OverflowError,
    OSError,
)


class ArchiveFile:
    """One archive file of `symbol`, opened again for each pass.

    Every method raises `ConfigurationError` with one sentence that names the file.
    """

    def __init__(self, path: Path, symbol: str) -> None:
        self.path = path
        self.size = 0
        """Bytes of the csv; known after `verify`."""
        self.matches_checksum = False
        """Whether a `.CHECKSUM` file is beside it, which it matches; known after `verify`."""
        self._symbol = symbol
        self._fingerprint: tuple[int, ...] = ()

    def verify(self, progress: Callable[[], None]) -> None:
        """Check all but the rows: the file can be read, matches its checksum, and is of our symbol.

        `progress` is called now and again; what it raises ends the work.
        """
        with self._open() as file:
            self._fingerprint = _fingerprint(file)
            self._verify_checksum(file, progress)
            self._check_symbol(self.path.name)
            _, name, self.size = self._csv(file)
            if name != self.path.name:
                self._check_symbol(name)

    def batches(self) -> Iterator[tuple[int, list[Trade]]]:
        """The trades in the order of the file, some thousands at a time, as (bytes of csv, trades)."""
        with self._open_unchanged() as file:
            csv, _, _ = self._csv(file)
            for number, text in self._lines(csv):
                yield len(text), self._decode(number, text)

    def sha256(self) -> str:
        """The checksum of the file, in hexadecimal; only after `verify`."""
        with self._open_unchanged() as file:
            return _sha256(file, lambda: None)

    @contextmanager
    def _open_unchanged(self) -> Iterator[IO[bytes]]:
        with self._open() as file:
            if _fingerprint(file) != self._fingerprint:
                raise ConfigurationError(f"{self.path} changed while it was being read; run again once it is complete")
            yield file

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            if self.path.exists() and not self.path.is_file():
                raise ConfigurationError(f"{self.path} is not a regular file, and it is read twice; give a file")
            file = self.path.open("rb")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "invalid file name"
            raise ConfigurationError(f"{self.path} cannot be read ({reason}); give a readable archive") from error
        try:
            with file:
                yield file
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _csv(self, file: IO[bytes]) -> tuple[IO[bytes], str, int]:
        """The csv, its name and its size in bytes."""
        file.seek(0)
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        if is_zip:
            archive = zipfile.ZipFile(file)
            members = [member for member in archive.infolist() if member.filename.lower().endswith(".csv")]
            if len(members) != 1:
                raise ConfigurationError(
                    f"{self.path} contains {len(members) or 'no'} csv file{'s' if members else ''}; give the zip as "
                    "published, with exactly one"
                )
            [member] = members
            if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise self._damaged("unsupported compression method")
            found = archive.open(member), Path(member.filename).name, member.file_size
        elif self.path.suffix.lower() == ".zip":
            raise self._damaged("not a zip")
        else:
            found = file, self.path.name, os.fstat(file.fileno()).st_size
        if not found[2]:
            raise ConfigurationError(f"{self.path} contains no data; download it again")
        return found

    def _verify_checksum(self, file: IO[bytes], progress: Callable[[], None]) -> None:
        beside = self.path.with_name(self.path.name + ".CHECKSUM")
        try:
            lines = beside.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            events.info("archive_unverified", f"{self.path} was not verified: {beside.name} not found")
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{beside} is not readable text; download it again or remove it") from error
        matches = filter(None, (_CHECKSUM_LINE.fullmatch(line.strip()) for line in lines))
        listed = {match[2].strip(): match[1].lower() for match in matches}
        expected = listed.get(self.path.name) or (next(iter(listed.values())) if len(listed) == 1 else None)
        if expected is None:
            raise ConfigurationError(f"{beside} has no SHA-256 of the file; download it again or remove it")
        if _sha256(file, progress) != expected:
            raise ConfigurationError(f"{self.path} does not match {beside.name}; download both again")
        self.matches_checksum = True
        events.info("archive_verified", f"{self.path} matches {beside.name}")

    def _check_symbol(self, name: str) -> None:
        match = _FILE_NAME.match(name)
        if match is None:
            events.info("archive_name", f"The file name {name} does not contain the symbol; assuming {self._symbol}")
        elif match[1].upper() != self._symbol:
            raise ConfigurationError(
                f"{named('symbol')} is {self._symbol}, but {self.path} contains trades of {match[1]}; change the "
                "symbol, or give another archive"
            )

    def _lines(self, csv: IO[bytes]) -> Iterator[tuple[int, str]]:
        """Whole lines, as (number of the first one, text that ends in a newline)."""
        number, rest = 1, b""
        while chunk := csv.read(_CHUNK):
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                # One character per byte: no row has any that is not ASCII.
                text = (rest + head + newline).decode("latin-1")
                yield number, text
                number, rest = number + text.count("\n"), tail
            elif len(rest) > _CHUNK:
                raise ConfigurationError(
                    f"{self.path}, line {number}, is longer than {_CHUNK} bytes; nothing was published, give an "
                    "archive of spot trades"
                )
            else:
                rest += chunk
        if rest:
            yield number, rest.decode("latin-1") + "\n"

    def _decode(self, number: int, text: str) -> list[Trade]:
        if number == 1:
            text = text.removeprefix(_BOM)
            first = text.partition("\n")[0]
            fields = re.sub(r'[\s_"]', "", first).lower().split(",")
            if kind := _other_kind(fields):
                raise ConfigurationError(
                    f"{self.path} contains {kind}; give an archive of spot trades, as in data/spot/daily/trades"
                )
            if fields == _HEADER:
                text = text.removeprefix(first)  # its newline stays: lines are counted
        rows = _find_rows(text)
        if len(rows) != text.count("\n"):
            for index, line in enumerate(text.split("\n")):
                if line.strip() and not _find_rows(line):
                    raise ConfigurationError(
                        f"{self.path}, line {number + index}, {_what_is_wrong(line)}; nothing was published, download "
                        "it again"
                    )
        symbol = self._symbol
        return [Trade(int(row), price, qty, int(time), maker != "", symbol) for row, price, qty, time, maker in rows]

    def _damaged(self, reason: object) -> ConfigurationError:
        return ConfigurationError(f"{self.path} is damaged ({reason}); nothing was published, download it again")


def _sha256(file: IO[bytes], progress: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
        progress()
    return digest.hexdigest()


def _fingerprint(file: IO[bytes]) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _other_kind(fields: list[str]) -> str | None:
    """What a file contains if its first line, a header or a row, is that of another kind of archive."""
    count = len(fields)
    if not fields[0].isdigit():
        return "futures trades" if fields[0] == "id" and count == 6 else _OTHER_HEADERS.get(fields[0])
    # Aggregated trades have 8 columns on spot, 7 on futures. Their sixth is a time, where a trade has its side.
    if count == 8 or (count == 7 and fields[3].isdigit() and fields[5].isdigit()):
        return "aggregated trades"
    return {6: "futures trades", 12: "candlesticks"}.get(count)


def _what_is_wrong(line: str) -> str:
    fields = line.rstrip("\r").split(",")
    if len(fields) != len(_COLUMNS):
        columns = f"{len(fields)} column{'s' if len(fields) > 1 else ''}"
        return f"has {columns} instead of the {len(_COLUMNS)} of a spot archive: {line!r:.80}"
    for column, (pattern, expected) in _FORMATS.items():
        if not pattern.fullmatch(fields[column]):
            return f"has {_COLUMNS[column]} {fields[column]!r:.40}, which is not {expected}"
    return f"is not a trade: {line!r:.80}"
