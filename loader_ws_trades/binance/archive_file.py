"""One file of the exchange's public trade archives, a zip or the csv out of it: its checksum, its name, its trades."""

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

from loader_ws_trades.binance.archive_rows import BadLineError, OtherKindError, decode_lines, is_header
from loader_ws_trades.config.settings import named
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.trade import Trade

log = logging.getLogger(__name__)

_CHUNK = 256 * 1024  # bytes that are decoded at once: about 3,500 trades
_BLOCK = 1024 * 1024  # bytes that are hashed at once
_BOM = b"\xef\xbb\xbf"

_NAME = re.compile(r"(.+)-(?:agg)?trades-[0-9]{4}-[0-9]{2}", re.IGNORECASE)
_DIGEST = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.*)")

# What zipfile and the decompressors raise for a file that is not as it should be; a RuntimeError is a password.
_DAMAGE = (
    zipfile.BadZipFile,
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
    """One archive file of `symbol`; it is opened anew for each pass.

    Every method raises `ConfigurationError` with one sentence that names the file.
    """

    def __init__(self, path: Path, symbol: str) -> None:
        self.path = path
        self.size = 0
        """Bytes of the csv, known after `inspect`."""
        self._symbol = symbol
        self._state: tuple[int, ...] = ()

    def inspect(self, note: Callable[[], None]) -> None:
        """Look at all but the rows: whether it can be read, is what its checksum says, and is of our symbol.

        `note` is called now and again; what it raises ends the work.
        """
        with self._opened() as file:
            self._state = _state(file)
            self._verify(file, note)
        self._check_name(self.path.name)
        with self._csv() as (_, name, size):
            if name != self.path.name:
                self._check_name(name)
            self.size = size

    @property
    def unchanged(self) -> bool:
        """Whether the file is the one that was inspected."""
        try:
            with self.path.open("rb") as file:
                return _state(file) == self._state
        except OSError:
            return False

    def batches(self) -> Iterator[tuple[int, list[Trade]]]:
        """The trades in the order of the file, as (bytes of the csv, trades); some thousands at a time."""
        with self._csv() as (csv, _, _):
            for number, text in self._lines(csv):
                yield len(text), self._decode(number, text)

    def _decode(self, number: int, text: str) -> list[Trade]:
        # A header is left out, its newline is not: lines are counted.
        head, newline, rest = text.partition("\n") if number == 1 else ("", "", text)
        try:
            return decode_lines(newline + rest if head and is_header(head) else text, self._symbol)
        except OtherKindError as error:
            raise ConfigurationError(
                f"{self.path} holds {error}; give an archive of spot trades, as in data/spot/daily/trades"
            ) from error
        except BadLineError as error:
            raise ConfigurationError(
                f"{self.path}, line {number + error.index}, {error}; nothing was published, download it again"
            ) from error

    def _lines(self, csv: IO[bytes]) -> Iterator[tuple[int, str]]:
        """Whole lines, as (number of the first one, text that ends in a newline)."""
        number, rest = 1, b""
        while True:
            try:
                chunk = csv.read(_CHUNK)
            except _DAMAGE as error:
                raise self._damaged(error) from error
            if number == 1 and not rest:
                chunk = chunk.removeprefix(_BOM)
            head, newline, tail = chunk.rpartition(b"\n")
            if newline or not chunk:
                # A byte is a character: what is not ASCII is in no row. A last line may lack its newline.
                text = (rest + head + b"\n").decode("latin-1") if rest or newline else ""
                if text:
                    yield number, text
                number, rest = number + text.count("\n"), tail
            elif len(rest) > _CHUNK:
                raise ConfigurationError(
                    f"{self.path}, line {number}, is longer than {_CHUNK} bytes; nothing was published, give an "
                    "archive of spot trades"
                )
            else:
                rest += chunk
            if not chunk:
                return

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            if self.path.exists() and not self.path.is_file():
                raise ConfigurationError(f"{self.path} is not a regular file, and it is read twice; give a file")
            file = self.path.open("rb")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no file name"
            raise ConfigurationError(f"{self.path} cannot be read ({reason}); give a readable archive") from error
        with file:
            yield file

    @contextmanager
    def _csv(self) -> Iterator[tuple[IO[bytes], str, int]]:
        """The csv, its name and its size in bytes."""
        with self._opened() as file:
            try:
                is_zip = file.read(2) == b"PK"
                file.seek(0)
            except OSError as error:
                raise self._damaged(error) from error
            if not is_zip:
                if self.path.suffix.lower() == ".zip":
                    raise self._damaged("it is no zip")
                size = os.fstat(file.fileno()).st_size
                if not size:
                    raise ConfigurationError(f"{self.path} is empty; download it again")
                yield file, self.path.name, size
                return
            try:
                archive = zipfile.ZipFile(file)
                found = [part for part in archive.infolist() if part.filename.lower().endswith(".csv")]
            except _DAMAGE as error:
                raise self._damaged(error) from error
            if len(found) != 1:
                raise ConfigurationError(
                    f"{self.path} holds {len(found) or 'no'} csv file{'s' if found else ''}; give the zip as the "
                    "exchange made it, with one"
                )
            if found[0].compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise self._damaged("it is packed in a way that the exchange does not use")
            if not found[0].file_size:
                raise ConfigurationError(f"{self.path} holds an empty csv file; download it again")
            try:
                csv = archive.open(found[0])
            except _DAMAGE as error:
                raise self._damaged(error) from error
            with csv:
                yield csv, Path(found[0].filename).name, found[0].file_size

    def _verify(self, file: IO[bytes], note: Callable[[], None]) -> None:
        beside = self.path.with_name(self.path.name + ".CHECKSUM")
        try:
            lines = beside.read_text("utf-8-sig").splitlines()
        except FileNotFoundError:
            log.info(
                "%s was not verified: there is no %s", self.path, beside.name, extra={"event": "archive_unverified"}
            )
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{beside} is not readable text; download it again or remove it") from error
        listed = {match[2].strip(): match[1].lower() for line in lines if (match := _DIGEST.fullmatch(line.strip()))}
        expected = listed.get(self.path.name) or (next(iter(listed.values())) if len(listed) == 1 else None)
        if expected is None:
            raise ConfigurationError(f"{beside} names no SHA-256 of the file; download it again or remove it")
        digest = hashlib.sha256()
        try:
            while block := file.read(_BLOCK):
                digest.update(block)
                note()
        except OSError as error:
            raise self._damaged(error) from error
        if digest.hexdigest() != expected:
            raise ConfigurationError(f"{self.path} is not the file that {beside.name} is for; download both again")
        log.info("%s is the file that %s is for", self.path, beside.name, extra={"event": "archive_verified"})

    def _check_name(self, name: str) -> None:
        match = _NAME.match(name)
        if match is None:
            log.info(
                "The name %s does not say whose trades it holds; they are taken for %s's",
                name,
                self._symbol,
                extra={"event": "archive_name"},
            )
        elif match[1].upper() != self._symbol:
            raise ConfigurationError(
                f"{named('symbol')} is {self._symbol}, but {self.path} holds trades of {match[1]}; give the symbol of "
                "the archive, or another archive"
            )

    def _damaged(self, reason: object) -> ConfigurationError:
        return ConfigurationError(f"{self.path} is damaged ({reason}); nothing was published, download it again")


def _state(file: IO[bytes]) -> tuple[int, ...]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
