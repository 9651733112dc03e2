"""The least of a container runtime: a process in an image's file system, restricted as docker/k8s/job.yaml has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.tools.processes import limited, start
from tests.tools.waiting import wait_for

# In a mount and PID namespace of its own, as the PID 1 that it stays: a root that cannot be written, a /tmp that can,
# no right whatever, and no way to get one.
_ENTER = """
set -e
root=$1 user=$2 group=$3 directory=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
touch "$root/etc/hosts" "$root/etc/resolv.conf"
mount --bind /etc/hosts "$root/etc/hosts"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o size=16m,mode=1777 tmpfs "$root/tmp"
cd "$root/$directory"
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups \\
    --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""


class Container:
    """One run of an image's entry point and command, or of another command, with `variables` alone."""

    def __init__(
        self, root: Path, image: Mapping[str, Any], variables: Mapping[str, object], command: tuple[str, ...] = ()
    ) -> None:
        own = dict(pair.split("=", 1) for pair in image["Env"])
        user, _, group = image["User"].partition(":")
        self._errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - lives as long as the process
        unshare, shell = shutil.which("unshare"), shutil.which("sh")
        assert unshare
        assert shell
        self._runtime = start(
            [
                *(unshare, "--mount", "--pid", "--fork", shell, "-c", _ENTER, "enter"),
                *(str(root), user, group, image.get("WorkingDir", "/")),
                *image["Entrypoint"],
                *(command or image["Cmd"]),
            ],
            env=own | {name: str(value) for name, value in variables.items()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return os.pread(self._errors.fileno(), os.fstat(self._errors.fileno()).st_size, 0).decode(errors="replace")

    def output(self) -> str:
        """What it writes to standard output until it ends."""
        assert self._runtime.stdout
        with limited(self._runtime):
            found: bytes = self._runtime.stdout.read()
        return found.decode()

    def process(self) -> int:
        """The process id, outside, of what is PID 1 inside."""
        children = Path(f"/proc/{self._runtime.pid}/task/{self._runtime.pid}/children")
        return int(wait_for(children.read_text, "the process in the container", 10).split()[0])

    def status(self, key: str) -> str:
        """One line of /proc/<pid>/status."""
        lines = Path(f"/proc/{self.process()}/status").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))

    def signal(self, number: int) -> None:
        """Send a signal to PID 1 from outside, as a container runtime does."""
        os.kill(self.process(), number)

    def wait_for_line(self, text: str) -> None:
        """Wait until `text` stands in standard error."""
        wait_for(lambda: text in self.errors or self._runtime.poll() is not None, f"{text!r} in the log", 30)
        assert text in self.errors, self.errors

    def wait(self) -> int:
        """The exit code."""
        try:
            return self._runtime.wait(60)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after 60 s:\n{self.errors}") from error

    def close(self) -> None:
        """End it, if it still runs."""
        if self._runtime.poll() is None:
            self.signal(signal.SIGKILL)  # with PID 1 all the others go, and then the runtime
        with limited(self._runtime):
            self._runtime.communicate()
        self._errors.close()


@contextlib.contextmanager
def container(
    root: Path, image: Mapping[str, Any], variables: Mapping[str, object], *command: str
) -> Iterator[Container]:
    """A container that ends with the block."""
    made = Container(root, image, variables, command)
    try:
        yield made
    finally:
        made.close()
