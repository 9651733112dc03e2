"""CPU time and memory of processes, as the Linux kernel counts them."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = 0.1  # seconds between two samples of a process's memory


def stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; none if there is no such process."""
    return _read(pid, "stat").rpartition(")")[2].split()


def cpu(pid: int) -> float:
    """Seconds of user and system time: all threads, including those that ended, and children that were waited for."""
    return sum(map(int, stat(pid)[11:15])) / _TICKS


class Thread(NamedTuple):
    """What one thread has taken so far."""

    name: str
    cpu: float
    """Seconds, by the scheduler's clock of nanoseconds."""
    switches: int
    """Context switches, by its own will and against it."""


def threads(pid: int) -> dict[int, Thread]:
    """The threads of a process that live now."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        ran, counts = _text(task / "schedstat").split(), re.findall(r"ctxt_switches:\s+(\d+)", _text(task / "status"))
        if ran and counts:
            found[int(task.name)] = Thread(_text(task / "comm").strip(), int(ran[0]) / 1e9, sum(map(int, counts)))
    return found


def memory(pid: int, field: str = "VmRSS") -> float:
    """MiB held now, at most so far (`VmHWM`), or with only its share of what processes have in common (`Pss`)."""
    found = re.search(
        rf"^{field}:\s+(\d+) kB", _read(pid, "smaps_rollup" if field == "Pss" else "status"), re.MULTILINE
    )
    return int(found[1]) / 1024 if found else 0.0


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for member in found:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            found += map(int, _text(task).split())
    return found


class PeakMemory:
    """The most memory any of some processes held, in MiB; 0 where the kernel does not say."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._pids: list[int] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def watch(self, pid: int) -> None:
        """Sample one more process, until it ends."""
        self._pids.append(pid)

    def close(self) -> None:
        """Stop sampling."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(_SAMPLE):
            self.peak = max([self.peak, *(memory(pid, "VmHWM") for pid in self._pids[-2:])])  # two run at once, at most


def _read(pid: int, file: str) -> str:
    return _text(Path(f"/proc/{pid}/{file}"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
