"""A measured process: its CPU time with all threads and children, its memory, and when it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.tools import usage
from tests.tools.processes import GuardedProcess

ROOT = Path(__file__).parents[3]
_GLANCE = 0.005


class RunError(Exception):
    """A process of the benchmark did not do what it should; the message holds the end of its log."""


class Measured:
    """A command that runs with nothing but `environment`; it dies with us, and its output is kept for errors."""

    def __init__(self, command: Iterable[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.began = time.time()
        self.peak = 0.0  # MiB
        variables = {"PATH": os.environ["PATH"], "HOME": tempfile.gettempdir(), "PYTHONPATH": str(ROOT)}
        merged = {**variables, **environment}
        prefix = ["env", "-i", "-C", tempfile.gettempdir(), *(f"{name}={value}" for name, value in merged.items())]
        self._process = GuardedProcess([*prefix, *command], log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Seconds of user and system time so far: all threads, all children."""
        return sum(usage.cpu(pid) for pid in usage.family(self.pid))

    def memory(self, field: str = "VmRSS") -> float:
        """MiB of the process and its children now, or at most so far with `VmHWM`."""
        return sum(usage.memory(pid, field) for pid in usage.family(self.pid))

    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def await_end(self, seconds: float, codes: Iterable[int] = (0,)) -> float:
        """Wait for the end; the CPU time that it had taken by then.

        Raises:
            RunError: if it does not end in time, or with a code that is not one of `codes`.
        """
        deadline = time.monotonic() + seconds
        while not self._is_over():
            self.peak = max(self.peak, self.memory("VmHWM"))
            if time.monotonic() > deadline:
                raise RunError(f"{self.log.name} still runs after {seconds:g} s\n{self.text()[-3000:]}")
            time.sleep(4 * _GLANCE)
        spent = usage.cpu(self.pid)  # a zombie's, with that of the children it waited for
        code = self._process.wait(5)
        if code not in codes:
            raise RunError(f"{self.log.name} ended with exit code {code}\n{self.text()[-3000:]}")
        return spent

    def await_text(self, wanted: str, seconds: float) -> str:
        """Wait until it has written a line with `wanted`; that line.

        Raises:
            RunError: if it ends before, or does not write it in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            for line in self.text().splitlines(keepends=True):
                if wanted in line and line.endswith("\n"):
                    return line
            if self._is_over() or time.monotonic() > deadline:
                raise RunError(f"{self.log.name} did not write {wanted!r}\n{self.text()[-3000:]}")
            time.sleep(_GLANCE)

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self) -> None:
        """End it, if it still runs."""
        children = usage.family(self.pid)[1:] if not self._is_over() else []
        if self._process.running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(5)
        for pid in children:
            # Children of a killed process; `_family` found them as ours.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_over(self) -> bool:
        fields = usage.stat(self.pid)
        return not fields or fields[0] == "Z"
