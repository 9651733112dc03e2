"""Starts the loader with a wall clock that can be moved while it runs: `python shifted_clock.py FILE run ...`.

What is moved is Python's own wall clock: `time.time`, `time.time_ns`, and `now`, `utcnow` and `today` of `datetime`,
by as many seconds as stand in FILE, eight bytes of a double. That is all the wall clock that the loader,
websocket-client and logging look at. What C code asks the kernel for itself is not moved: librdkafka's clock, and the
checks of certificates. The kernel's clock cannot be moved for a single process.
"""

from __future__ import annotations

import datetime as datetime_module
import mmap
import struct
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path


def write_offset(path: Path, seconds: float) -> None:
    """Move the clock of who was started with that file."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.write(struct.pack("d", seconds))


def _move_clock(path: str) -> None:
    with Path(path).open("rb") as file:
        memory = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real_time, real_time_ns = time.time, time.time_ns

    def offset() -> float:
        return float(struct.unpack_from("d", memory)[0])

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Moved:
            return super().now(tz) + timedelta(seconds=offset())

        @classmethod
        def utcnow(cls) -> Moved:
            return cls.now(datetime_module.timezone.utc).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Moved:
            return cls.now()

    time.time = lambda: real_time() + offset()
    time.time_ns = lambda: real_time_ns() + int(offset() * 1_000_000_000)
    datetime_module.datetime = Moved  # type: ignore[misc]


if __name__ == "__main__":
    # This folder's modules must not stand before those that the loader imports.
    del sys.path[0]
    _move_clock(sys.argv.pop(1))
    from loader_ws_trades.cli.main import cli

    cli()
