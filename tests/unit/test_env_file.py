"""The file of variables: where it may come from, and what is reported about its contents."""

from __future__ import annotations

from pathlib import Path

import pytest

from loader_ws_trades.check.check import check, configuration
from loader_ws_trades.cli import options as cli_options
from loader_ws_trades.cli.options import collect, gather
from loader_ws_trades.config.settings import OPTIONS, Settings
from loader_ws_trades.errors import ConfigurationError

SYMBOL = "SYMBOL=ethusdt\n"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.chdir(tmp_path)


def symbol(env_file: str | None) -> str:
    return gather({}, env_file, needed=["symbol"])[0].symbol


def test_no_file_and_a_folder_called_env_are_no_fault_unless_named() -> None:
    assert collect({"symbol": "a"}, None).texts == {"symbol": "a"}
    Path(".env").mkdir()
    assert collect({"symbol": "a"}, None).texts == {"symbol": "a"}
    for named in (".env", "missing", ".env/x/y", "a\0b"):
        with pytest.raises(ConfigurationError, match=r"--env-file|Cannot read"):
            collect({}, named)


@pytest.mark.parametrize("held", [b"SYMBOL=\xff\xfeA\n", "SYMBOL=btcusdt\n".encode("utf-16")])
def test_a_binary_file_is_one_sentence_that_shows_nothing_of_it(held: bytes) -> None:
    Path(".env").write_bytes(held)
    with pytest.raises(ConfigurationError) as caught:
        collect({}, None)
    assert caught.value.faults == ("Cannot read the file '.env' (not UTF-8); it must be UTF-8 text",)


def test_malformed_lines_are_reported_with_all_other_faults() -> None:
    Path(".env").write_text("KAFKA_TOPIC=a b\nhush hush\nSYMBOL=btcusdt\nSYMBLO=x\n")
    with pytest.raises(ConfigurationError) as caught:
        gather({"metrics_port": "x"}, None, needed=["symbol"], faults=["--from-id is wrong"])
    faults = list(caught.value.faults)
    assert [fault.split(" ")[0] for fault in faults] == ["KAFKA_TOPIC", "METRICS_PORT", ".env,", "--from-id", ".env"]
    assert "line 2, is not NAME=value" in faults[2]
    assert "hush" not in str(faults)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_PASSWORD", "KAFKA_PASSWORD_FILE"),
        ("SYMBLO", "SYMBOL"),
        ("symbol", "SYMBOL"),
        ("Kafka_Topic", "KAFKA_TOPIC"),
        ("METRIC_PORT", "METRICS_PORT"),
        ("BINANCE_URL", "BINANCE_WS_URL"),
    ],
)
def test_a_misspelt_name_is_reported_with_the_nearest_setting(name: str, meant: str) -> None:
    Path(".env").write_text(f"export {name}=hush\nPATH=/bin\n")
    [note] = collect({}, None).notes
    assert note == f".env sets {name}, which is not a setting; did you mean {meant}?"
    assert gather({"symbol": "a"}, None, needed=["symbol"])[1] == [note], "it is no fault"
    with pytest.raises(ConfigurationError) as caught:
        gather({}, None, needed=["queue_id"])
    assert caught.value.faults == ("QUEUE_ID (--queue-id) is required; set it", note)


def test_names_of_other_programs_are_not_reported() -> None:
    names = (
        "PATH HOME TZ LANG JAVA_HOME KAFKA_HOME KAFKA_OPTS COMPOSE_PROJECT_NAME SSL_CERT_FILE https_proxy PYTHONPATH"
    )
    Path(".env").write_text("".join(f"{name}=x\n" for name in names.split()))
    assert collect({}, None).notes == []


def test_a_misspelt_name_is_logged_once_logging_is_configured(
    monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    configured: list[Settings] = []
    monkeypatch.setattr("loader_ws_trades.logs.configure", configured.append)
    Path(".env").write_text("SYMBLO=x\nLOG_FORMAT=json\n")
    settings = cli_options.ready({"symbol": "a"}, None, needed=["symbol"])
    assert configured == [settings]
    assert [line.getMessage() for line in logged.records] == [
        ".env sets SYMBLO, which is not a setting; did you mean SYMBOL?"
    ]


@pytest.mark.parametrize(
    ("needed", "verdict"), [({}, "FAIL"), ({option.name: "x" for option in OPTIONS if option.required}, "warn")]
)
def test_check_reports_a_misspelt_name_in_its_first_line(needed: dict[str, str], verdict: str) -> None:
    Path(".env").write_text("SYMBLO=x\n")
    given = collect(needed | ({"kafka_bootstrap_servers": "a:1"} if needed else {}), None)
    configured = configuration(given.texts, faults=given.faults, warnings=given.notes)
    first = next(iter(check(configured, 1.0)))
    assert (first.name, first.verdict) == ("configuration", verdict)
    assert first.exit_code == (2 if verdict == "FAIL" else 0)
    assert first.text.endswith("\n.env sets SYMBLO, which is not a setting; did you mean SYMBOL?")
