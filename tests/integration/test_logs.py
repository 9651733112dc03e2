"""Log lines: the same facts in text and JSON, who wrote them, no secrets, no floods."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loader_ws_trades import logs
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.logs import LOGGER, Throttle
from loader_ws_trades.sandbox import Cut, Exchange, Market, Skip
from tests.tools.loader import Loader, Workflow, urls
from tests.tools.unread import WAYS, redirected, unread
from tests.tools.waiting import wait_for
from tests.unit.clock import FakeClock
from tests.unit.test_config import REQUIRED

GIVEN = REQUIRED | {"kafka_user_producer": "loader", "kafka_password_producer": "hush-hush"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
TEXT_LINE = re.compile(rf"({TIME}) (\w+) +(.*?)(?:  \[(.*)\])?")
COUNTS = ["received", "delivered", "duplicates", "refused", "repaired", "missing"]


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], level, LOGGER.propagate = before
    LOGGER.setLevel(level)


def settings(**given: str | None) -> Settings:
    return load({**GIVEN, **given}, needed=())


def written(capsys: pytest.CaptureFixture[str], **given: str | None) -> str:
    """What is written of a warning with a secret and a trace."""
    logs.configure(settings(**given))
    log = logging.getLogger("loader_ws_trades.tests")
    error = ValueError("hush-hush is wrong")
    log.warning("50 %% of %s", "hush-hush", exc_info=error, extra={"delivered": 7})
    return capsys.readouterr().err


def test_text_lines_end_with_who_wrote_them(capsys: pytest.CaptureFixture[str]) -> None:
    first, *trace = written(capsys).splitlines()
    found = TEXT_LINE.fullmatch(first)
    assert found
    assert found.groups()[1:] == ("WARNING", "50 % of ***", "wf-1 BTCUSDT loader-1")
    assert trace[-1] == "  ValueError: *** is wrong"


def test_json_lines_have_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    [line] = written(capsys, log_format="json").splitlines()
    found = json.loads(line)
    assert re.fullmatch(TIME, found.pop("time"))
    assert found.pop("exc_info").endswith("ValueError: *** is wrong")
    assert found == {
        "level": "WARNING",
        "logger": "loader_ws_trades.tests",
        "message": "50 % of ***",
        "queue_id": "wf-1",
        "symbol": "BTCUSDT",
        "producer": "loader-1",
        "delivered": 7,
        "event": "other",
    }


def test_foreign_text_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings())
    error = ValueError("it\n2024-08-01T00:00:00.000Z INFO forged\x1b[2J")
    logging.getLogger("loader_ws_trades.tests").warning("%s", error, exc_info=error)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(r"WARNING it\n2024-08-01T00:00:00.000Z INFO forged\x1b[2J  [wf-1 BTCUSDT loader-1]")
    assert all(line.startswith("  ") for line in lines[1:])
    assert lines[-1] == r"  2024-08-01T00:00:00.000Z INFO forged\x1b[2J"


# -- nobody reads, or nothing can be written


@pytest.fixture(params=WAYS)
def deaf(request: pytest.FixtureRequest) -> Iterator[type[Loader]]:
    """Loaders whose standard error takes nothing."""
    with unread(request.param) as loaders:
        yield loaders


def test_unread_standard_error_does_not_affect_delivery_or_exit_code(workflow: Workflow, deaf: type[Loader]) -> None:
    workflow.loader_class = deaf
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = workflow.run(LOG_LEVEL="debug", **urls(exchange))
        wait_for(lambda: len(workflow.records()) > 500, "records")
        loader.process.terminate()
        assert loader.wait() == 143
    ids = workflow.consecutive_ids()
    last = workflow.events()[-1]
    assert (last["status"], last["records_written"]) == ("interrupted", len(ids))


@pytest.mark.parametrize("command", ["run", "audit"])
def test_unread_usage_error_keeps_its_exit_code(deaf: type[Loader], command: str) -> None:
    loader = deaf(command, "--no-such-flag")
    assert loader.wait() == 2
    loader.close()


def test_closed_standard_output_sends_records_into_no_other_file(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = redirected("1>&-")(
            *("run", "--stdout", "--symbol", "POLUSDT", "--duration", "3s", "--record", str(file)),
            **urls(exchange),
        )
        assert loader.wait() == 2
    assert "Cannot write to standard output" in loader.errors
    assert "Traceback" not in loader.errors
    loader.close()
    assert not file.exists() or b'"trade_id"' not in file.read_bytes()


@pytest.mark.parametrize("to", ["1>&-", "0<&- 1>&- 2>&-"])
def test_a_recording_holds_frames_alone_whatever_is_closed(to: str, workflow: Workflow, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    workflow.loader_class = redirected(to)
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        assert (
            workflow.run("--max-records", "300", "--record", str(file), LOG_LEVEL="debug", **urls(exchange)).wait() == 0
        )
    frames = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(frames) >= 300
    assert {frame["e"] for frame in frames} == {"trade"}


# -- the story of a run


def story(workflow: Workflow, log_format: str) -> list[str]:
    """What a loader writes that starts, streams, is cut off, repairs, and is stopped."""
    with Exchange([Market.generated("POLUSDT", rate=1000)]) as exchange:
        loader = workflow.run(LOG_FORMAT=log_format, RESUME="off", CONTROL_FROM="now", **urls(exchange))
        before = len(workflow.records())
        wait_for(lambda: len(workflow.records()) > before, "records")
        exchange.inflict(Skip(2000))  # 2 s of the stream, so that it is one gap, however quickly it is connected again
        exchange.inflict(Cut())
        loader.wait_for_line("Gap closed")
        workflow.stop()
        assert loader.wait() == 0
    # A machine that has much to do may take its time.
    return [line for line in loader.errors.splitlines() if "retrying for" not in line]


def masked(message: str) -> str:
    """What of a line is the same in another run: a wait may take minutes in one of them."""
    return re.sub(r"\d[\d.:TZ-]*", "0", message)


def test_a_run_is_logged_in_ten_lines_alike_in_both_formats(workflow: Workflow) -> None:
    who = [str(workflow.variables[name]) for name in ("QUEUE_ID", "SYMBOL", "TELEMETRY_PRODUCER_ID")]
    text = []
    for line in story(workflow, "text"):
        found = TEXT_LINE.fullmatch(line)
        assert found, line
        assert found[4] == " ".join(who)
        text.append((found[2], masked(found[3])))
    entries: list[dict[str, Any]] = [json.loads(line) for line in story(workflow, "json")]
    assert [(entry["level"], masked(entry["message"])) for entry in entries] == text
    assert [[entry["queue_id"], entry["symbol"], entry["producer"]] for entry in entries] == [who] * len(entries)
    begun = [re.split(r"[;:(]| 0", message)[0] for _, message in text]
    assert begun == [
        "loader-ws-trades",
        f"Writing trades of POLUSDT to the topic {masked(workflow.topic)}".split(" 0")[0],
        "Connected to ws",
        "No connection to the exchange",
        "Connected to ws",
        "Repairing a gap from trade id",
        "Gap closed after",
        f"Stop command for {masked(workflow.queue_id)} in {masked(workflow.control_topic)}, partition",
        "Stopping",
        "Interrupted",
    ]
    assert [entry["event"] for entry in entries] == [
        "starting",
        "started",
        "connected",
        "disconnected",
        "connected",
        "gap",
        "repaired",
        "stop_command",
        "stopping",
        "ended",
    ]
    last = entries[-1]
    assert (last["status"], last["exit_code"]) == ("interrupted", 0)
    assert [name for name in last if name in COUNTS] == COUNTS
    for name in COUNTS:
        assert f"{name} {last[name]}" in last["message"]
    assert last["delivered"] == last["received"] + last["repaired"] - last["duplicates"]
    assert 0 < last["seconds"] < 60


# -- no floods


def test_throttle_logs_a_kind_a_few_times_per_period(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    lines = Throttle(logging.getLogger("a-test"), 2, every=60)
    with caplog.at_level(logging.INFO, "a-test"):
        for number in range(5):
            clock.now += 10
            lines.warn("cut", f"cut {number}")
        lines.info("other", "another kind")
        clock.now += 100
        lines.warn("cut", "cut again")
    assert caplog.messages == [
        "cut 0",
        "cut 1 (more of this kind are logged at debug level only for 50 s)",
        "another kind",
        "cut again (3 more of this kind were logged at debug level only)",
    ]
