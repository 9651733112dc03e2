"""What a process uses, as the kernel counts it; Linux alone."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """MB of one process."""

    resident: float
    proportional: float | None
    """With its share alone of what processes have in common; none where the kernel does not tell."""


def cpu(pid: int) -> float:
    """Seconds of user and system time of all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS


def memory(pid: int) -> Memory:
    """What it holds now."""
    resident = _kib(Path(f"/proc/{pid}/status").read_text(), "VmRSS")
    try:
        proportional = _kib(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss")
    except OSError:
        proportional = None
    assert resident is not None, f"/proc/{pid}/status has no VmRSS"
    return Memory(resident, proportional)


def _kib(text: str, field: str) -> float | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else None
