"""The feed with many pairs: which connection carries which, how pairs join and leave, one outage for each group."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from loader_ws_trades.binance import group
from loader_ws_trades.errors import RunError
from loader_ws_trades.pipeline.trade import ACKNOWLEDGEMENT, ERROR_MESSAGE, RejectedFrame
from tests.unit.test_feed import NO_TRADE, TRADE, WAIT, Scene, Scripted, scene

__all__ = ["scene"]  # the fixture

Make = Callable[..., Scene]


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_PAIRS", 3)


def pairs_of(connection: Scripted) -> list[str]:
    """The pairs in a connection's URL."""
    query = unquote(urlsplit(connection.url).query)
    return [name.removesuffix("@trade").upper() for name in query.removeprefix("streams=").split("/")]


def message(connection: Scripted) -> dict[str, Any]:
    """The message that was sent last."""
    return msgspec.json.decode(connection.sent[-1], type=dict[str, Any])


def acknowledge(made: Scene, connection: Scripted, number: int) -> bool:
    """The exchange's answer to that message on the connection with this number; whether it was expected."""
    answer = f'\'{{"result":null,"id":{message(connection)["id"]}}}\''
    return made.feed.note_answer(RejectedFrame(ACKNOWLEDGEMENT, answer), number)


def opened(made: Scene) -> list[Scripted]:
    """The connections of all groups, open."""
    found = [made.start()]
    found += [made.next() for _ in made.feed.groups[1:]]
    found.sort(key=pairs_of)
    for each in found:
        each.open()
    return found


