"""Public archive files: every trade once, ascending by id; of a broken file nothing."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from loader_ws_trades.binance.archive import Archive
from loader_ws_trades.binance.archive_tally import MAX_LISTED, Summary
from loader_ws_trades.errors import ConfigurationError, RunError
from loader_ws_trades.pipeline.sequencer import Gap
from loader_ws_trades.pipeline.trade import Trade, record_encoder
from tests.tools import recorded

NAME = "BTCUSDT-trades-2025-01-31"
BEFORE, SINCE = 1735600000123, 1738281600456789  # a time in milliseconds, one in microseconds
HEADER = "id,price,qty,quoteQty,time,isBuyerMaker,isBestMatch"
PUBLISHED = recorded.SHARED.with_name("POLUSDT-trades-2025-10-10.zip")


def row(trade_id: int, price: str = "42000.10000000", when: int = SINCE, side: str = "True") -> str:
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


def with_checksum(path: Path, form: str = "{digest}  {name}\n") -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".CHECKSUM").write_text(form.format(digest=digest, name=path.name))
    return path


def load(*paths: Path, symbol: str = "BTCUSDT") -> tuple[Summary, list[Trade]]:
    archive = Archive(paths, symbol)
    summary = archive.check()
    trades = [trade for batch in archive.batches() for trade in batch]
    assert len(trades) == summary.trades
    return summary, trades


def ids(trades: Iterable[Trade]) -> list[int]:
    return [trade.trade_id for trade in trades]


def refused(*paths: Path, symbol: str = "BTCUSDT", published: bool = False) -> str:
    """The sentence with which files are refused before a trade is given out."""
    archive = Archive(paths, symbol)
    with pytest.raises(ConfigurationError) as caught:
        archive.check()
    assert caught.value.exit_code == 2
    assert list(archive.batches()) == []
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert any(path.name in sentence for path in paths)
    return sentence


def test_the_archive_and_the_stream_give_the_same_records() -> None:
    if not PUBLISHED.exists():
        pytest.skip("the recorded archive is not there")
    summary, trades = load(PUBLISHED, symbol="POLUSDT")
    encode = record_encoder("POLUSDT")
    frames = recorded.frames(recorded.SHARED)
    for trade, frame in zip(trades, frames, strict=True):
        record = json.loads(encode(trade), parse_float=str)
        assert record == {
            "trade_id": frame["t"],
            "price": frame["p"],
            "quantity": frame["q"],
            "timestamp": frame["T"],
            "is_buyer_maker": frame["m"],
            "symbol": "POLUSDT",
        }
    assert summary == Summary(
        frames[0]["t"], frames[-1]["t"], frames[0]["T"], frames[-1]["T"], recorded.COUNT, 0, (), 0, 0
    )


@pytest.mark.parametrize("made", [csv, zipped])
def test_a_file_is_read_with_and_without_header(tmp_path: Path, made: Any) -> None:
    for number, head in enumerate([[], [HEADER], ["ID,Price,QTY,quote_qty,time,is_buyer_maker,is_best_match"]]):
        summary, trades = load(made(tmp_path, [*head, *rows(range(100, 10_100))], f"BTCUSDT-trades-2025-0{number + 1}"))
        assert ids(trades) == list(range(100, 10_100))
        assert trades[0] == Trade(100, "42000.10000000", "0.00100000", SINCE // 1000, True, "BTCUSDT")
        assert trades[2].is_buyer_maker is False
        assert (summary.first_id, summary.last_id, summary.trades) == (100, 10_099, 10_000)


def test_times_are_milliseconds_whatever_the_file_has(tmp_path: Path) -> None:
    lines = [row(1, when=BEFORE), row(2, when=SINCE), row(3, when=10**15), row(4, when=1)]
    _, trades = load(csv(tmp_path, lines))
    assert [trade.timestamp for trade in trades] == [BEFORE, SINCE // 1000, 10**12, 1]


def test_forms_of_line_ends_sides_and_names_that_are_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "some trades.csv"
    path.write_bytes("\r\n".join(["\ufeff" + row(1, side="true"), row(2, side="false"), "", row(3)]).encode())
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        _, trades = load(path)
    assert [(trade.trade_id, trade.is_buyer_maker) for trade in trades] == [(1, True), (2, False), (3, True)]
    assert "some trades.csv does not say whose trades it holds" in caplog.text
    assert "was not verified: there is no some trades.csv.CHECKSUM" in caplog.text


@pytest.mark.parametrize("symbol", ["币安人生USDT", "A-B.C_D"])
def test_a_symbol_may_hold_any_letters(tmp_path: Path, symbol: str) -> None:
    _, trades = load(zipped(tmp_path, rows([1]), f"{symbol}-trades-2025-01"), symbol=symbol)
    assert trades[0].symbol == symbol


# Checksums


@pytest.mark.parametrize("form", ["{digest}  {name}\n", "{digest} *{name}", "{digest}  other.zip\n"])
def test_a_checksum_is_verified(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    path = with_checksum(zipped(tmp_path, rows([1, 2])), form)
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        load(*sorted(tmp_path.glob(f"{NAME}*")))
    assert "is the file that" in caplog.text
    csv(tmp_path, rows([1]))
    path.write_bytes(zipped(tmp_path, rows([1, 3])).read_bytes())
    assert "is not the file that BTCUSDT-trades-2025-01-31.zip.CHECKSUM is for; download both again" in refused(path)


@pytest.mark.parametrize("text", [b"", b"<xml>404</xml>", b"\xff\xfe", b"0123  BTCUSDT-trades-2025-01-31.zip"])
def test_a_checksum_file_that_says_nothing_is_a_fault(tmp_path: Path, text: bytes) -> None:
    path = zipped(tmp_path, rows([1]))
    path.with_name(path.name + ".CHECKSUM").write_bytes(text)
    assert "download it again or remove it" in refused(path)


# Broken files


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in refused(tmp_path / f"{NAME}.zip")
    assert "cannot be read (File name too long)" in refused(tmp_path / ("x" * 300))
    (tmp_path / "folder").mkdir()
    assert "is not a regular file" in refused(tmp_path / "folder")
    empty = tmp_path / f"{NAME}.csv"
    empty.touch()
    assert "is empty; download it again" in refused(empty)
    with pytest.raises(ConfigurationError, match="name at least one"):
        Archive([f"{NAME}.zip.CHECKSUM"], "BTCUSDT").check()


def test_faults_of_several_files_are_told_together(tmp_path: Path) -> None:
    sentence = refused(tmp_path / "one.zip", tmp_path / "two.csv")
    assert "one.zip cannot be read" in sentence
    assert "two.csv cannot be read" in sentence


def test_a_zip_without_exactly_one_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.zip"
    for names, said in (["readme.txt"], "holds no csv file;"), (["a.csv", "b.csv"], "holds 2 csv files;"):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, row(1))
        assert said in refused(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{NAME}.csv", "")
    assert "holds an empty csv file" in refused(path)
    assert "holds no trades" in refused(zipped(tmp_path, [HEADER]))
    assert "holds no trades" in refused(csv(tmp_path, ["", ""]))


@pytest.mark.parametrize("share", [0.0001, 0.3, 0.999])
def test_a_truncated_zip_is_refused(tmp_path: Path, share: float) -> None:
    path = zipped(tmp_path, rows(range(20_000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: max(4, int(share * len(whole)))])
    assert "is damaged" in refused(path)


def test_a_file_that_is_named_zip_and_is_none(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.zip"
    path.write_text("<Error><Code>NoSuchKey</Code></Error>")
    assert "is damaged (it is no zip)" in refused(path)


def test_any_damage_to_a_zip_is_found_before_anything_is_given_out(tmp_path: Path) -> None:
    path = zipped(tmp_path, rows(range(2000)))
    whole = path.read_bytes()
    _, trades = load(path)
    rng = random.Random(7)
    sentences = []
    for _ in range(400):
        broken = bytearray(whole)
        position = rng.randrange(len(broken))
        broken[position] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            _, now = load(path)
        except ConfigurationError as error:
            sentences.append(str(error))
        else:
            assert now == trades, f"byte {position}"  # a date, an attribute
    assert len(sentences) > 300
    assert all(NAME in sentence for sentence in sentences)


def test_a_zip_that_is_packed_in_another_way_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr(f"{NAME}.csv", row(1))
    assert "packed in a way that the exchange does not use" in refused(path)


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, rows([1]))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is damaged" in refused(path)


# Lines that are no trade


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rubbish", "has 1 column where a spot archive has 7: 'rubbish'"),
        ("12,1.0,1.0,1.0", "has 4 columns where"),
        (row(12) + ",True", "has 8 columns where"),
        (HEADER, "has the id 'id', which is no whole number"),
        (row(12).replace("12,", "-12,", 1), "has the id '-12'"),
        (row(12).replace("12,", "1e3,", 1), "has the id '1e3'"),
        ("9" * 19 + row(12)[2:], "which is no whole number of at most 18 digits"),
        (row(12, price="1e5"), "has the price '1e5', which is no plain decimal number"),
        (row(12, price="NaN"), "has the price 'NaN'"),
        (row(12, price="-1.0"), "has the price '-1.0'"),
        (row(12, price="01.5"), "has the price '01.5'"),
        (row(12, price="1."), "has the price '1.'"),
        (row(12, price="\u0661"), "which is no plain decimal number"),
        (row(12).replace("0.00100000", ""), "has the qty ''"),
        (row(12, when=0), "has the time '0', which is no time in milliseconds or microseconds"),
        (row(12, when=SINCE * 1000), "has the time"),
        (row(12, when=-SINCE), "has the time"),
        (row(12, side="1"), "has the isBuyerMaker '1', which is no True or False"),
        (row(12)[:-2], "has the isBestMatch 'Tr'"),
        ("\x00" * 30, "has 1 column "),
        (row(12) + "\r" + row(13), "has 13 columns"),
    ],
)
def test_a_line_of_rubbish_is_refused_before_anything_is_given_out(tmp_path: Path, line: str, said: str) -> None:
    for made in (csv, zipped):
        for head in ([], [HEADER]):
            sentence = refused(made(tmp_path, [*head, *rows(range(9000)), "", line, *rows(range(9000, 9010))]))
            assert f", line {9002 + len(head)}, " in sentence
            assert said in sentence
            assert "nothing was published" in sentence


def test_a_last_line_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = csv(tmp_path, rows(range(10)))
    path.write_bytes(path.read_bytes()[:-3])
    assert "line 10, has the isBestMatch 'Tr'" in refused(path)


def test_a_line_without_end_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / f"{NAME}.csv"
    with path.open("wb") as file:
        file.truncate(500_000_000)
    began = time.monotonic()
    assert "line 1, is longer than" in refused(path)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["id,price,qty,quote_qty,time,is_buyer_maker"], "futures trades"),
        (["id,price,qty,base_qty,time,is_buyer_maker"], "futures trades"),
        (["5,42000.1,0.001,42.0001,1738281600456,true"], "futures trades"),
        (["5,42000.10000000,0.00100000,5,7,1738281600456789,True,True"], "aggregated trades"),
        (["5,42000.1,0.001,5,7,1738281600456,true"], "aggregated trades"),
        (
            ["agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"],
            "aggregated trades",
        ),
        (["a,p,q,f,l,T,m,M"], "aggregated trades"),
        (["1738281600000000,1,2,1,2,9,1738281659999999,9,4,5,6,0"], "candlesticks"),
        (["open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore"], "candlesticks"),
    ],
)
def test_archives_of_another_kind_are_refused_by_what_they_are(tmp_path: Path, lines: list[str], kind: str) -> None:
    assert f"holds {kind}; give an archive of spot trades" in refused(zipped(tmp_path, lines))


# Symbols


def test_an_archive_of_another_symbol_is_refused(tmp_path: Path) -> None:
    said = refused(zipped(tmp_path, rows([1]), "ETHUSDT-trades-2025-01-31"))
    assert "SYMBOL (--symbol) is BTCUSDT, but" in said
    assert "holds trades of ETHUSDT" in said
    inside = tmp_path / "download.zip"
    zipped(tmp_path, rows([1]), "ETHUSDT-trades-2025-01").rename(inside)
    assert "holds trades of ETHUSDT" in refused(inside)


# Order, holes, duplicates


def test_a_file_that_is_not_in_order_is_sorted_and_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = rows(range(20_000))
    random.Random(3).shuffle(lines)
    with caplog.at_level(logging.INFO, "loader_ws_trades"):
        summary, trades = load(csv(tmp_path, lines))
    assert ids(trades) == list(range(20_000))
    assert (summary.duplicates, summary.holes) == (0, ())
    assert "is not in order of ids and is sorted in memory" in caplog.text


def test_holes_within_and_between_files_are_named(tmp_path: Path) -> None:
    first = csv(tmp_path, rows([5, 6, 9, 10, *range(20, 9000), *range(9001, 9500)]))
    second = zipped(tmp_path, rows(range(9600, 9700)), "BTCUSDT-trades-2025-02-01")
    third = zipped(tmp_path, rows(range(9700, 9800)), "BTCUSDT-trades-2025-02-02")
    summary, trades = load(third, first, second)
    assert ids(trades) == [5, 6, 9, 10, *range(20, 9000), *range(9001, 9500), *range(9600, 9800)]
    assert summary.holes == (Gap(7, 8), Gap(11, 19), Gap(9000, 9000), Gap(9500, 9599))
    assert (summary.hole_count, summary.missing) == (4, 2 + 9 + 1 + 100)


def test_very_many_holes_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    first = csv(tmp_path, rows(range(0, 3 * MAX_LISTED, 2)))
    second = csv(tmp_path, rows(range(5 * MAX_LISTED, 6 * MAX_LISTED, 2)), "BTCUSDT-trades-2025-02-01")
    summary, _ = load(first, second)
    assert len(summary.holes) == MAX_LISTED
    assert summary.hole_count == summary.trades - 1
    assert summary.missing == summary.last_id - summary.first_id + 1 - summary.trades


def test_rows_that_repeat_are_left_out_and_counted(tmp_path: Path) -> None:
    summary, trades = load(csv(tmp_path, rows([1, 1, 2, 3, 3, 3, 4])))
    assert ids(trades) == [1, 2, 3, 4]
    assert summary.duplicates == 3


def test_files_that_overlap_are_merged(tmp_path: Path) -> None:
    month = zipped(tmp_path, rows([*range(9000), *range(9010, 20_000)]), "BTCUSDT-trades-2025-01")
    day = csv(tmp_path, rows(range(8990, 9020)))
    late = csv(tmp_path, rows(range(19_000, 25_000)), "BTCUSDT-trades-2025-02")
    summary, trades = load(late, day, month, month)
    assert ids(trades) == list(range(25_000))
    assert summary.duplicates == 20_000 - 10 + 20 + 1000
    assert (summary.holes, summary.first_id, summary.last_id) == ((), 0, 24_999)


def test_an_id_that_stands_twice_with_different_contents_is_a_fault(tmp_path: Path) -> None:
    lines = rows(range(9000))
    said = refused(csv(tmp_path, [*lines[:8000], row(7999, price="1.0"), *lines[8000:]]))
    assert "The trade id 7999 stands twice with different contents" in said
    shuffled = [*lines, row(4000, price="1.0")]
    assert "The trade id 4000 stands twice" in refused(csv(tmp_path, shuffled))
    one, two = csv(tmp_path, lines), csv(tmp_path, [row(8999, price="1.0")], "BTCUSDT-trades-2025-02")
    said = refused(one, two)
    assert "The trade id 8999 stands twice" in said
    assert one.name in said
    assert two.name in said


def test_the_same_trade_in_milliseconds_and_microseconds_is_no_contradiction(tmp_path: Path) -> None:
    summary, _ = load(csv(tmp_path, [row(1, when=SINCE), row(1, when=SINCE // 1000)]))
    assert summary.duplicates == 1


# Two passes


@pytest.mark.parametrize("made", [csv, zipped])
def test_a_file_that_changes_after_the_check_ends_the_run(tmp_path: Path, made: Any) -> None:
    archive = Archive([made(tmp_path, rows(range(10_000)))], "BTCUSDT")
    archive.check()
    made(tmp_path, rows(range(20_000)))
    with pytest.raises(RunError, match="changed after the check"):
        next(archive.batches())


@pytest.mark.parametrize("then", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:200])])
def test_a_file_that_changes_while_it_is_given_out_ends_the_run(tmp_path: Path, then: Any) -> None:
    path = csv(tmp_path, rows(range(50_000)))
    archive = Archive([path], "BTCUSDT")
    archive.check()
    batches = archive.batches()
    assert ids(next(batches))[0] == 0
    then(path)
    with pytest.raises(RunError, match="changed after the check"):
        for _ in batches:
            pass


def test_the_check_can_be_stopped(tmp_path: Path) -> None:
    stopping = threading.Event()
    archive = Archive([csv(tmp_path, rows(range(10)))], "BTCUSDT", stopping)
    assert archive.share == 0.0
    archive.check()
    assert archive.share == 1.0
    stopping.set()
    with pytest.raises(RunError, match="nothing was published"):
        Archive([csv(tmp_path, rows(range(10)))], "BTCUSDT", stopping).check()


def test_memory_stays_bounded(tmp_path: Path) -> None:
    archive = Archive([zipped(tmp_path, rows(range(100_000)))], "BTCUSDT")
    tracemalloc.start()
    try:
        assert archive.check().trades == 100_000
        assert sum(map(len, archive.batches())) == 100_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
