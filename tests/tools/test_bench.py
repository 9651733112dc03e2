"""The benchmark's harness: that it measures at all, and that its results can be read and compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loader_ws_trades.pipeline.records import decode
from loader_ws_trades.pipeline.trade import FrameDecoder, record_encoder
from tests.tools.apache_kafka import Cluster
from tests.tools.bench import latency
from tests.tools.bench.__main__ import main
from tests.tools.bench.arena import Arena
from tests.tools.bench.baselines.job import record
from tests.tools.bench.contenders import CONTENDERS, Contender
from tests.tools.bench.exchange import MarketSpec
from tests.tools.bench.results import Results, load, ratios, table
from tests.tools.bench.stamps import percentiles
from tests.tools.scrape import free_port, scrape
from tests.tools.waiting import wait_for

OTHER = "websocket-client"  # the one of the others that needs no packages of its own


def _named(name: str) -> Contender:
    return next(contender for contender in CONTENDERS if contender.name == name)


@pytest.mark.parametrize(("name", "tls"), [("loader", False), ("loader", True), (OTHER, False)])
def test_a_race_brings_all_trades_to_the_topic_and_measures(
    kafka_cluster: Cluster, tmp_path: Path, name: str, tls: bool
) -> None:
    found = Arena(tmp_path, kafka_cluster).race(_named(name), MarketSpec(count=20_000), seconds=60, tls=tls)
    assert found.rate > 1000
    assert 0.5 < found.cpu < 1000
    assert 10 < found.peak < 1000


def test_the_loader_is_asked_for_metrics_while_it_races(kafka_cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    market = MarketSpec(count=1_000_000, rate=500.0)
    with Arena(tmp_path, kafka_cluster).run(_named("loader"), market, metrics_port=port):
        wait_for(lambda: _delivered(port), "trades in the metrics")


def _delivered(port: int) -> float | None:
    try:
        return scrape(port).get("delivered_total")
    except OSError:
        return None


@pytest.mark.parametrize("name", ["loader", OTHER])
def test_latency_is_taken_of_each_trade(kafka_cluster: Cluster, tmp_path: Path, name: str) -> None:
    pace = latency.even_frames(tmp_path / "even.jsonl", 0.5)
    arena, stamps = Arena(tmp_path, kafka_cluster), tmp_path / "stamps"
    market = MarketSpec(count=len(pace.due), frames=str(pace.path))
    outcome = arena.race(_named(name), market, seconds=60, stamps=stamps)
    found = latency.judged(stamps, pace, outcome.begun)
    assert len(found) == 8
    assert 0 < found["from read to report, p50"] < found["from due to report, max"] < 10_000


def test_stages_add_up_to_the_cpu_time(kafka_cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    outcome = Arena(tmp_path, kafka_cluster).race(CONTENDERS[0], MarketSpec(count=50_000), seconds=60, stages=path)
    found = json.loads(path.read_text())
    assert {"frame", "decode", "sequence", "encode", "produce", "delivery report"} < set(found)
    assert 0 < sum(found.values()) < outcome.cpu * 1.2


def test_the_bursts_are_cut_around_the_busiest_moment(tmp_path: Path) -> None:
    pace = latency.burst_frames(tmp_path / "bursts.jsonl", tmp_path / "recorded", 4.0)
    assert pace.due[0] == 0.0
    assert pace.due[-1] < 4.0
    assert len(pace.path.read_text().splitlines()) == len(pace.due)


def test_the_others_write_the_same_fields() -> None:
    frame = b'{"e":"trade","E":2,"s":"POLUSDT","t":1,"p":"0.10","q":"5.0","T":2,"m":true,"M":true}'
    (trade,), _ = FrameDecoder("POLUSDT").decode([frame])
    ours = json.loads(record_encoder("POLUSDT")(trade))
    theirs = json.dumps(record(json.loads(frame)))
    assert json.loads(theirs) == ours
    assert list(json.loads(theirs)) == list(ours)
    decode(theirs.encode())


def test_percentiles_are_by_the_nearest_rank() -> None:
    assert percentiles([place / 1000 for place in range(1000)]) == {"p50": 499, "p99": 989, "p99.9": 998, "max": 999}
    assert percentiles([0.004]) == dict.fromkeys(("p50", "p99", "p99.9", "max"), 4)


def _results(*rates: float) -> Results:
    results = Results({"machine": "a test"})
    for rate in rates:
        results.add("saturation", "rate", "trades/s", "loader", rate, better="higher")
        results.add("saturation", "rate", "trades/s", OTHER, rate / 4, better="higher")
        results.add("memory", "idle", "MiB", "loader", 1e9 / rate, better="lower")
    return results


def test_the_table_has_median_spread_and_ratio() -> None:
    results = _results(400_000, 410_000, 420_000)
    assert ratios(results.rows[0], OTHER) == [4, 4, 4]
    shown = table(results)
    assert "410,000 (400,000-420,000)" in shown
    assert "4.00 (4.00-4.00)x" in shown


def test_compare_says_what_is_better_and_what_is_within_the_spread(tmp_path: Path) -> None:
    files = []
    for name, results in (("a", _results(400_000, 420_000)), ("b", _results(500_000, 520_000))):
        files.append(str(tmp_path / f"{name}.json"))
        results.save(Path(files[-1]))
        assert load(Path(files[-1])) == results
    shown = CliRunner().invoke(main, ["compare", *files])
    assert shown.exit_code == 0, shown.output
    rate, memory = (next(line for line in shown.output.splitlines() if text in line) for text in ("rate", "idle"))
    assert "+24.4 %" in rate
    assert "better" in rate
    assert "better" in memory
    same = CliRunner().invoke(main, ["compare", files[0], files[0]])
    assert same.output.count("within the spread") == 3


def test_compare_names_what_only_one_of_them_has(tmp_path: Path) -> None:
    both, one = _results(400_000), _results(400_000)
    one.rows.pop()
    both.save(tmp_path / "both.json")
    one.save(tmp_path / "one.json")
    shown = CliRunner().invoke(main, ["compare", str(tmp_path / "both.json"), str(tmp_path / "one.json")])
    assert "only in A: memory: idle" in shown.output
    assert "only in B" not in shown.output


def test_compare_refuses_another_file(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("[1]")
    shown = CliRunner().invoke(main, ["compare", str(other), str(other)])
    assert shown.exit_code == 1
    assert "no result of a benchmark" in shown.output
