"""Recorded frames read from a file, one a line, plain or gzip, whole or damaged."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.logs import Throttle

log = logging.getLogger(__name__)

MAX_FRAME = 1024 * 1024  # bytes of a line that is read; as much as a frame of the stream may have

_CHUNK = 64 * 1024  # bytes that are read from a file at once
_INFLATED = 256 * 1024  # bytes that are inflated at once

_GZIP = b"\x1f\x8b"
_MEMBER = b"\x1f\x8b\x08"


def frames(path: str | Path) -> Iterator[list[bytes]]:
    """The frames of a file, one a line, plain or gzip whatever its name; some hundreds at a time.

    Blank lines are passed over, and longer ones than `MAX_FRAME`, with a warning. Of a gzip file that ends abruptly, or
    is damaged, all whole lines that can be had come, with a warning.

    Raises:
        ConfigurationError: if the file cannot be opened.
        RunError: if it cannot be read on.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (closed below)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file name"
        raise ConfigurationError(f"{path} cannot be read ({reason}); give a readable file of frames") from error
    with file:
        lines = _Lines(str(path))
        try:
            first = file.read(_CHUNK)
            parts = _inflated(file, first) if first.startswith(_GZIP) else _plain(file, first)
            for part in parts:
                batch = lines.cut(part) if isinstance(part, str) else lines.take(part)
                if batch:
                    yield batch
        except OSError as error:
            raise RunError(f"{path} cannot be read on ({error.strerror}); see to the disk and run it again") from error
        if batch := lines.end():
            yield batch


class _Lines:
    """Cuts what is read into lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._too_long = False
        self._warnings = Throttle(log, per_kind=3)

    def take(self, data: bytes) -> list[bytes]:
        """The whole lines up to the end of `data`."""
        *lines, rest = (self._rest + data).split(b"\n")
        if lines and self._too_long:
            del lines[0]
            self._too_long = False
        if len(rest) > MAX_FRAME and not self._too_long:
            self._warn_too_long()
            self._too_long = True
        self._rest = b"" if self._too_long else rest
        if lines and max(map(len, lines)) > MAX_FRAME:
            self._warn_too_long()
            lines = [line for line in lines if len(line) <= MAX_FRAME]
        return list(filter(bytes.strip, lines))

    def cut(self, why: str) -> list[bytes]:
        """Data is missing here: the line that was begun is let go."""
        self._warnings.warn("recording_cut", f"{self._name} {why}; its whole frames are used")
        self._rest, self._too_long = b"", False
        return []

    def end(self) -> list[bytes]:
        """The last line, if it has no newline."""
        return self.take(b"\n")

    def _warn_too_long(self) -> None:
        self._warnings.warn(
            "recording_line_too_long", f"{self._name} has a line of more than {MAX_FRAME} bytes, which is passed over"
        )


def _plain(file: IO[bytes], data: bytes) -> Iterator[bytes]:
    while data:
        yield data
        data = file.read(_CHUNK)


def _inflated(file: IO[bytes], data: bytes) -> Iterator[bytes | str]:
    """What the gzip members hold; a text where something is missing says why."""
    inflate = zlib.decompressobj(wbits=31)
    while data:
        before = inflate.copy()
        try:
            yield inflate.decompress(data, _INFLATED)
        except zlib.error as error:
            yield _salvaged(before, data)
            yield f"is damaged ({error})"
            inflate, data = zlib.decompressobj(wbits=31), _next_member(file, data[1:])
            if not data:
                return
            continue
        if inflate.eof:
            # Zeros may pad the end.
            data = inflate.unused_data.lstrip(b"\0") or file.read(_CHUNK).lstrip(b"\0")
            if data:
                inflate = zlib.decompressobj(wbits=31)
        else:
            data = inflate.unconsumed_tail or file.read(_CHUNK)
    if not inflate.eof:
        yield inflate.flush()
        yield "ends abruptly"


def _salvaged(inflate: zlib._Decompress, data: bytes) -> bytes:
    """What comes out before the damage."""
    out = bytearray()
    try:
        for position in range(len(data)):
            out += inflate.decompress(data[position : position + 1], _INFLATED)
    except zlib.error:
        pass
    return bytes(out)


def _next_member(file: IO[bytes], data: bytes) -> bytes:
    """What is read from the next beginning of a gzip member on; empty at the end."""
    while (found := data.find(_MEMBER)) < 0:
        more = file.read(_CHUNK)
        if not more:
            return b""
        data = data[-len(_MEMBER) + 1 :] + more
    return data[found:]
