"""A minimal container runtime: a process in an image's file system, restricted as in docker/k8s/job.yaml."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tools.processes import Program
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


class Container(Program):
    """One run of an image's entry point and command, or of another command, with only `variables`."""

    def __init__(self, root: Path, image: Mapping[str, Any], variables: Mapping[str, object], *command: str) -> None:
        own = dict(pair.split("=", 1) for pair in image["Env"])
        user, _, group = image["User"].partition(":")
        unshare, shell = shutil.which("unshare"), shutil.which("sh")
        assert unshare
        assert shell
        super().__init__(
            [
                *(unshare, "--mount", "--pid", "--fork", shell, "-c", _ENTER, "enter"),
                *(str(root), user, group, image.get("WorkingDir", "/")),
                *image["Entrypoint"],
                *(command or image["Cmd"]),
            ],
            env=own | {name: str(value) for name, value in variables.items()},
        )

    def pid(self) -> int:
        """The process id, outside, of PID 1 inside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(wait_for(children.read_text, "the process in the container", 10).split()[0])

    def status(self, key: str) -> str:
        """One line of /proc/<pid>/status."""
        lines = Path(f"/proc/{self.pid()}/status").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))

    def signal(self, number: int) -> None:
        """Send a signal to PID 1 from outside, as a container runtime does."""
        os.kill(self.pid(), number)

    def kill(self) -> None:
        """Kill PID 1, with which all the others end, and then the runtime."""
        self.signal(signal.SIGKILL)