def test_pairs_are_spread_over_connections(scene: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    names = [f"N{number}USDT" for number in range(7)]
    made = scene(*names)
    found = opened(made)
    assert [pairs_of(each) for each in found] == made.carried == [names[:3], names[3:6], names[6:]]
    assert all(each.url.startswith("wss://stream.binance.com:9443/stream?streams=") for each in found)
    assert [made.feed.group(name) for name in names] == [0, 0, 0, 1, 1, 1, 2]
    assert all(map(made.feed.is_open, names))
    assert made.feed.trouble() is None
    assert made.feed.connections == 3
    found[2].end()
    again = made.next()
    made.wait(2.5)
    again.open()
    at = "Connected to wss://stream.binance.com:9443/stream for"
    assert caplog.messages[:3] == [f"{at} 3 pairs", f"{at} 3 pairs", f"{at} 1 pair"]
    assert caplog.messages[-1] == f"{at} 1 pair again after 3.0 s"


def test_no_url_is_longer_than_the_exchange_takes(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "_PAIRS", 200)
    made = scene(*(f"币安{number:040}USDT" for number in range(250)))
    found = opened(made)
    assert sorted(chain(*made.carried)) == sorted(chain(*map(pairs_of, found)))
    assert len(found) > 2
    assert max(len(each.url) for each in found) < 8000


def test_pairs_join_on_a_connection_with_room(scene: Make) -> None:
    made = scene("AUSDT")
    [first] = opened(made)
    made.feed.add("BUSDT")
    made.feed.add("币USDT")
    assert not made.feed.is_open("BUSDT")
    made.feed.tick()
    assert message(first) == {
        "method": "SUBSCRIBE",
        "params": ["busdt@trade", "币usdt@trade"],
        "id": message(first)["id"],
    }
    made.wait(5)
    assert len(first.sent) == 1, "the answer is awaited"
    assert acknowledge(made, first, 1)
    assert made.joined == [(1, ["BUSDT", "币USDT"])]
    assert made.feed.is_open("BUSDT")
    assert not acknowledge(made, first, 1), "there was one already"
    made.wait(60)
    assert len(first.sent) == 1
    first.end()
    assert pairs_of(made.next()) == ["AUSDT", "BUSDT", "币USDT"]


def test_a_message_follows_half_a_second_after_the_answer(scene: Make) -> None:
    made = scene("AUSDT")
    [first] = opened(made)
    made.feed.add("BUSDT")
    made.feed.tick()
    made.wait(0.9)  # a message may wait to be sent
    assert acknowledge(made, first, 1)
    made.feed.add("CUSDT")
    made.wait(0.49)
    assert len(first.sent) == 1
    made.wait(0.01)
    assert message(first)["params"] == ["cusdt@trade"]


def test_an_absent_answer_is_logged_and_the_message_sent_again(scene: Make, caplog: pytest.LogCaptureFixture) -> None:
    made = scene("AUSDT")
    [first] = opened(made)
    made.feed.add("BUSDT")
    made.feed.tick()
    before = message(first)
    made.wait(9.9)
    assert len(first.sent) == 1
    made.wait(0.1)
    assert message(first)["params"] == before["params"]
    assert "The exchange has not answered SUBSCRIBE for BUSDT in 10 s; asking again" in caplog.text
    late = RejectedFrame(ACKNOWLEDGEMENT, f'{{"result":null,"id":{before["id"]}}}')
    assert not made.feed.note_answer(late, 1)
    assert not made.feed.is_open("BUSDT")
    assert acknowledge(made, first, 1)
    assert made.feed.is_open("BUSDT")


@pytest.mark.parametrize(
    "detail", ['{"error":{"code":4,"msg":"Too many"},"id":%d}', '{"code":2,"msg":"Invalid request"}%.0s']
)
def test_a_rejected_message_is_logged_and_sent_again_later(
    scene: Make, caplog: pytest.LogCaptureFixture, detail: str
) -> None:
    made = scene("AUSDT")
    [first] = opened(made)
    made.feed.add("BUSDT")
    made.feed.tick()
    assert not made.feed.note_answer(RejectedFrame(ERROR_MESSAGE, '{"code":2,"msg":"?","id":999}'), 1)
    assert made.feed.note_answer(RejectedFrame(ERROR_MESSAGE, detail % message(first)["id"]), 1)
    assert "The exchange rejects SUBSCRIBE for BUSDT: " in caplog.text
    assert not made.joined
    made.wait(29.9)
    assert len(first.sent) == 1
    made.wait(0.2)
    assert acknowledge(made, first, 1)
    assert made.joined == [(1, ["BUSDT"])]


def test_a_pair_that_joined_while_connecting_is_asked_for_once_it_is_open(scene: Make) -> None:
    made = scene("AUSDT")
    first = made.start()
    made.feed.add("BUSDT")
    made.feed.tick()
    assert not first.sent
    first.open()
    assert made.carried == [["AUSDT"]]
    made.feed.tick()
    assert message(first)["params"] == ["busdt@trade"]


def test_a_full_group_is_joined_by_another_one(scene: Make) -> None:
    made = scene("AUSDT", "BUSDT", "CUSDT")
    [first] = opened(made)
    made.feed.add("DUSDT", "EUSDT")
    second = made.next()
    assert pairs_of(second) == ["DUSDT", "EUSDT"]
    assert "for 2 of 5 pairs" in str(made.feed.trouble())
    second.open()
    assert made.feed.trouble() is None
    made.feed.tick()
    assert not first.sent
    assert made.none_made()


def test_with_two_connections_a_pair_joins_on_both(scene: Make) -> None:
    made = scene("AUSDT", feed_connections="2")
    connections = [made.start(), made.next()]
    for each in connections:
        each.open()
    made.feed.add("BUSDT")
    made.feed.tick()
    assert acknowledge(made, connections[0], 1)
    assert acknowledge(made, connections[1], 2)
    assert sorted(made.joined) == [(1, ["BUSDT"]), (2, ["BUSDT"])]


def test_pairs_leave(scene: Make) -> None:
    made = scene("AUSDT", "BUSDT")
    [first] = opened(made)
    made.feed.remove("AUSDT")
    made.feed.tick()
    assert (message(first)["method"], message(first)["params"]) == ("UNSUBSCRIBE", ["ausdt@trade"])
    assert acknowledge(made, first, 1)
    assert not made.joined
    first.end()
    second = made.next()
    assert pairs_of(second) == ["BUSDT"]
    second.open()
    made.feed.remove("BUSDT")
    assert second.is_closed()
    assert made.feed.join(WAIT), "a group without pairs has ended"
    made.wait(1000)
    assert made.none_made()
    assert made.feed.activities() == []
    made.feed.add("CUSDT")
    assert pairs_of(made.next()) == ["CUSDT"]


def test_the_outage_of_one_group_ends_the_run(scene: Make) -> None:
    made = scene(*"ABCD", feed_outage_limit="100", max_connection_age="100h")
    first, second = opened(made)
    second.end()
    again = made.next()
    made.wait(99)
    first.bring(TRADE)
    assert str(made.feed.trouble()).endswith("for 1 of 4 pairs")
    made.clock.advance(1.1)
    with pytest.raises(RunError, match=r"No connection to the exchange at .* for 1 pair for 100 s"):
        made.feed.tick()
    again.open()
    made.feed.tick()


def test_a_connection_is_replaced_by_the_pair_it_carries(scene: Make) -> None:
    made = scene(*"ABCD")
    first, second = opened(made)
    made.feed.rotate("a test", symbol="D")
    new = made.next()
    assert pairs_of(new) == ["D"]
    new.open()
    new.bring(TRADE)
    assert (first.is_closed(), second.is_closed()) == (False, True), "one pair says all of one pair"


def test_an_old_connection_with_several_pairs_stays_a_while(scene: Make) -> None:
    made = scene(*"ABC")
    [old] = opened(made)
    made.feed.rotate("a test", symbol="A")
    new = made.next()
    new.open()
    new.bring(TRADE)
    assert not old.is_closed(), "another pair's trade may be on its way there"
    made.wait(5)
    new.bring(NO_TRADE)
    assert not old.is_closed()
    new.bring(TRADE)
    assert old.is_closed()


def test_a_reset_closes_the_connections_of_its_group_only(scene: Make) -> None:
    made = scene(*"ABCD", feed_connections="2")
    connections = [made.start(), *(made.next() for _ in range(3))]
    for each in connections:
        each.open()
    carrying = [each for each in connections if "A" in pairs_of(each)]
    made.feed.keep_only(connections.index(carrying[0]) + 1)
    assert [each for each in connections if each.is_closed()] == [carrying[1]]
