"""What a broker is run from: the machine's Java, and Kafka's jars out of Maven Central."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
REPOSITORY = POM.parents[3]
OLDEST_JAVA = 17
FETCH_TIMEOUT = 600.0


class UnavailableError(Exception):
    """Apache Kafka cannot be run on this machine; the first line of the message says what is missing."""


@dataclass(frozen=True)
class Distribution:
    """A Java to run, and the folder of jars to run with it."""

    java: str
    libs: Path

    def command(self, main: str, *options: str) -> list[str]:
        """Return the command that runs the class `main`; its own arguments can be appended."""
        return [self.java, *options, "-XX:+UseSerialGC", "-cp", f"{self.libs}/*", main]


def obtain(environ: Mapping[str, str] = os.environ) -> Distribution:
    """Find Java and Kafka's jars, and fetch the jars when they are not cached.

    They are kept in ``.cache/kafka`` of the repository, or in the folder that `TEST_KAFKA_LIBS` names.

    Raises:
        UnavailableError: no suitable Java, or no jars and no way to fetch them.
    """
    path = environ.get("PATH", "")
    java = _java(path)
    libs = Path(
        environ.get("TEST_KAFKA_LIBS") or REPOSITORY / ".cache" / "kafka" / f"libs-{_kafka_version()}"
    ).absolute()
    if not libs.is_dir():
        _fetch(libs, path)
    return Distribution(java, libs)


def _java(path: str) -> str:
    java = shutil.which("java", path=path)
    if java is None:
        raise UnavailableError(f"Apache Kafka needs Java {OLDEST_JAVA} or newer: no `java` on the PATH")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    version = re.search(r'version "(\d+)', shown.stderr)
    if version is None or int(version[1]) < OLDEST_JAVA:
        found = version[1] if version else "one that does not run"
        raise UnavailableError(f"Apache Kafka needs Java {OLDEST_JAVA} or newer: `java` on the PATH is {found}")
    return java


def _kafka_version() -> str:
    version = re.search(r"<kafka\.version>(.+?)</", POM.read_text())
    assert version is not None
    return version[1]


def _fetch(libs: Path, path: str) -> None:
    maven = shutil.which("mvn", path=path)
    if maven is None:
        raise UnavailableError(
            f"Apache Kafka's jars are not in {libs}, and there is no `mvn` on the PATH to fetch them"
        )
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libs.parent, prefix="fetching-") as folder:
        fetched = Path(folder, "libs")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        maven_run = subprocess.run(
            [maven, "-q", "-B", "-f", str(POM), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_TIMEOUT,
            check=False,
        )
        if maven_run.returncode != 0:
            raise UnavailableError(f"Maven could not fetch Apache Kafka's jars\n{maven_run.stdout}")
        try:
            fetched.rename(libs)
        except OSError:
            # Another run was faster: its jars are the same.
            if not libs.is_dir():
                raise
