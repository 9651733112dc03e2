"""Who runs: the loader, and what people write in its place; each as a command with an environment."""

from __future__ import annotations

import subprocess
import sys
import uuid
import venv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tests.tools.bench.process import ROOT, RunError

LOADER = "loader"
CACHE = ROOT / ".cache" / "bench"
_INSTALL_LIMIT = 600.0  # seconds


class Run(NamedTuple):
    """One run of one contender."""

    trades: int
    stream: str
    ws_url: str
    rest_url: str
    servers: str
    topic: str
    control_topic: str
    events_topic: str
    ca: Path | None
    stamps: Path | None = None
    cut_stamps: Path | None = None
    """As `stamps`, where connections are cut seconds apart in place of hours."""
    stages: Path | None = None
    settings: Mapping[str, str] = MappingProxyType({})
    """More of the loader's variables."""
    metrics_port: int | None = None


class Contender(NamedTuple):
    """A program that takes trades from the exchange to Kafka."""

    name: str
    share: float
    """Trades of a saturated run, as a share of the loader's, so that all run for some seconds."""
    module: str = ""
    packages: tuple[str, ...] = ()
    """What is installed for it; none: it runs with what the loader needs."""
    tree: Path = ROOT
    """The source tree of a loader."""

    def prepare(self) -> None:
        """Install its packages into a virtual environment of its own, once.

        Raises:
            RunError: if that fails.
        """
        folder = CACHE / self.module
        ready = folder / "ready"
        wanted = "\n".join(self.packages)
        if not self.packages or (ready.exists() and ready.read_text() == wanted):
            return
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            venv.create(folder, with_pip=True, clear=True)
            subprocess.run([*pip, *self.packages], timeout=_INSTALL_LIMIT, check=True)
        except subprocess.SubprocessError as error:
            raise RunError(
                f"{self.name}: {', '.join(self.packages)} could not be installed; ALONE=1 leaves it out"
            ) from error
        ready.write_text(wanted)

    @property
    def is_loader(self) -> bool:
        """Whether it is a loader, this one or one of another source tree."""
        return not self.module

    @property
    def is_fast(self) -> bool:
        """Whether several like it can run on one machine at 2,000 trades/s each."""
        return self.share == 1

    @property
    def python(self) -> str:
        return str(CACHE / self.module / "bin" / "python") if self.packages else sys.executable

    def versions(self, *packages: str) -> dict[str, str]:
        """The versions of packages that it runs with."""
        code = "import sys,importlib.metadata as m\nfor p in sys.argv[1:]: print(m.version(p))"
        command = [self.python, "-c", code, *packages]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return dict(zip(packages, shown.stdout.split(), strict=True))

    def command(self, run: Run) -> list[str]:
        if not self.is_loader:
            arguments = ["--url", f"{run.ws_url}/{run.stream}", "--servers", run.servers, "--topic", run.topic]
            arguments += ["--count", str(run.trades), *(("--stamps", str(run.stamps)) if run.stamps else ())]
            return [self.python, "-m", f"tests.tools.bench.baselines.{self.module}", *arguments]
        for mode, path in (("stamps", run.stamps), ("cut-stamps", run.cut_stamps), ("stages", run.stages)):
            if path:
                return [self.python, "-m", self._launcher, mode, str(path), "run"]
        return [self.python, "-m", "loader_ws_trades", "run"]

    @property
    def _launcher(self) -> str:
        """Each tree's own, as it wraps the tree's functions; version 1.0 has it in another package."""
        return "tests.bench.launcher" if (self.tree / "tests" / "bench").exists() else "tests.tools.bench.launcher"

    def environment(self, run: Run) -> dict[str, str]:
        found = {"SSL_CERT_FILE": str(run.ca)} if run.ca else {}
        if not self.is_loader:
            return found
        found["PYTHONPATH"] = str(self.tree)
        if run.metrics_port:
            found["METRICS_PORT"] = str(run.metrics_port)
        return found | {
            "QUEUE_ID": f"bench-{uuid.uuid4().hex[:8]}",
            "SYMBOL": run.stream.partition("@")[0].upper(),
            "TYPE": "ws_trade",
            "KAFKA_TOPIC": run.topic,
            "TELEMETRY_PRODUCER_ID": "bench",
            "KAFKA_BOOTSTRAP_SERVERS": run.servers,
            "QUEUE_CONTROL_TOPIC": run.control_topic,
            "QUEUE_EVENTS_TOPIC": run.events_topic,
            "BINANCE_WS_URL": run.ws_url,
            "BINANCE_REST_URL": run.rest_url,
            "MAX_RECORDS": str(run.trades),
            **run.settings,
        }


def before(tree: Path) -> Contender:
    """The loader of another source tree, to measure a change in one run."""
    return Contender(f"loader in {tree.name}", 1.0, tree=tree)


CONTENDERS = (
    Contender(LOADER, 1.0),
    Contender("picows", 1.0, "picows_script", ("picows", "uvloop", "msgspec", "confluent-kafka")),
    Contender("asyncio", 0.15, "asyncio_loop", ("aiokafka", "websockets")),
    Contender("websocket-client", 0.1, "threaded_client"),
    Contender("Quix Streams", 0.2, "quix_source", ("quixstreams", "websocket-client")),
)
