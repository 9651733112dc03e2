"""`check`: which steps run, what each result says, and how the results are shown."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from loader_ws_trades.check import exchange, kafka, report
from loader_ws_trades.check.check import configuration
from loader_ws_trades.check.exchange import ExchangeSteps
from loader_ws_trades.check.kafka import KafkaSteps, topic_warnings
from loader_ws_trades.check.steps import Result, Step, passed, run_steps, skipped, warned
from loader_ws_trades.config.loading import load
from loader_ws_trades.errors import UnavailableError
from loader_ws_trades.kafka.topic_settings import TopicSettings
from tests.unit.test_config import REQUIRED

BEFORE, AFTER = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms"


def failing(error: Exception) -> Any:
    def run() -> Result:
        raise error

    return run


def test_a_failure_skips_what_depends_on_it_and_nothing_else() -> None:
    away = failing(UnavailableError("the exchange is away; wait"))
    steps = [
        Step("away", away),
        Step("dependent", lambda: passed(""), after=("away",)),
        Step("indirect", lambda: passed(""), after=("dependent",)),
        Step("unset", lambda: passed(""), needs=("symbol",)),
        Step("off", lambda: skipped("not tested: it is off")),
        Step("after off", lambda: warned("as it may be"), after=("off",)),
        Step("again", away),
        Step("bug", failing(ZeroDivisionError("oops"))),
        Step("lasting", failing(UnavailableError("not here", lasting=True))),
    ]
    assert [
        (result.name, result.verdict, result.text, result.exit_code) for result in run_steps(steps, {"symbol"})
    ] == [
        ("away", "FAIL", "The exchange is away; wait", 1),
        ("dependent", "skip", "not tested: depends on away", 0),
        ("indirect", "skip", "not tested: depends on away", 0),
        ("unset", "skip", "not tested: needs SYMBOL (--symbol)", 0),
        ("off", "skip", "not tested: it is off", 0),
        ("after off", "warn", "as it may be", 0),
        ("again", "FAIL", "Same failure as away", 1),
        ("bug", "FAIL", "Internal error: ZeroDivisionError: oops; please report it", 1),
        ("lasting", "FAIL", "Not here", 2),
    ]


def test_invalid_settings_are_left_out_and_the_others_are_usable() -> None:
    configured = configuration({"symbol": "btcusdt", "kafka_user_producer": "loader", "kafka_topic": "a b"})
    assert configured.settings.symbol == "BTCUSDT"
    assert {"kafka_user_producer", "kafka_topic", "queue_id"} <= configured.unusable
    assert "binance_ws_url" not in configured.unusable
    assert any("KAFKA_TOPIC (--kafka-topic)" in fault for fault in configured.faults)


def test_several_pairs_are_as_usable_as_one() -> None:
    given = {"symbols": "btcusdt,ethusdt", "kafka_topic": "trades-{symbol}", "telemetry_producer_id": "{symbol}"}
    given |= {"queue_id": "wf-1", "type": "ws_trade", "kafka_bootstrap_servers": "kafka:9092"}
    for share, topic in (({}, "trades-{symbol}"), ({"job_completion_index": "1"}, "trades-ETHUSDT")):
        configured = configuration(given | share)
        assert (configured.faults, configured.unusable) == ((), frozenset())
        assert configured.settings.kafka_topic == topic


class FakeRest:
    """Its clock is `skew` seconds behind ours, its count of this IP's weight is `counted`."""

    def __init__(self, skew: float, counted: int | None) -> None:
        self.skew, self.counted = skew, counted

    def time(self) -> int:
        return round((time.time() - self.skew) * 1000)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("skew", "weight", "verdict", "words"),
    [
        (0.5, 100, "ok", ["clock 0.5 s ahead of the exchange's, request weight 100 of 3000"]),
        (3600, 100, "warn", ["3,600.0 s ahead of", "NTP"]),
        (-3600, 100, "warn", ["3,600.0 s behind"]),
        (0, 2976, "warn", ["used a request weight of 2976", "REST_WEIGHT_LIMIT (--rest-weight-limit)"]),
        (3600, 2976, "warn", ["NTP", "REST_WEIGHT_LIMIT"]),
    ],
)
def test_rest_step_compares_clocks_and_request_weight(
    skew: float, weight: int | None, verdict: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "Rest", lambda *_args, **_named: FakeRest(skew, weight))
    result = ExchangeSteps(load(REQUIRED), 1.0).steps()[0].run()
    assert result.verdict == verdict, result
    assert not [word for word in words if word not in result.text], result.text


@pytest.mark.parametrize(
    ("away", "verdict"),
    [({}, "ok"), ({"b:1": "connection refused"}, "warn"), ({"a:1": "unknown name", "b:1": "no answer"}, "FAIL")],
)
def test_brokers_step_fails_if_no_address_is_reachable_and_warns_if_some_are_not(
    away: dict[str, str], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "unreachable", lambda _addresses, _seconds: away)
    [brokers, *_] = KafkaSteps(load(REQUIRED | {"kafka_bootstrap_servers": "a:1,b:1"})).steps()
    [result] = run_steps([brokers], ())
    assert (result.verdict, result.exit_code) == (verdict, int(verdict == "FAIL"))
    for address, why in away.items():
        assert f"{address} ({why})" in result.text
        assert "KAFKA_BOOTSTRAP_SERVERS (--kafka-bootstrap-servers)" in result.text


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        (None, []),
        ({"retention.ms": "3600000", BEFORE: "3600000", AFTER: "3600000"}, []),
        ({"retention.ms": "60000"}, ["keeps trades for only 60 s"]),
        ({"message.timestamp.type": "LogAppendTime", BEFORE: "1000"}, ["message.timestamp.type to CreateTime"]),
        ({BEFORE: "60000"}, [f"exit code 2; raise its {BEFORE}"]),
        ({AFTER: "0", "retention.ms": "1000"}, [f"raise its {AFTER}", "raise its retention.ms"]),
    ],
)
def test_topic_settings_that_lose_trades_or_the_checkpoint_are_warnings(
    reported: dict[str, str | None] | None, words: list[str]
) -> None:
    warnings = topic_warnings(TopicSettings("trades", reported))
    assert len(warnings) == len(words), warnings
    assert all(word in warning for word, warning in zip(words, warnings, strict=True)), warnings


@pytest.mark.parametrize(
    ("verdicts", "summary"),
    [
        ("ok skip", "All checks passed."),
        ("ok warn", "Ready, with warnings: 1."),
        ("warn FAIL FAIL", "Fix: 1, 2."),
    ],
)
def test_report_ends_with_what_to_fix(verdicts: Any, summary: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result(verdict, "[text]", name=str(number)) for number, verdict in enumerate(verdicts.split())]
    assert report.show(lambda _on_begin: results) == results
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == summary
    assert all("[text]" in line for line in lines[:-2])


def test_json_has_the_verdict_and_exit_code() -> None:
    results = [Result("ok", "a", 0, "x", 0.12345), Result("FAIL", "b", 2, "y", 1)]
    assert json.loads(report.as_json(results)) == {
        "ok": False,
        "exit_code": 2,
        "lines": [
            {"name": "x", "verdict": "ok", "seconds": 0.123, "text": "a"},
            {"name": "y", "verdict": "fail", "seconds": 1, "text": "b"},
        ],
    }
