"""Archive files: every trade once, ascending by id; of a damaged file nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import threading
import zipfile
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import pytest

from loader_ws_trades.binance import archive as module
from loader_ws_trades.binance import archive_csv
from loader_ws_trades.binance.archive import Archive, Summary
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.pipeline.trade import Trade, record_encoder
from tests.tools import recorded

NAME = "BTCUSDT-trades-2025-01-31"
NEXT = "BTCUSDT-trades-2025-02-01"
MILLIS, MICROS = 1735600000123, 1738281600456789
HEADER = "id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch"
PUBLISHED = recorded.SHARED.with_name("POLUSDT-trades-2025-10-10.zip")

Maker = Callable[..., Path]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows are several chunks and batches."""
    monkeypatch.setattr(archive_csv, "_CHUNK", 4096)
    monkeypatch.setattr(module, "_BATCH", 50)


def row(trade_id: int, price: str = "42000.10000000", when: int = MICROS, side: str = "True") -> str:
    return f"{trade_id},{price},0.00100000,42.00010000,{when},{side},True"


def rows(ids: Iterable[int]) -> list[str]:
    return [row(trade_id, side="True" if trade_id % 3 else "False") for trade_id in ids]


def csv(folder: Path, lines: Iterable[str], name: str = NAME) -> Path:
    path = folder / f"{name}.csv"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def zipped(folder: Path, lines: Iterable[str], name: str = NAME) -> Path:
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{name}.csv", "".join(f"{line}\n" for line in lines))
    return path


def load(*paths: Path, symbol: str = "BTCUSDT") -> tuple[Summary, list[Trade]]:
    archive = Archive(paths, symbol)
    summary = archive.check()
    trades = [trade for batch in archive.batches() for trade in batch]
    assert len(trades) == summary.trades
    return summary, trades


def ids(trades: Iterable[Trade]) -> list[int]:
    return [trade.trade_id for trade in trades]


def rejected(*paths: Path) -> str:
    """The sentence with which files are rejected before a trade is used."""
    archive = Archive(paths, "BTCUSDT")
    with pytest.raises(ConfigurationError) as caught:
        archive.check()
    assert list(archive.batches()) == []
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert any(path.name in sentence for path in paths)
    return sentence


def test_an_archive_and_the_stream_give_the_same_records() -> None:
    if not PUBLISHED.exists():
        pytest.skip("the recorded archive is not there")
    archive = Archive([PUBLISHED], "POLUSDT")
    archive.check()
    trades = next(archive.batches())
    encode = record_encoder("POLUSDT")
    with gzip.open(recorded.SHARED) as file:
        frames = [json.loads(line) for line in islice(file, len(trades))]
    for trade, frame in zip(trades, frames, strict=True):
        record = json.loads(encode(trade), parse_float=str)
        assert tuple(record.values()) == (*(frame[field] for field in "tpqTm"), "POLUSDT")


