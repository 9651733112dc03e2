"""Limits of the exchange: connection attempts, request weight, pauses, and headers that are not numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import urllib3

from loader_ws_trades.binance import rest, rest_client
from loader_ws_trades.binance.http_client import Response
from loader_ws_trades.binance.rate_limits import LONGEST_PAUSE, AttemptLimit, WeightLimit
from loader_ws_trades.binance.rest_errors import unreachable
from loader_ws_trades.errors import UnavailableError
from tests.unit.clock import FakeClock

# Header values that look like numbers, or that Python calls digits.
NOT_NUMBERS = ["", "1e400", "\xb2", "٣", "-5", "1.5", "0x10", "nan", "inf", "9" * 5000, "Wed, 21 Oct 2026 07:28:00 GMT"]


class Wire:
    """Stands for `HttpClient`; `answer` is what it gives, or raises."""

    answer: Response | Exception = Response(200, {}, b"[]")
    asked = 0

    def __init__(self, *_: object) -> None:
        """Take what a `HttpClient` takes."""

    def close(self) -> None:
        """Do nothing."""

    def get(self, _url: str, _fields: Mapping[str, Any]) -> Response:
        type(self).asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Callable[..., rest.Rest]:
    def made(status: int = 200, body: bytes = b"[]", limit: int = 3000, **headers: str) -> rest.Rest:
        Wire.asked = 0
        Wire.answer = Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return rest.Rest("http://rest.invalid", clock.event(), weight_limit=limit)

    monkeypatch.setattr(rest_client, "HttpClient", Wire)
    return made


def refusal_of(client: rest.Rest) -> UnavailableError:
    with pytest.raises(UnavailableError) as caught:
        client.trades_from("POLUSDT", 7)
    return caught.value


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize("asked", NOT_NUMBERS)
def test_invalid_retry_after_pauses_half_a_minute(make: Callable[..., rest.Rest], status: int, asked: str) -> None:
    assert refusal_of(make(status, Retry_After=asked)).retry_after == 30


@pytest.mark.parametrize(
    ("asked", "seconds"), [("7", 7), (" 120 ", 120), ("10000000000", LONGEST_PAUSE), ("999999999999999", LONGEST_PAUSE)]
)
@pytest.mark.parametrize("status", [429, 418, 503])
def test_retry_after_is_bounded(make: Callable[..., rest.Rest], status: int, asked: str, seconds: float) -> None:
    assert refusal_of(make(status, Retry_After=asked)).retry_after == seconds


@pytest.mark.parametrize("counted", NOT_NUMBERS)
def test_used_weight_that_is_not_a_number_is_ignored(make: Callable[..., rest.Rest], counted: str) -> None:
    client = make(X_MBX_USED_WEIGHT_1M=counted)
    assert client.trades_from("POLUSDT", 7) == ([], [])
    assert (client.counted, client.weight_used) == (None, 25)


def test_absurd_used_weight_costs_at_most_a_minute_a_request(make: Callable[..., rest.Rest], clock: FakeClock) -> None:
    client = make(X_MBX_USED_WEIGHT_1M="9" * 15)
    began = clock.now
    for _ in range(3):
        client.trades_from("POLUSDT", 7)
    assert clock.now - began == pytest.approx(120)


def test_request_during_a_pause_fails_at_once_without_asking(make: Callable[..., rest.Rest], clock: FakeClock) -> None:
    client, began = make(418, Retry_After="120"), clock.now
    refusal_of(client)
    Wire.answer = Response(200, {}, b"[]")
    clock.advance(100)
    error = refusal_of(client)
    assert (clock.now - began, Wire.asked) == (100, 1), "it neither waited nor asked"
    assert error.retry_after == 20
    assert "20 more seconds" in str(error)
    clock.advance(20)
    assert client.trades_from("POLUSDT", 7) == ([], [])


def test_wait_for_request_weight_ends_with_the_run(make: Callable[..., rest.Rest], clock: FakeClock) -> None:
    client, began = make(limit=25), clock.now
    client.trades_from("POLUSDT", 7)
    clock.after(5, client._stopping.set)
    assert "ending" in str(refusal_of(client))
    assert (clock.now - began, Wire.asked) == (5, 1)


def test_failed_request_names_the_url(make: Callable[..., rest.Rest]) -> None:
    client = make()
    Wire.answer = UnavailableError("no complete response in 10 s")
    assert str(refusal_of(client)) == "http://rest.invalid did not answer (no complete response in 10 s)"


def test_text_of_the_library_keeps_its_own_parentheses() -> None:
    error = urllib3.exceptions.HTTPError('Pool(): Retries (Caused by Error("Connection(): No host ([Errno -2])"))')
    assert str(unreachable(error, "http://x", None)) == "http://x did not answer (No host ([Errno -2]))"


# -- the weight of a minute


def sent_by(limit: WeightLimit, clock: FakeClock, seconds: float, weight: int = 25) -> list[float]:
    """When requests went out that were sent as early as the limit allows."""
    times: list[float] = []
    begin = clock.now
    while clock.now < begin + seconds:
        wait = limit.wait_needed(weight)
        assert wait >= 0
        if wait:
            clock.advance(wait)
            continue
        limit.spend(weight)
        times.append(clock.now - begin)
        clock.advance(0.05)  # an answer's time
        assert len(times) < 10_000
    return times


@pytest.fixture
def limit(clock: FakeClock) -> WeightLimit:
    return WeightLimit(3000, at_once=1 / 2)


@pytest.mark.parametrize("at_once", [1.0, 1 / 2])
@pytest.mark.parametrize("weight", [10, 25, 400])
def test_weight_limit_holds_in_any_60_seconds_and_is_used(clock: FakeClock, weight: int, at_once: float) -> None:
    times = sent_by(WeightLimit(3000, at_once), clock, 300, weight)
    for place, first in enumerate(times):
        used = weight * (bisect_left(times, first + 60) - place)
        assert used <= 3000, "whatever the phase of the exchange's minute"
    assert len(times) * weight > 0.85 * min(3000, weight * 20 * 60) * 300 / 60


def test_weight_limit_allows_a_burst_and_spreads_the_rest(limit: WeightLimit, clock: FakeClock) -> None:
    times = sent_by(limit, clock, 300)
    assert times[59] < 3.1, "half of it"
    pauses = [(at, later - at) for at, later in pairwise(times) if at >= times[59]]
    assert {round(pause, 1) for at, pause in pauses if at < 59} == {1.0}, "and no more, but never a long wait"
    assert max(pause for at, pause in pauses if at > 65) < 0.6
    assert times[399] < 203, "10,000 at 3,000 a minute"


def test_weight_limit_may_be_used_at_once(clock: FakeClock) -> None:
    times = sent_by(WeightLimit(3000), clock, 180)
    assert times[119] < 6.1, "all of it"
    assert times[120] == pytest.approx(60, abs=0.1)
    assert times[239] < 66.1


def test_weight_limit_never_stalls_behind_a_burst_in_the_middle_of_the_window(
    limit: WeightLimit, clock: FakeClock
) -> None:
    limit.spend(2)
    clock.advance(50)
    times = sent_by(limit, clock, 120)
    assert max(later - at for at, later in pairwise(times)) < 1.1


def test_small_gap_is_repaired_at_once_after_a_quiet_minute(limit: WeightLimit, clock: FakeClock) -> None:
    sent_by(limit, clock, 300)
    clock.advance(60)
    for _ in range(30):  # as looks at quiet pairs do
        limit.spend(2)
        clock.advance(2)
    assert sent_by(limit, clock, 0.5)[:5] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_weight_used_by_others_counts_for_a_minute(clock: FakeClock) -> None:
    limit = WeightLimit(100)
    limit.spend(25)
    limit.update(90)
    assert limit.used == 90, "others have used 65"
    assert limit.wait_needed(25) == 60
    clock.advance(59.9)
    assert limit.wait_needed(25) > 0
    clock.advance(0.1)
    assert (limit.wait_needed(25), limit.used) == (0, 0)


def test_weight_limit_allows_the_limit_and_nothing_beyond(clock: FakeClock) -> None:
    limit = WeightLimit(75)
    limit.spend(50)
    clock.advance(59)
    assert limit.wait_needed(25) == 0, "75 of 75"
    assert limit.wait_needed(26) == 1, "until the 50 are a minute old"
    clock.advance(1)
    assert (limit.used, limit.wait_needed(75)) == (0, 0)


def test_longer_of_two_pauses_holds(limit: WeightLimit, clock: FakeClock) -> None:
    assert limit.paused == 0
    limit.pause(7)
    limit.pause(3)
    assert limit.paused == 7
    clock.advance(7)
    assert limit.paused == 0


def test_long_wait_for_weight_is_logged_once_with_its_end(
    make: Callable[..., rest.Rest], logged: pytest.LogCaptureFixture
) -> None:
    client = make(X_MBX_USED_WEIGHT_1M="2990")
    client.trades_from("POLUSDT", 7)
    assert logged.messages == []
    client.trades_from("POLUSDT", 8)
    begin, end = logged.messages
    assert begin.startswith("Waiting 60 s for request weight: 2990 of REST_WEIGHT_LIMIT")
    assert end == "Request weight available after 60 s"


def row(trade_id: int, time: int) -> dict[str, Any]:
    return {"id": trade_id, "price": "1", "qty": "1", "quoteQty": "1", "time": time, "isBuyerMaker": True}


@pytest.mark.parametrize(
    ("aggregates", "rows", "found"),
    [
        ([], [], None),
        ([100], [row(99, 9), row(100, 10)], 100),
        ([100], [row(99, 10), row(100, 10)], 99),  # the aggregated trade before it ended later than the time asked for
        ([-1, -1, 100], [row(100, 10)], 100),  # aggregated trades that hold no trade
        ([-1], [], "name no trade ids"),
        ([100], [row(7, 10), row(8, 11)], "does not have the trade 100"),  # another question's answer, out of a cache
        ([100], [row(5000, 10)], "does not have the trade 100"),
    ],
)
def test_first_trade_at_a_time(
    make: Callable[..., rest.Rest],
    monkeypatch: pytest.MonkeyPatch,
    aggregates: list[int],
    rows: list[dict[str, Any]],
    found: int | str | None,
) -> None:
    client = make()

    def get(_: Wire, url: str, _fields: Mapping[str, Any]) -> Response:
        answer = [{"f": first} for first in aggregates] if url.endswith("aggTrades") else rows
        return Response(200, {}, msgspec.json.encode(answer))

    monkeypatch.setattr(Wire, "get", get)
    if isinstance(found, str):
        with pytest.raises(UnavailableError, match=found):
            client.first_id_at("POLUSDT", 10)
    else:
        assert client.first_id_at("POLUSDT", 10) == found


def test_attempts_are_limited_over_a_sliding_period(clock: FakeClock) -> None:
    limit, start = AttemptLimit(3, 300.0), clock.now
    for second in (0, 10, 20):
        clock.now = start + second
        assert limit.wait_needed() == 0
        limit.note()
    clock.now = start + 30
    assert limit.wait_needed() == 270
    clock.now = start + 300
    assert limit.wait_needed() == 0
    limit.note()
    assert limit.wait_needed() == 10
