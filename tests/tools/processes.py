"""Child processes: each leads a process group that ends as a whole, and every wait for one is bounded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.tools.waiting import wait_for


def start(command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
    """Start `command` as the leader of a group and a session: Ctrl-C on the terminal is for us to act on."""
    return subprocess.Popen(command, start_new_session=True, **how)


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process that `start` returned, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def limited(process: subprocess.Popen[Any], seconds: float = 120.0) -> Iterator[None]:
    """Bound a block that reads what `process` writes: after `seconds` its whole group is killed and the block fails."""
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if late.is_set():
            raise AssertionError(f"not within {seconds:g} s: the output or the end of {process.args!r}")


_P = TypeVar("_P", bound="Program")


class Program:
    """A process whose standard output is a pipe and whose standard error is kept, unless `stderr` replaces it."""

    def __init__(self, command: Sequence[str], *, stderr: int | None = None, **how: Any) -> None:
        self._errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - lives as long as the process
        self.process = start(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors if stderr is None else stderr,
            **how,
        )

    def __enter__(self: _P) -> _P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it still runs."""
        self.end()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return os.pread(self._errors.fileno(), os.fstat(self._errors.fileno()).st_size, 0).decode(errors="replace")

    def output(self) -> str:
        """What it writes to standard output until it ends."""
        assert self.process.stdout is not None
        with limited(self.process):
            found: bytes = self.process.stdout.read()
        return found.decode()

    def lines(self, count: int = 1) -> list[str]:
        """The next lines of its standard output."""
        assert self.process.stdout is not None
        with limited(self.process):
            found = [self.process.stdout.readline().decode() for _ in range(count)]
        assert found[-1], f"it ended too soon:\n{self.errors}"
        return found

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, after at most `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {seconds:g} s:\n{self.errors}") from error

    def wait_for_line(self, text: str, seconds: float = 60) -> None:
        """Wait until standard error contains `text`."""
        try:
            wait_for(lambda: text in self.errors or self.process.poll() is not None, f"{text!r} in the log", seconds)
        finally:
            assert text in self.errors, self.errors

    def end(self) -> str:
        """Kill it if it still runs, and return the rest of its standard output."""
        if self.process.poll() is None:
            self.kill()
        with limited(self.process):
            output, _ = self.process.communicate()
        return (output or b"").decode(errors="replace")

    def kill(self) -> None:
        """Kill it and what it has started."""
        kill(self.process)


# Only our process holds its standard input open, so it ends when we do, however that happens.
_KILL_WHEN_ORPHANED = 'read -r _; kill -KILL "$1"'


class GuardedProcess:
    """A process that is killed when ours ends, even by SIGKILL.

    PR_SET_PDEATHSIG would also kill it when the *thread* that started it ends, and it needs a `preexec_fn`, which is
    unsafe next to librdkafka's threads. So a shell stands guard.

    Args:
        command: what to run.
        output: the file that its standard output and its standard error are appended to.
        environment: all its variables; by default ours.
        folder: its working directory; by default ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        with output.open("ab") as log:
            self._process = start(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._guard = start(
            ["/bin/sh", "-c", _KILL_WHEN_ORPHANED, "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended; a frozen one has not."""
        try:
            self.wait(0)
        except subprocess.TimeoutExpired:
            return True
        return False

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended gets none."""
        self._process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        code = self._process.wait(timeout)
        # From here on the process id may be reused: the guard must not act on it.
        self._guard.kill()
        self._guard.communicate()
        return code
