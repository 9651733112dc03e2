"""A topic compared with an archive: what agrees, what lacks and what differs is named, in any order of the records."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from loader_ws_trades.audit import comparison as module
from loader_ws_trades.audit.comparison import Comparison
from loader_ws_trades.audit.findings import Agreement, ArchiveSource, Difference, Findings
from loader_ws_trades.audit.scan import compared
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.pipeline.events import Gap
from loader_ws_trades.pipeline.id_ranges import Bounds
from loader_ws_trades.pipeline.records import AnyRecord

SYMBOL = "POLUSDT"
TIME = 1_760_132_450_606
FIRST = 100
NOT_TRADED = range(140, 143)  # ids that the archive has not either
IDS = [trade_id for trade_id in range(FIRST, 200) if trade_id not in NOT_TRADED]


def row(trade_id: int) -> str:
    side = "True" if trade_id % 2 else "False"
    return f"{trade_id},0.14{trade_id}0000,{trade_id}.50000000,1.00000000,{TIME + trade_id}803,{side},True\n"


def value(trade_id: int, **changed: str) -> bytes:
    """A record as the contract has it, written without the project's encoder."""
    fields = {
        "trade_id": str(trade_id),
        "price": f"0.14{trade_id}0000",
        "quantity": f"{trade_id}.50000000",
        "timestamp": str(TIME + trade_id),
        "is_buyer_maker": "true" if trade_id % 2 else "false",
        "symbol": f'"{SYMBOL}"',
    } | changed
    return f"{{{','.join(f'{json.dumps(name)}:{text}' for name, text in fields.items())}}}".encode()


def record(offset: int, content: bytes | None) -> AnyRecord:
    return 0, offset, TIME, content, SYMBOL.encode()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / f"{SYMBOL}-trades-2025-10-10.csv"
    path.write_text("".join(map(row, IDS)), "utf-8")
    return path


@pytest.fixture
def agreed(archive: Path) -> Callable[[Sequence[bytes | None]], Agreement]:
    def compare(values: Sequence[bytes | None]) -> Agreement:
        comparison = Comparison([archive], SYMBOL)
        comparison.take(record(offset, content) for offset, content in enumerate(values))
        return comparison.agreement()

    return compare


Agreed = Callable[[Sequence[bytes | None]], Agreement]


def test_a_topic_with_all_trades_in_any_order_agrees(agreed: Agreed, archive: Path) -> None:
    values = [value(trade_id) for trade_id in IDS]
    random.Random(1).shuffle(values)
    found = agreed([*values, value(FIRST), value(99), value(200), value(150, symbol='"BTCUSDT"'), None, b"{"])
    assert (found.trades, found.agree) == (len(IDS), len(IDS))
    assert found.missing.count == found.differ.count == found.unknown.count == 0
    assert (found.first, found.last) == ((100, TIME + 100), (199, TIME + 199))
    assert found.sources == [ArchiveSource(archive.name, hashlib.sha256(archive.read_bytes()).hexdigest(), False)]


def test_the_range_is_that_of_the_archive_and_its_holes_are_not_missing(agreed: Agreed, archive: Path) -> None:
    assert Comparison([archive], SYMBOL).bounds == Bounds(100, 199)
    found = agreed([value(trade_id) for trade_id in IDS if trade_id not in {139, 150, 151, 199}])
    assert found.missing.first == [Gap(139, 139), Gap(150, 151), Gap(199, 199)]
    assert (found.missing.count, found.missing.size, found.agree) == (3, 4, len(IDS) - 4)
    judged = compared(Findings(Bounds()), found)
    assert (judged.faults, judged.missing, judged.fillable) == (["missing ids"], found.missing, found.missing.first)


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("price", "0.14150001", "0.141500000"),
        ("price", "0.1415", "0.141500000"),
        ("quantity", "150.5000000", "150.50000000"),
        ("timestamp", str(TIME + 151), str(TIME + 150)),
        ("is_buyer_maker", "true", "false"),
    ],
)
def test_each_field_is_compared_digit_by_digit(agreed: Agreed, name: str, ours: str, theirs: str) -> None:
    found = agreed([value(trade_id, **({name: ours} if trade_id == 150 else {})) for trade_id in IDS])
    assert found.differ.first == [Difference(150, 0, IDS.index(150), name, ours, theirs)]
    assert (found.differ.count, found.agree, found.missing.count) == (1, len(IDS) - 1, 0)
    assert compared(Findings(Bounds()), found).faults == ["trades that differ from the archive"]


@pytest.mark.parametrize("first_is_right", [True, False])
def test_a_record_that_differs_counts_beside_one_that_agrees(agreed: Agreed, first_is_right: bool) -> None:
    both = [value(150), value(150, price="9.00000000")]
    found = agreed(both if first_is_right else both[::-1])
    assert (found.agree, found.differ.count, found.missing.size) == (0, 1, len(IDS) - 1)


def test_other_white_space_is_no_difference(agreed: Agreed) -> None:
    values = [value(trade_id).replace(b",", b", ") for trade_id in IDS]
    assert agreed(values).agree == len(IDS)


def test_ids_that_the_archive_has_not_are_named(agreed: Agreed) -> None:
    found = agreed([value(trade_id) for trade_id in (*range(FIRST, 200), 141)])
    assert found.unknown.first == [Gap(140, 142)]
    assert compared(Findings(Bounds()), found).faults == ["trades that are not in the archive"]


def test_an_archive_with_too_many_ids_is_rejected(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDS", 99)
    with pytest.raises(ConfigurationError, match="spans 100 ids, and at most 99 can be compared; give fewer files"):
        Comparison([archive], SYMBOL)
