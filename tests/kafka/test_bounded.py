"""Archives, recordings and the stream give the same records; trades already on the topic are not loaded again."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Kafka
from tests.tools.loader import Loader, Workflow, check_events, urls, workflow_on
from tests.tools.topics import write_topic

TRADES = 5000


@pytest.fixture
def market() -> Market:
    return Market.generated("POLUSDT", rate=float("inf"), count=TRADES, start="subscriber")


@pytest.fixture
def past() -> Market:
    return Market.generated("POLUSDT", rate=100, past=TRADES)


@pytest.fixture
def workflows(kafka: Kafka) -> Iterator[list[Workflow]]:
    with (
        workflow_on(kafka.bootstrap_servers, kafka.create_topic) as one,
        workflow_on(kafka.bootstrap_servers, kafka.create_topic) as two,
        workflow_on(kafka.bootstrap_servers, kafka.create_topic) as three,
    ):
        yield [one, two, three]


def write_frames(path: Path, ids: Iterable[int], *extra: str) -> Path:
    """A recording of trades with these ids, one millisecond apart; `extra` lines come first."""
    fields = {"e": "trade", "E": 1, "s": "POLUSDT", "p": "1.50", "q": "2.0", "m": True}
    frames = (json.dumps(fields | {"t": trade_id, "T": 1_700_000_000_000 + trade_id}) for trade_id in ids)
    path.write_text("".join(f"{line}\n" for line in (*extra, *frames)))
    return path


def values(workflow: Workflow) -> list[bytes | None]:
    return [record.value() for record in workflow.records()]


def write_archive(path: Path, market: Market, skipped: range = range(0)) -> None:
    """As the exchange publishes a day: a zip with one csv, and its checksum."""
    rows = [
        f"{trade.id},{trade.price},{trade.quantity},1.0,{trade.time},{trade.is_buyer_maker},True\n"
        for trade in market.trades(0, TRADES)
        if trade.id not in skipped
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", "".join(rows))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")


def test_the_stream_its_recording_and_the_archive_give_the_same_records(
    workflows: list[Workflow], market: Market, tmp_path: Path
) -> None:
    streamed, replayed, archived = workflows
    recording, archive = tmp_path / "frames.jsonl.gz", tmp_path / "POLUSDT-trades-2025-10-10.zip"
    with Exchange([market]) as exchange:
        loader = streamed.run("--max-records", str(TRADES), "--record", str(recording), **urls(exchange))
        assert loader.wait() == 0, loader.errors
    write_archive(archive, market)
    loader = replayed.start("replay", str(recording), "--speed", "max")
    assert loader.wait() == 0, loader.errors
    check_events(replayed.events(), replayed, "finished")
    loader = archived.start("backfill", "--archive", str(archive))
    assert loader.wait() == 0, loader.errors
    check_events(archived.events(), archived, "finished")
    assert len(values(streamed)) == TRADES
    assert values(streamed) == values(replayed) == values(archived)
    # A second time there is nothing to load.
    for again in (("replay", str(recording), "--speed", "max"), ("backfill", "--archive", str(archive))):
        assert replayed.start(*again).wait() == 0
    assert len(values(replayed)) == TRADES


def test_records_with_the_key_that_are_not_trades_of_the_pair_do_not_count_as_loaded(
    workflow: Workflow, tmp_path: Path
) -> None:
    for bad in (b"hello", b'{"trade_id":150}', b'{"trade_id":150,"timestamp":1700000000150,"symbol":"BTCUSDT"}'):
        write_topic(workflow.servers, workflow.topic, bad, key=b"POLUSDT")
    path = write_frames(tmp_path / "dump.txt", range(100, 200))
    loader = workflow.start("replay", str(path), "--speed", "max")
    assert loader.wait() == 0, loader.errors
    found = [json.loads(value or b"")["trade_id"] for value in values(workflow)[3:]]
    assert found == list(range(100, 200))


@pytest.mark.parametrize("parts", [(range(1, 1001), range(62_001, 62_501)), (range(62_001, 62_501), range(1, 1001))])
def test_a_recording_with_a_long_gap_or_parts_in_the_wrong_order_loses_nothing(
    workflow: Workflow, tmp_path: Path, parts: tuple[range, range]
) -> None:
    path = write_frames(tmp_path / "dump.jsonl", chain(*parts))
    # What a shared .env says of the stream is not for it.
    loader = workflow.start("replay", str(path), "--speed", "max", DURATION="0.001", GAP_REPAIR="off")
    assert loader.wait() == 0, loader.errors
    assert workflow.ids() == [*range(1, 1001), *range(62_001, 62_501)]
    assert "missing trade ids 1001-62000" in workflow.events()[-1]["message"]


def test_a_recording_survives_a_kill_and_a_replay_can_be_piped(tmp_path: Path) -> None:
    recording = tmp_path / "frames.jsonl.gz"
    live = Market.generated("POLUSDT", rate=1000)
    with Exchange([live]) as exchange:
        loader = Loader("run", "--stdout", "--record", str(recording), SYMBOL="POLUSDT", **urls(exchange))
        lines = loader.lines(3000)
        loader.process.kill()
        loader.close()
    with gzip.open(recording) as file:
        assert sum(1 for _ in file) > 1000
    with Loader("replay", str(recording), "--speed", "max", "--stdout", SYMBOL="POLUSDT") as loader:
        assert loader.process.stdout is not None
        assert loader.lines(500) == lines[:500]
        loader.process.stdout.close()
        loader.process.stdout = None
        assert loader.wait() == 0
        assert "Traceback" not in loader.errors
