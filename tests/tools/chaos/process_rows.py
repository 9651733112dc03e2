"""Rows about the loader's own process: killed, stopped, commanded, doubled, and with a clock that jumps."""

from __future__ import annotations

import json
import random
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from loader_ws_trades.sandbox import Cut, Malformed, Market, Skip
from tests.tools.apache_kafka.cluster import free_port
from tests.tools.chaos import refused
from tests.tools.chaos.outage_rows import broker_down
from tests.tools.chaos.shifted_clock import write_offset
from tests.tools.chaos.stage import Scenario, Stage
from tests.tools.loader import Loader
from tests.tools.scrape import ask
from tests.tools.unread import WAYS, unread
from tests.tools.waiting import wait_for

HOUR = 3600.0
LAUNCHER = Path(__file__).with_name("shifted_clock.py")


def rejected_at_start(stage: Stage) -> None:
    """Whatever a cluster can reject, with the default grace; `python -m tests.tools.chaos.refused` shows each."""
    line = stage.line()
    for outcome in refused.outcomes(stage.cluster):
        line.exit_codes.append(outcome.exit_code)
        line.detect = max(line.detect or 0.0, outcome.seconds if outcome.exit_code == 2 else 0.0)
        if outcome.wrong:
            line.broken.append(f"{outcome.case.name}: {outcome.wrong}")
    line.exit_codes.sort()
    if line.detect is None or line.detect > 30:
        line.broken.append(f"{line.detect} s to detect, where the limit is 30")


def killed(
    stage: Stage, lives: int = 20, markets: Callable[[Stage], Sequence[Market]] = lambda _: (), **settings: str
) -> None:
    """Kill -9 at random moments: while it loads, or whatever it does by then, the start included."""
    chance = random.Random(stage.seed)
    with stage.trial(markets=markets(stage)) as trial:
        for number in range(lives):
            loader = trial.start(**settings)
            if number == 0:
                # Each pair must have come to something: an empty topic obliges nobody.
                trial.let_load(chance.randrange(1, 1000), 180)
            elif chance.random() < 0.5:
                goal = trial.loaded + chance.randrange(1, 2000)
                wait_for(lambda: trial.loaded > goal, "trades on the topic", 60)  # noqa: B023
            else:
                trial.let_pass(chance.uniform(0.0, 3.0))
            loader.process.kill()
            loader.wait()
        trial.healed_now()
        trial.start(**settings)
        trial.let_load(1000, 180)  # the lives before may have used up the minute's request weight
        trial.stop()


def terminated(stage: Stage) -> None:
    with stage.trial(rate=5000) as trial:
        loader = trial.start(LOG_FORMAT="json")
        trial.let_load(10_000)
        trial.ends()
        loader.process.terminate()
        assert loader.wait(25) == 143, trial.last_words()
        words = json.loads(trial.last_words())
        assert words["delivered"] == words["received"] - words["duplicates"], f"not drained: {words}"
        assert trial.workflow.events()[-1]["status"] == "interrupted"
        trial.start()
        trial.let_load(5000)
        trial.stop()


def terminated_without_a_broker(stage: Stage) -> None:
    with stage.trial() as trial:
        loader = trial.start()
        trial.let_load(2000)
        with trial.fault(), broker_down(stage.cluster):
            trial.let_pass(3)
            loader.process.terminate()
            assert loader.wait(25) == 1, "20 s is the limit"
        found = re.search(r"not delivered: trade ids (\d+)-(\d+)", trial.last_words())
        assert found, f"the ids are not named: {trial.last_words()}"
        first, last = map(int, found.groups())
        wait_for(lambda: trial.on_topic(first - 1), f"the record of {first - 1}, which is not named")
        assert last - first > 3000, f"{first}-{last}"
        trial.start()
        trial.let_load(3000)
        trial.stop()


# Each of the loader's threads has something to log.
_LOGGED = (Skip(20, after=500), Malformed(10, after=1000), Cut(after=1500))


def log_unread(stage: Stage, way: str) -> None:
    """A loader that is ended by a signal, and one by a stop command."""
    with unread(way) as loaders, stage.trial(faults=_LOGGED) as trial:
        trial.workflow.loader_class = loaders
        first = trial.start()
        trial.let_load(3000)
        first.process.terminate()
        assert first.wait(25) == 143, f"exit code {first.process.returncode}"
        last = trial.workflow.events()[-1]
        assert (last["status"], last["records_written"]) == ("interrupted", len(trial.workflow.records())), last
        trial.start()
        trial.let_load(1000)
        trial.stop()


def two_at_once(stage: Stage) -> None:
    """Nothing fences the older one: duplicates are expected, and `audit` counts as many as the witness."""
    with stage.trial() as trial:
        trial.expected = {"duplicated", "out_of_order"}
        for _ in range(2):
            trial.start()
            trial.let_load(3000)
        trial.let_load(5000)
        trial.stop()
        audit = trial.workflow.start("audit", "--json")
        found = json.loads(audit.output())
        assert audit.wait() == 1, audit.errors
    counts = trial.outcome.counts
    if not (counts and counts.duplicated):
        trial.outcome.broken.append("no duplicates were seen: the reader, or the row, cannot show any")
    elif found["duplicates"]["records"] != counts.duplicated:
        trial.outcome.broken.append(f"audit found other duplicates: {found['duplicates']['records']}")


