"""Frames in, records out: digits exactly as sent, and nothing that is not a trade."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from loader_ws_trades.pipeline.stamps import StampingDecoder, record_headers, stamped
from loader_ws_trades.pipeline.trade import (
    KINDS,
    FrameDecoder,
    Trade,
    decode_rows,
    record_encoder,
)

FRAME = {
    "e": "trade",
    "E": 1672515782136,
    "s": "BNBBTC",
    "t": 12345,
    "p": "0.00100000",
    "q": "100.00000000",
    "T": 1672515782135,
    "m": True,
    "M": True,
}


def frame(**changes: Any) -> bytes:
    return json.dumps(FRAME | changes).encode()


def decode(*frames: bytes, symbol: str = "BNBBTC") -> tuple[list[Trade], list[str]]:
    trades, refusals = FrameDecoder({symbol}).decode(frames)
    return trades, [refusal.kind for refusal in refusals]


def test_record_has_six_fields_in_order_with_the_digits_as_sent() -> None:
    [trade], refused = decode(frame(p="20000.50", q="0.10000000"))
    assert not refused
    assert record_encoder("BNBBTC")(trade) == (
        '{"trade_id":12345,"price":20000.50,"quantity":0.10000000,"timestamp":1672515782135,'
        '"is_buyer_maker":true,"symbol":"BNBBTC"}'
    )


@pytest.mark.parametrize("digits", ["0", "0.00000001", "92233720368547758.07000000", "1" * 40 + "." + "9" * 40])
def test_record_keeps_any_digits(digits: str) -> None:
    [trade], _ = decode(frame(p=digits))
    record = json.loads(record_encoder("BNBBTC")(trade), parse_float=str, parse_int=str)
    assert record["price"] == digits
    assert Decimal(record["price"]) == Decimal(digits)


def test_frame_decoder_accepts_any_symbol_microseconds_and_unknown_fields() -> None:
    odd = frame(s="币安人生USDT", T=1672515782135999, b=88, new={"nested": [1]})
    [trade], refused = decode(odd, symbol="币安人生USDT")
    assert not refused
    assert trade.timestamp == 1672515782135
    assert json.loads(record_encoder("币安人生USDT")(trade))["symbol"] == "币安人生USDT"


def wrapped(data: bytes) -> bytes:
    return b'{"stream":"bnbbtc@trade","data":' + data + b"}"


def test_frame_decoder_accepts_plain_and_wrapped_frames_in_one_read() -> None:
    shutdown = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'
    plain = b'{"e":"serverShutdown","E":1770123456789}'
    decoder = FrameDecoder({"BNBBTC"})
    for read in (
        [wrapped(frame(t=1)), wrapped(frame(t=2))],
        [frame(t=1), frame(t=2)],
        [frame(t=1), wrapped(frame(t=2))],
        [wrapped(frame(t=1)), frame(t=2)],
        [wrapped(frame(t=1)), shutdown, frame(t=2), plain],
        [plain, shutdown, frame(t=1), wrapped(frame(t=2))],
    ):
        trades, refusals = decoder.decode(read)
        assert [trade.trade_id for trade in trades] == [1, 2]
        assert {refusal.kind for refusal in refusals} <= {"event serverShutdown"}
        assert len(trades) + len(refusals) == len(read)


@pytest.mark.parametrize("field", ["p", "q"])
@pytest.mark.parametrize("digits", ["1" * 51, "1" * 1_000_000, "0." + "1" * 51, "0." + "1" * 900_000])
def test_overlong_decimal_is_rejected_with_a_short_detail(field: str, digits: str) -> None:
    trades, refusals = FrameDecoder({"BNBBTC"}).decode([frame(t=1), frame(**{field: digits}), frame(t=2)])
    assert [trade.trade_id for trade in trades] == [1, 2]
    [refusal] = refusals
    assert refusal.kind == "invalid trade"
    assert len(refusal.detail) < 200


@pytest.mark.parametrize("value", ["9" * 1_000_000, "-" + "9" * 5000, "1e400", "9" * 400 + ".5"])
@pytest.mark.parametrize("field", ["t", "T", "E", "code", "e", "result"])
def test_huge_number_in_any_field_leaves_the_other_frames_alone(field: str, value: str) -> None:
    odd = json.dumps(FRAME | {field: "HERE"}).replace('"HERE"', value).encode()
    trades, refusals = FrameDecoder({"BNBBTC"}).decode([frame(t=1), odd, frame(t=2)])
    assert [trade.trade_id for trade in trades if trade.trade_id != 12345] == [1, 2]
    assert all(len(refusal.detail) < 300 for refusal in refusals)


def test_rest_rows_have_the_bounds_of_frames() -> None:
    row = {"id": 1, "price": "1.0", "qty": "2", "time": 1_700_000_000_000, "isBuyerMaker": True}
    rows = [row, row | {"price": "1" * 100_000}, row | {"qty": "0." + "1" * 51}]
    trades, refusals = decode_rows(json.dumps(rows).encode(), "BNBBTC")
    assert len(trades) == 1
    assert [refusal.kind for refusal in refusals] == ["invalid row"] * 2


NO_DECIMALS = ("", " 1", "1\n", "1\n2", "NaN", "Infinity", "1e5", "-1", "+1", "01", "1.", ".5", "\uff11", "1_0")
INVALID: list[dict[str, Any]] = [
    *({"p": value} for value in (*NO_DECIMALS, 1.5, None)),
    *({"q": "x"}, {"q": "1.5\n"}, {"t": -1}, {"t": 2**63}, {"t": "1"}, {"t": 1.5}),
    *({"T": 0}, {"T": -5}, {"T": "now"}, {"m": 1}, {"p": "1\n2", "q": "3"}),
]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        *((FRAME | {"t": 99} | changes, "invalid trade") for changes in INVALID),
        *(({key: value for key, value in FRAME.items() if key != missing}, "invalid trade") for missing in "stpqTm"),
        (FRAME | {"s": "ETHBTC"}, "other symbol"),
    ],
    ids=str,
)
def test_bad_frame_is_rejected_alone_wherever_it_stands_and_in_either_form(bad: dict[str, Any], kind: str) -> None:
    good = [frame(t=number) for number in range(1, 4)]
    for odd in (json.dumps(bad).encode(), wrapped(json.dumps(bad).encode())):
        for place in range(len(good) + 1):
            trades, rejected = decode(*good[:place], odd, *good[place:])
            assert [trade.trade_id for trade in trades] == [1, 2, 3]
            assert rejected == [kind]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (frame()[:-1], "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"\xff\xfe", "malformed"),
        (frame().replace(b"BNBBTC", b"\xff\xfe"), "invalid trade"),
        (b"[]", "malformed"),
        (b'{"e":"serverShutdown","E":1770123456789}', "event serverShutdown"),
        (b'{"e":"aggTrade","s":"BNBBTC"}', "event aggTrade"),
        (b'{"result":null,"id":1}', "acknowledgement"),
        (b'{"code":2,"msg":"Invalid request"}', "error message"),
        (b'{"error":{"code":4,"msg":"x"},"id":19}', "error message"),
        (b"{}", "unknown"),
        (frame(s="bnbbtc"), "other symbol"),
    ],
)
def test_rejected_frames_have_a_kind(data: bytes, kind: str) -> None:
    assert decode(data) == ([], [kind])
    assert kind in KINDS or kind == "event aggTrade"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_stamped_trade_has_headers_and_the_same_record(wrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    data = frame(E=1672515782136)
    if wrapped:
        data = b'{"stream":"bnbbtc@trade","data":' + data + b"}"
    [stamped_trade], _ = StampingDecoder({"BNBBTC"}, "stream").decode([data])
    [plain], _ = FrameDecoder({"BNBBTC"}).decode([data])
    assert record_encoder("BNBBTC")(stamped_trade) == record_encoder("BNBBTC")(plain)
    stamps = {"received": "1700000000123456789", "source": "stream", "event_time": "1672515782136"}
    assert dict(record_headers(stamped_trade)) == stamps
    assert record_headers(plain) == []
    [from_rest] = stamped([plain], "rest")
    assert dict(record_headers(from_rest)) == {"received": "1700000000123456789", "source": "rest"}
    [again] = stamped([stamped_trade], "recording")
    assert dict(record_headers(again)) == stamps | {"source": "recording"}


def test_a_frame_cannot_bring_its_own_stamps() -> None:
    data = frame(**{" received": 5, " source": "elsewhere", "received": 6, "source": "elsewhere"})
    [trade], _ = StampingDecoder({"BNBBTC"}, "stream").decode([data])
    headers = dict(record_headers(trade))
    assert headers["source"] == "stream"
    assert int(str(headers["received"])) > 10**18
