"""What must be true of the image; each point returns what it saw, or raises an AssertionError."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from loader_ws_trades import __version__
from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools.image import building
from tests.tools.image.container import Container
from tests.tools.loader import Workflow, check_events, workflow_on
from tests.tools.waiting import wait_for

_TOOLS = {"gcc", "g++", "cc", "c++", "clang", "ld", "as", "make", "cargo", "rustc", "pip", "pip3", "git"}
_METRICS_PORT = 9464  # as the image exposes it
_LABELS = {"title", "description", "licenses", "name", "source", "version", "revision"}  # `name` is the base's


@dataclass(frozen=True)
class Built:
    """The image, and the base that it was built on."""

    root: Path
    base: Path
    configuration: dict[str, Any]


def says_what_it_is(built: Built) -> str:
    """Labels, a user by number, an entry point that is not a shell."""
    found = built.configuration
    labels = {name.rpartition(".")[2]: value for name, value in found["Labels"].items() if ".opencontainers." in name}
    assert set(labels) == _LABELS, labels
    assert (labels["version"], labels["revision"]) == (__version__, "image-test"), labels
    assert labels["name"] == building.base().name, labels
    user, _, group = found["User"].partition(":")
    assert int(user) > 0, found["User"]
    assert int(group) > 0, found["User"]
    assert (found["Entrypoint"], found["Cmd"]) == (["loader-ws-trades"], ["run"])
    return f"user {found['User']}, version {labels['version']}, {found['Entrypoint']} {found['Cmd']}"


def has_the_python_of_the_dockerfile(built: Built) -> str:
    """The minor version that its base is named for."""
    [library] = (built.root / "opt/loader/lib").iterdir()
    assert library.name == f"python{building.base().python}", library.name
    return library.name


def has_a_bill_of_materials(built: Built) -> str:
    """`make sbom` names each package that dpkg and Python themselves find there, with its version."""
    tar = ["tar", "--create", "--directory", str(built.root), "var/lib/dpkg", "opt/loader", "usr/lib/python3"]
    with subprocess.Popen(tar, stdout=subprocess.PIPE) as archive:
        bill = subprocess.run(
            [sys.executable, "-m", "tests.tools.sbom"], stdin=archive.stdout, capture_output=True, text=True, check=True
        ).stdout
    JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill)
    named = {(each["name"], each.get("version")) for each in json.loads(bill)["components"]}
    query = [
        "dpkg-query",
        "--admindir",
        str(built.root / "var/lib/dpkg"),
        "--show",
        "--showformat=${Package}\t${Version}\n",
    ]
    debian = {tuple(line.split("\t")) for line in building.step(*query).splitlines()}
    [packages] = (built.root / "opt/loader/lib").glob("python3*/site-packages")
    python = {(each.metadata["Name"], each.version) for each in distributions(path=[str(packages)])}
    assert ("loader-ws-trades", __version__) in python
    assert len(debian) > 50
    assert not (debian | python) - named, (debian | python) - named
    return f"{len(debian)} packages of Debian, {len(python)} of Python, {len(named)} components"


def leaves_nothing_of_its_build(built: Built) -> str:
    """No compiler, no pip, no cache; all that is new is the loader and bytecode."""
    tools = {path.name for folder in ("bin", "sbin", "local/bin") for path in (built.root / "usr" / folder).glob("*")}
    assert not tools & _TOOLS, tools & _TOOLS
    for place in ("lib", "local/lib"):
        for name in ("pip", "ensurepip"):
            found = list((built.root / "usr" / place).glob(f"python3*/*-packages/{name}/__init__.py"))
            assert not found, found
    new = _files(built.root) - _files(built.base)
    strange = {path for path in new if not path.startswith("opt/loader/") and "/__pycache__/" not in path}
    # Where this machine's settings for pip were mounted, an empty file stays.
    strange = {path for path in strange if (built.root / path).stat().st_size}
    assert not strange, sorted(strange)[:10]
    assert not [path for path in new if "/pip/" in path or "/setuptools/" in path]
    return f"{len(new)} new files, none outside /opt/loader but bytecode"


def _files(root: Path) -> set[str]:
    skipped = {root / name for name in ("proc", "sys", "dev", "run")}
    found = (path for place in root.iterdir() if place not in skipped for path in [place, *place.rglob("*")])
    return {str(path.relative_to(root)) for path in found if path.is_file() and not path.is_symlink()}


def is_compiled(built: Built) -> str:
    """Bytecode beside each module, which is never compared with its source."""
    modules = list((built.root / "opt/loader").rglob("*.py"))
    assert modules
    for module in modules:
        [code] = (module.parent / "__pycache__").glob(f"{module.stem}.cpython-*.pyc")
        assert code.read_bytes()[4:8] == b"\x01\x00\x00\x00", code  # PEP 552: by hash, unchecked
    return f"{len(modules)} modules"


def starts_fast(built: Built) -> str:
    """The time from nothing to a version, the best of three."""
    seconds = []
    for _ in range(3):
        begin = time.monotonic()
        with Container(built.root, built.configuration, {}, "--version") as made:
            assert __version__ in made.output()
            assert made.wait() == 0, made.errors
        seconds.append(time.monotonic() - begin)
    return f"{min(seconds):.2f} s from start to end of --version"


def needs_its_variables(built: Built) -> str:
    """Without variables it ends with 2 and says what to set."""
    with Container(built.root, built.configuration, {}) as made:
        assert made.wait() == 2, made.errors
        for option in OPTIONS:
            assert option.variable in made.errors or not option.required, made.errors
        return made.errors.splitlines()[0][:100]


def runs_restricted(built: Built) -> str:
    """Its default command, with only variables: trades arrive, a stop command ends it with 0."""
    with _workflow() as workflow, Container(built.root, built.configuration, workflow.variables) as made:
        made.wait_for_line("Connected")
        rights = {key: made.status(key) for key in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs")}
        assert rights["Uid"].split() == rights["Gid"].split() == ["10001"] * 4, rights
        assert (int(rights["CapEff"], 16), int(rights["CapBnd"], 16)) == (0, 0), rights
        assert (rights["Groups"], rights["NoNewPrivs"]) == ("", "1"), rights
        assert _cannot_write(made.pid())
        wait_for(lambda: workflow.last_id() >= 0, "a trade on the topic")
        workflow.stop()
        assert made.wait() == 0, made.errors
        check_events(workflow.events(), workflow, "interrupted")
        return f"{_records_in_order(workflow)} trades, exit code 0 after the stop command"


def _cannot_write(process: int) -> bool:
    mounts = Path(f"/proc/{process}/mountinfo").read_text("utf-8").splitlines()
    [root] = [line.split() for line in mounts if line.split()[4] == "/"]
    return "ro" in root[5].split(",")


def answers_probe_and_prometheus(built: Built) -> str:
    """At the port that the manifests name, from the beginning."""
    variables = {"METRICS_PORT": _METRICS_PORT}
    with _workflow() as workflow, Container(built.root, built.configuration, workflow.variables | variables) as made:
        made.wait_for_line("Connected")
        assert _get("/healthz") == "ok\n"
        wait_for(
            lambda: re.search(r"^loader_ws_trades_delivered_total.* [1-9]", _get("/metrics"), re.M),
            "trades counted",
        )
        workflow.stop()
        assert made.wait() == 0, made.errors
        return f"/healthz and /metrics at {_METRICS_PORT}"


def _get(path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{_METRICS_PORT}{path}", timeout=10) as answer:
        found: bytes = answer.read()
    return found.decode()


def obeys_sigterm_as_pid_1(built: Built) -> str:
    """PID 1 has no default handler: it must have its own, deliver the tail and end with 143."""
    with _workflow() as workflow, Container(built.root, built.configuration, workflow.variables) as made:
        made.wait_for_line("Connected")
        assert made.status("NSpid").split()[-1] == "1", made.status("NSpid")
        wait_for(lambda: workflow.last_id() >= 0, "a trade on the topic")
        begin = time.monotonic()
        made.signal(signal.SIGTERM)
        assert made.wait() == 143, made.errors
        seconds = time.monotonic() - begin
        check_events(workflow.events(), workflow, "interrupted")
        return f"{_records_in_order(workflow)} trades, exit code 143 {seconds:.2f} s after SIGTERM"


@contextmanager
def _workflow() -> Iterator[Workflow]:
    with (
        EmbeddedBroker() as broker,
        Exchange([Market.generated("POLUSDT", rate=500)]) as exchange,
        workflow_on(broker.bootstrap_servers, broker.create_topics) as workflow,
    ):
        workflow.variables |= {"BINANCE_WS_URL": exchange.ws_url, "BINANCE_REST_URL": exchange.rest_url}
        yield workflow


def _records_in_order(workflow: Workflow) -> int:
    ids = [json.loads(record.value() or b"")["trade_id"] for record in workflow.records()]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert workflow.events()[-1]["records_written"] == len(ids)
    return len(ids)


POINTS = (
    says_what_it_is,
    has_the_python_of_the_dockerfile,
    has_a_bill_of_materials,
    leaves_nothing_of_its_build,
    is_compiled,
    starts_fast,
    needs_its_variables,
    runs_restricted,
    answers_probe_and_prometheus,
    obeys_sigterm_as_pid_1,
)