def two_at_once_fenced(stage: Stage) -> None:
    with stage.trial() as trial:
        older = trial.start(DELIVERY="transactional")
        trial.let_load(3000)
        with trial.fault():
            trial.start(DELIVERY="transactional")
            assert older.wait(60) == 1, trial.last_words()
        assert "Fenced off by a newer loader" in older.errors, older.errors
        trial.let_load(5000)
        trial.stop()


def stopped_before_the_start(stage: Stage) -> None:
    with stage.trial() as trial:
        trial.workflow.stop()
        loader = trial.start()
        assert loader.wait(30) == 0, trial.last_words()
        assert "sent before this start" in loader.errors, trial.last_words()
        trial.start(CONTROL_FROM="now")
        trial.let_load(500)
        trial.stop()


NO_COMMANDS: dict[str, object] = {
    "tombstone": None,
    "no JSON": b"{stop",
    "no UTF-8": b"\xff\xfe",
    "no object": ["stop"],
    "wrong types": {"command": 7, "queue_id": []},
    "without an id": {"command": "stop"},
    "unknown command": {"command": "dance", "queue_id": "*"},
    "too deep": b"[" * 100_000,
    "1 MB long": {"command": "stop", "queue_id": "x" * 1_000_000},
}


def commanded(stage: Stage) -> None:
    """Commands that are not for us change nothing; then two stops, of which one is enough."""
    with stage.trial() as trial:
        loader = trial.start()
        trial.let_load(500)
        for value in NO_COMMANDS.values():
            trial.workflow.command(value)
        trial.workflow.command({"command": "stop", "queue_id": "another"})
        trial.let_load(2000)
        warnings = [line for line in loader.errors.splitlines() if "WARNING" in line or "ERROR" in line]
        assert 0 < len(warnings) <= len(NO_COMMANDS), warnings
        assert not any(len(line) > 2000 for line in warnings), "a megabyte in the log"
        trial.workflow.stop()
        trial.stop()


def clock_jumps(stage: Stage) -> None:
    """The clock jumps an hour ahead, back, and an hour behind; neither the connection nor the order may change."""
    with tempfile.TemporaryDirectory() as folder, stage.trial() as trial:
        offset = Path(folder) / "offset"
        write_offset(offset, 0.0)

        class ClockedLoader(Loader):
            launcher = (str(LAUNCHER), str(offset))

        trial.workflow.loader_class = ClockedLoader
        trial.behind = HOUR
        trial.start()
        trial.let_load(1000)
        for seconds in (HOUR, 0.0, -HOUR):
            write_offset(offset, seconds)
            trial.let_load(4000)
        trial.stop()
        assert trial.exchange.counters.connections == 1, "it reconnected"
        moments = [event["timestamp"] for event in trial.workflow.events()]
        assert max(moments) - min(moments) > 1.5 * HOUR, "the loader's clock did not jump"


IDLE_CLIENTS, PROBES = 24, 12


def idle_clients(stage: Stage) -> None:
    """Probe a loader while connected clients send nothing or half a request; those that are cut off reconnect."""
    with stage.trial() as trial, ExitStack() as stack:
        port = free_port()
        trial.start(METRICS_PORT=port)
        trial.let_load(500)
        idle: list[socket.socket] = []
        with trial.fault():
            for number in range(PROBES):
                idle = [client for client in idle if not _is_cut(client)]
                while len(idle) < IDLE_CLIENTS:
                    idle.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)))
                    if len(idle) % 2:
                        idle[-1].sendall(b"GET /metrics HTTP/1.1\r\nX-Half: ")
                try:
                    answer = ask(port, "/healthz")
                except OSError as error:
                    raise AssertionError(f"probe {number + 1} of {PROBES} was not answered: {error}") from error
                assert (answer.status, answer.text) == (200, "ok\n"), answer
        trial.let_load(500)
        trial.stop()


def _is_cut(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


SCENARIOS = [
    Scenario(16, "rejected starts", rejected_at_start),
    Scenario(19, "killed 20 times", killed),
    Scenario(19, "killed 20 times, transactional", partial(killed, DELIVERY="transactional")),
    Scenario(20, "SIGTERM under load", terminated),
    Scenario(20, "SIGTERM with the broker gone", terminated_without_a_broker),
    *(
        Scenario(20, f"standard error is {way}", partial(log_unread, way=way), alone=False, anywhere=True)
        for way in WAYS
    ),
    Scenario(21, "two loaders, idempotent: must double", two_at_once),
    Scenario(21, "two loaders, transactional", two_at_once_fenced),
    Scenario(22, "stop before the start", stopped_before_the_start, alone=False, anywhere=True),
    Scenario(22, "commands for others, then two stops", commanded, alone=False, anywhere=True),
    Scenario(23, "wall clock jumps by an hour", clock_jumps, alone=False, anywhere=True),
    Scenario(23, f"{IDLE_CLIENTS} idle clients on the metrics port", idle_clients, alone=False, anywhere=True),
]
