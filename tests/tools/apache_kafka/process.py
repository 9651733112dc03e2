"""A child process that does not outlive us."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Its standard input is a pipe that nobody but our process holds open, so it ends when we do, however that happens.
_KILL_WHEN_ORPHANED = 'read -r _; kill -KILL "$1"'


class GuardedProcess:
    """A process that is killed when ours ends, even by SIGKILL.

    PR_SET_PDEATHSIG would also kill it when the *thread* that started it ends, and it needs a `preexec_fn`, which is
    not safe beside librdkafka's threads. So a shell stands guard.

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
        # Sessions of their own: a Ctrl-C on the terminal is for us alone to act on.
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _KILL_WHEN_ORPHANED, "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
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
        # The process id may be used anew from here on: the guard must not act on it.
        self._guard.kill()
        self._guard.communicate()
        return code