@pytest.mark.parametrize("made", [csv, zipped])
@pytest.mark.parametrize("header", [[], [HEADER], ["ID,Price,QTY,quote_qty,time,is_buyer_maker,is_best_match"]])
def test_a_file_is_read_with_and_without_header(tmp_path: Path, made: Maker, header: list[str]) -> None:
    summary, trades = load(made(tmp_path, [*header, *rows(range(100, 600))]))
    assert ids(trades) == list(range(100, 600))
    assert trades[0] == Trade(100, "42000.10000000", "0.00100000", MICROS // 1000, True, "BTCUSDT")
    assert trades[2].is_buyer_maker is False
    assert summary == Summary(100, 599, MICROS // 1000, 500, 0)


def test_accepted_times_line_ends_and_names(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "some trades.csv"
    lines = ["\ufeff" + row(1, when=MILLIS, side="true"), row(2, side="false"), "", row(3, when=10**15), row(4, when=1)]
    path.write_bytes("\r\n".join(lines).encode())
    _, trades = load(path)
    assert [trade.timestamp for trade in trades] == [MILLIS, MICROS // 1000, 10**12, 1]
    assert [trade.is_buyer_maker for trade in trades] == [True, False, True, True]
    assert "The file name some trades.csv does not contain the symbol; assuming BTCUSDT" in logged.text
    assert "was not verified: some trades.csv.CHECKSUM not found" in logged.text
    _, [trade] = load(zipped(tmp_path, [row(1)], "币安人生USDT-trades-2025-01"), symbol="币安人生USDT")
    assert trade.symbol == "币安人生USDT"


@pytest.mark.parametrize("text", ["{digest}  {name}\n", "{digest} *{name}", "{digest}  other.zip\n"])
def test_a_checksum_is_verified(tmp_path: Path, text: str, logged: pytest.LogCaptureFixture) -> None:
    path = zipped(tmp_path, rows([1, 2]))
    beside = path.with_name(path.name + ".CHECKSUM")
    beside.write_text(text.format(digest=hashlib.sha256(path.read_bytes()).hexdigest(), name=path.name))
    load(path, beside)
    assert f"{path} matches {beside.name}" in logged.text
    zipped(tmp_path, rows([1, 3]))
    assert f"does not match {beside.name}; download both again" in rejected(path)
    for useless in (b"", b"<xml>404</xml>", b"\xff\xfe", b"0123  BTCUSDT-trades-2025-01-31.zip"):
        beside.write_bytes(useless)
        assert "download it again or remove it" in rejected(path)


def packed(path: Path, members: dict[str, str], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)


def encrypted(path: Path) -> None:
    packed(path, {"a.csv": row(1)})
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def cut(share: float) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        whole = zipped(path.parent, rows(range(500))).read_bytes()
        path.write_bytes(whole[: max(4, int(share * len(whole)))])

    return write


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: None, "cannot be read (No such file or directory)"),
        (Path.mkdir, "is not a regular file"),
        (lambda path: path.write_text("<Error><Code>NoSuchKey</Code></Error>"), "is damaged (not a zip)"),
        (lambda path: packed(path, {"a.csv": row(1), "b.csv": row(2)}), "contains 2 csv files;"),
        (lambda path: packed(path, {"a.csv": ""}), "contains no data"),
        (lambda path: packed(path, {"a.csv": HEADER}), "contains no trades"),
        (lambda path: packed(path, {"a.csv": row(1)}, zipfile.ZIP_BZIP2), "unsupported compression method"),
        (encrypted, "is damaged"),
        (cut(0.3), "is damaged"),
        (lambda path: packed(path, {"ETHUSDT-trades-2025-01.csv": row(1)}), "contains trades of ETHUSDT"),
    ],
)
def test_a_zip_that_cannot_be_used_is_rejected(tmp_path: Path, write: Callable[[Path], object], expected: str) -> None:
    path = tmp_path / f"{NAME}.zip"
    write(path)
    assert expected in rejected(path)


def test_faults_of_several_files_are_reported_together(tmp_path: Path) -> None:
    long, other = tmp_path / ("x" * 300), zipped(tmp_path, rows([1]), "ETHUSDT-trades-2025-01-31")
    (tmp_path / f"{NAME}.csv").touch()
    sentence = rejected(long, other, tmp_path / f"{NAME}.csv", Path("a\0b"))
    assert "cannot be read (File name too long)" in sentence
    assert "SYMBOL (--symbol) is BTCUSDT, but" in sentence
    assert f"{NAME}.csv contains no data" in sentence
    assert "cannot be read (invalid file name)" in sentence
    with pytest.raises(ConfigurationError, match="name at least one"):
        Archive([f"{NAME}.zip.CHECKSUM"], "BTCUSDT").check()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("rubbish", "has 1 column instead of the 7 of a spot archive: 'rubbish'"),
        (row(12) + ",True", "has 8 columns"),
        (HEADER, "has id 'id', which is not a whole number"),
        ("9" * 19 + row(12)[2:], "not a whole number of at most 18 digits"),
        (row(12, price="1e5"), "has price '1e5', which is not a plain decimal number"),
        (row(12, price="\u0661"), "not a plain decimal number"),
        (row(12, when=0), "has time '0', which is not a time in milliseconds or microseconds"),
        (row(12, side="1"), "has isBuyerMaker '1', which is not True or False"),
        (row(12)[:-2], "has isBestMatch 'Tr'"),
        (row(12) + "\r" + row(13), "has 13 columns"),
    ],
)
def test_a_malformed_row_is_rejected_before_a_trade_is_used(tmp_path: Path, line: str, expected: str) -> None:
    for made, header in ((csv, []), (zipped, [HEADER])):
        sentence = rejected(made(tmp_path, [*header, *rows(range(200)), "", line, *rows(range(200, 210))]))
        assert f", line {202 + len(header)}, " in sentence
        assert expected in sentence
        assert "nothing was published" in sentence


