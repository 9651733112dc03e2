"""Several pairs on one topic, audited in one pass: each as if it were alone, and what is not theirs is left out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping

import pytest

from loader_ws_trades.audit import analyses as module
from loader_ws_trades.audit import report
from loader_ws_trades.audit.analyses import Analyses
from loader_ws_trades.audit.findings import Findings
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.settings import Settings
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from tests.unit.test_audit import START, Topic, value_of

PAIRS = ("BTCUSDT", "ETHUSDT", "POLBTC")


def settings_of(symbols: str, **changed: str) -> Settings:
    given = {"symbols": symbols, "kafka_topic": "trades", **changed}
    return load(given, needed=("symbol", "kafka_topic"))


def analysed(topic: Topic, symbols: str, bounds: Bounds = Bounds(), **changed: str) -> dict[str, Findings]:  # noqa: B008
    settings = settings_of(symbols, **changed)
    analyses = Analyses(settings, bounds)
    for begin in range(0, len(topic.records), 7):
        analyses.take(topic.records[begin : begin + 7])
    return analyses.findings()


def mixed(ids: Mapping[str, Iterable[int]]) -> Topic:
    """A topic with these ids of each pair, in order, the pairs mixed at random."""
    left = {symbol: list(numbers) for symbol, numbers in ids.items()}
    rng, topic = random.Random(3), Topic()
    while left:
        symbol = rng.choice(sorted(left))
        topic.put_raw(value_of(left[symbol].pop(0), START, symbol=symbol), START, symbol.encode())
        left = {name: numbers for name, numbers in left.items() if numbers}
    return topic


FAULTY = {"BTCUSDT": range(100), "ETHUSDT": [*range(50), *range(60, 100)], "POLBTC": [*range(30), 29, 30]}


def test_each_pair_is_audited_as_if_it_were_alone() -> None:
    found = analysed(mixed(FAULTY), "*")
    assert list(found) == list(PAIRS)
    assert [one.faults for one in found.values()] == [[], ["missing ids"], ["duplicates"]]
    assert [one.records for one in found.values()] == [100, 90, 32]
    assert found["ETHUSDT"].missing.first == [Gap(50, 59)]
    assert found["POLBTC"].duplicates.size == 1


def test_patterns_names_and_shares_choose_the_pairs() -> None:
    topic = mixed(FAULTY)
    assert list(analysed(topic, "*USDT")) == ["BTCUSDT", "ETHUSDT"]
    assert list(analysed(topic, "polbtc,nonesuch")) == ["NONESUCH", "POLBTC"]
    shares = [analysed(topic, "*", job_completion_index=str(place), job_completions="2") for place in (0, 1)]
    assert sorted([*shares[0], *shares[1]]) == list(PAIRS)


def test_a_named_pair_without_trades_is_a_fault_in_a_range_only() -> None:
    topic = mixed(FAULTY)
    assert analysed(topic, "BTCUSDT,NONESUCH")["NONESUCH"].exit_code == 0
    assert analysed(topic, "BTCUSDT,NONESUCH", Bounds(1, 5))["NONESUCH"].exit_code == 1


def test_a_record_with_a_wrong_key_is_malformed_where_it_belongs() -> None:
    topic = mixed(FAULTY)
    for key in (None, b"btcusdt", b"\xff", b"a key", b"OTHERUSDC"):
        topic.put_raw(value_of(100, START, symbol="BTCUSDT"), START, key)
    topic.put_raw(b"rubbish", START, b"\xff")
    topic.put_raw(None, START, b"ETHUSDT")
    found = analysed(topic, "BTCUSDT,ETHUSDT")
    assert {name: one.malformed.count for name, one in found.items()} == {"BTCUSDT": 5, "ETHUSDT": 1}


def test_the_number_of_pairs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", 2)
    assert list(analysed(mixed(FAULTY), "*USD?,POLBTC")) == ["BTCUSDT", "POLBTC"]


def test_the_report_on_several_pairs_has_a_line_for_each() -> None:
    found, settings = analysed(mixed(FAULTY), "*"), settings_of("*")
    lines = [json.loads(report.as_json(one, settings.for_symbol(symbol))) for symbol, one in found.items()]
    assert [(line["symbol"], line["ok"]) for line in lines] == list(zip(PAIRS, (True, False, False), strict=True))
    shown = report.all_as_text(found, settings)
    assert [shown.count(symbol) for symbol in PAIRS] == [1, 2, 1]
    assert "Faults found in 2 of 3 pairs; --symbol ETHUSDT lists those of one pair." in shown