def test_a_cut_last_row_and_an_endless_one_are_rejected(tmp_path: Path) -> None:
    path = csv(tmp_path, rows(range(10)))
    path.write_bytes(path.read_bytes()[:-3])
    assert "line 10, has isBestMatch 'Tr'" in rejected(path)
    with path.open("wb") as file:
        file.truncate(10**12)
    assert "line 1, is longer than" in rejected(path)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("id,price,qty,quote_qty,time,is_buyer_maker", "futures trades"),
        ("5,42000.1,0.001,42.0001,1738281600456,true", "futures trades"),
        ("5,42000.1,0.001,5,7,1738281600456,true", "aggregated trades"),
        ("agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker", "aggregated trades"),
        ("1738281600000000,1,2,1,2,9,1738281659999999,9,4,5,6,0", "candlesticks"),
        ("open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore", "candlesticks"),
    ],
)
def test_another_kind_of_archive_is_named(tmp_path: Path, line: str, kind: str) -> None:
    assert f"contains {kind}; give an archive of spot trades" in rejected(zipped(tmp_path, [line]))


# Order, gaps, duplicates


def test_an_unsorted_file_is_sorted_in_memory_up_to_a_bound(
    tmp_path: Path, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = rows([*range(500), 7])
    random.Random(3).shuffle(lines)
    path = csv(tmp_path, lines)
    summary, trades = load(path)
    assert ids(trades) == list(range(500))
    assert summary.duplicates == 1
    assert "is not sorted by trade id; sorting in memory" in logged.text
    monkeypatch.setattr(module, "_MAX_SORTED", 400)
    assert "has more than 400 rows; sort the csv first, for example with sort -t, -n" in rejected(path)


def test_files_are_put_in_order_and_what_is_missing_is_counted(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    first = csv(tmp_path, rows([5, 6, 6, 9, 10, *range(20, 300)]))
    second = zipped(tmp_path, rows(range(310, 400)), NEXT)
    _, trades = load(second, first)
    assert ids(trades) == [5, 6, 9, 10, *range(20, 300), *range(310, 400)]
    assert "374 trades, ids 5-399; 21 ids are missing, 1 rows are duplicates" in logged.text


def test_files_that_overlap_are_merged(tmp_path: Path) -> None:
    month = zipped(tmp_path, rows([*range(900), *range(910, 2000)]), "BTCUSDT-trades-2025-01")
    day = csv(tmp_path, rows(range(890, 920)))
    late = csv(tmp_path, rows(range(1900, 2500)), NEXT)
    summary, trades = load(late, day, month, month)
    assert ids(trades) == list(range(2500))
    assert summary == Summary(0, 2499, MICROS // 1000, 2500, 2000 - 10 + 20 + 100)


def test_two_rows_of_one_id_must_agree(tmp_path: Path) -> None:
    lines = rows(range(300))
    for wrong in ([*lines[:200], row(199, price="1.0"), *lines[200:]], [*lines, row(40, price="1.0")]):
        assert "occurs twice with different contents" in rejected(csv(tmp_path, wrong))
    one, two = csv(tmp_path, lines), csv(tmp_path, [row(299, price="1.0")], NEXT)
    sentence = rejected(one, two)
    assert "Trade id 299 occurs twice" in sentence
    assert one.name in sentence
    assert two.name in sentence
    # In milliseconds and in microseconds it is the same.
    summary, _ = load(csv(tmp_path, [row(1, when=MICROS), row(1, when=MICROS // 1000)]))
    assert summary.duplicates == 1


# Two passes


@pytest.mark.parametrize("made", [csv, zipped])
def test_a_file_that_changes_after_the_check_ends_the_run(tmp_path: Path, made: Maker) -> None:
    archive = Archive([made(tmp_path, rows(range(100)))], "BTCUSDT")
    archive.check()
    made(tmp_path, rows(range(200)))
    with pytest.raises(RunError, match="changed after the check"):
        next(archive.batches())


def test_the_check_can_be_stopped(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(RunError, match="nothing was published"):
        Archive([csv(tmp_path, rows(range(10)))], "BTCUSDT", stopping).check()


def test_any_flipped_bit_of_a_zip_is_found_before_a_trade_is_used(tmp_path: Path) -> None:
    path = zipped(tmp_path, rows(range(200)))
    whole = path.read_bytes()
    _, trades = load(path)
    rng = random.Random(7)
    found = 0
    for _ in range(60):
        broken = bytearray(whole)
        position = rng.randrange(len(broken))
        broken[position] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            _, now = load(path)
        except ConfigurationError as error:
            found += NAME in str(error)
        else:
            assert now == trades, f"byte {position}"  # a date, an attribute
    assert found > 40


def test_a_file_that_is_cut_while_it_is_used_ends_the_run(tmp_path: Path) -> None:
    path = csv(tmp_path, rows(range(5000)))
    archive = Archive([path], "BTCUSDT")
    archive.check()
    batches = archive.batches()
    next(batches)
    path.write_bytes(path.read_bytes()[:10_001])
    with pytest.raises(RunError, match="changed after the check"):
        list(batches)
