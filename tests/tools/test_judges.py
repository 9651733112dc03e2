"""The judges of the test tools must see planted faults. The tools themselves are tested by being used."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from loader_ws_trades.pipeline.trade import FrameDecoder, record_encoder
from loader_ws_trades.sandbox import EmbeddedBroker, Market, Skip, Trade, crowd
from tests.tools.apache_kafka.distribution import REPOSITORY
from tests.tools.bench.baselines.job import record as baseline_record
from tests.tools.bench.rates import Written, written
from tests.tools.bench.results import Results, comparison
from tests.tools.chaos.trial import Trial
from tests.tools.chaos.witness import compare, named_ids
from tests.tools.loader import Loader, Workflow
from tests.tools.processes import limited, start
from tests.tools.topics import read_topic, write_topic

UNREACHABLE = {"BINANCE_REST_URL": "http://127.0.0.1:9", "BINANCE_WS_URL": "ws://127.0.0.1:9/ws"}
SECRET = "hush-hush-secret"


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


# -- chaos: an independent consumer compares the topic with what the exchange sent

MARKET = Market.generated("POLUSDT", past=10, count=10)
TRADES = MARKET.trades(0, 10)


def record(trade: Trade, **other: object) -> bytes:
    """A record with the digits of the trade, except where `other` has different JSON."""
    fields = {
        "trade_id": trade.id,
        "price": trade.price,
        "quantity": trade.quantity,
        "timestamp": trade.time // 1000,
        "is_buyer_maker": json.dumps(trade.is_buyer_maker),
        "symbol": '"POLUSDT"',
    }
    return ("{" + ",".join(f'"{name}":{value}' for name, value in (fields | other).items()) + "}").encode()


RECORDS = [record(trade) for trade in TRADES]


def altered(**other: object) -> list[bytes]:
    return [record(TRADES[0], **other), *RECORDS[1:]]


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        (RECORDS, {}),
        (RECORDS[:4] + RECORDS[6:], {"lost": 2}),
        (RECORDS[2:], {"lost": 2}),
        (RECORDS[:5], {"lost": 5}),
        ([*RECORDS, RECORDS[3], RECORDS[3]], {"duplicated": 2}),
        ([*RECORDS[1:], RECORDS[0]], {"out_of_order": 1}),
        (altered(price="100.0"), {"altered": 1}),
        (altered(quantity="7"), {"altered": 1}),
        (altered(timestamp="1700000000000"), {"altered": 1}),
        (altered(is_buyer_maker='"yes"'), {"altered": 1}),
        (altered(symbol='"BTCUSDT"'), {"altered": 1}),
        (altered(more="1"), {"altered": 1}),
        (altered(trade_id=5), {"altered": 1, "lost": 1}),
        ([*RECORDS, b"rubbish"], {"altered": 1}),
    ],
)
def test_witness_counts_what_is_wrong_with_a_topic(
    broker: EmbeddedBroker, written: list[bytes], wrong: dict[str, int]
) -> None:
    topic = f"t-{uuid.uuid4()}"
    broker.create_topics(topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for value in written:
        time = next((trade.time // 1000 for trade in TRADES if b'"trade_id":%d,' % trade.id in value), 1)
        producer.produce(topic, value, "POLUSDT", timestamp=time)
    assert producer.flush(10) == 0
    counts = compare(MARKET, read_topic(broker.bootstrap_servers, topic), goal=TRADES[-1].id)
    columns = ("lost", "duplicated", "out_of_order", "altered")
    assert {name: getattr(counts, name) for name in columns} == dict.fromkeys(columns, 0) | wrong
    assert counts.issued == 10


def test_trial_fails_a_loader_that_loses_trades_and_ignores_records_of_its_own(broker: EmbeddedBroker) -> None:
    market = Market.generated("POLUSDT", rate=1000, start="subscriber")
    skip = Skip(20, after=500)
    with Trial("8 no repair", broker.bootstrap_servers, broker.create_topics, market, faults=[skip]) as trial:
        trial.start(GAP_REPAIR="off")
        trial.let_load(1500)
        trial.write(b"hello", None, b'{"trade_id":1000000000000}')
        trial.stop()
    counts = trial.outcome.counts
    assert counts is not None
    assert (counts.lost, counts.issued - counts.on_topic, counts.altered) == (20, 20, 0)
    assert not trial.outcome.passed


def test_trial_judges_each_of_several_pairs(broker: EmbeddedBroker) -> None:
    markets = crowd(2, 1000.0, start="subscriber")
    skip = Skip(20, after=300, symbol=markets[1].symbol)
    with Trial("30 no repair", broker.bootstrap_servers, broker.create_topics, *markets, faults=[skip]) as trial:
        trial.start(GAP_REPAIR="off")
        trial.let_load(700)
        trial.stop()
    counts = trial.outcome.counts
    assert counts is not None
    assert (counts.lost, counts.issued - counts.on_topic, counts.altered) == (20, 20, 0)
    assert counts.examples.startswith(f"{markets[1].symbol} lost: {markets[1].first_id + 300}")
    assert counts.issued > 1000


def test_named_ids_are_read_from_messages_and_bounded() -> None:
    messages = ["Loaded 7; missing trade ids 100-102, 110", "Loaded 8", "Loaded 9; missing trade ids 7"]
    assert named_ids(messages) == {100, 101, 102, 110, 7}
    with pytest.raises(AssertionError, match="1000-1000000000000"):
        named_ids(["Loaded 7; missing trade ids 7, 1000-1000000000000"])


# -- bench: a change is better or worse only if the rounds do not overlap


def results(*rates: float) -> Results:
    made = Results({})
    for rate in rates:
        made.add("saturation", "rate", "trades/s", "loader", rate, better="higher")
        made.add("memory", "idle", "MiB", "loader", 1e9 / rate, better="lower")
    return made


@pytest.mark.parametrize(
    ("after", "verdict"),
    [((500_000, 520_000), "better"), ((300_000, 320_000), "worse"), ((410_000, 500_000), "within the spread")],
)
def test_bench_comparison_judges_by_the_ranges_of_the_rounds(after: tuple[float, float], verdict: str) -> None:
    assert comparison(results(400_000, 420_000), results(*after)).count(verdict) == 2


def test_bench_baselines_write_the_fields_of_the_loader() -> None:
    frame = b'{"e":"trade","E":2,"s":"POLUSDT","t":1,"p":"0.10","q":"5.0","T":2,"m":true,"M":true}'
    [trade], _ = FrameDecoder({"POLUSDT"}).decode([frame])
    ours = json.loads(record_encoder("POLUSDT")(trade))
    assert list(baseline_record(json.loads(frame)).items()) == list(ours.items())


# -- every test: a loader that shows a secret fails it, and no child process hangs it


@pytest.mark.parametrize(
    ("argument", "variables", "where"),
    [
        # The loader cannot know that a command's name is its password.
        (SECRET, {"KAFKA_PASSWORD_PRODUCER": SECRET}, "standard error"),
        ("--version", {"KAFKA_PASSWORD_CONSUMER": "loader-ws-trades"}, "standard output"),
    ],
)
def test_secret_scan_searches_both_outputs(argument: str, variables: dict[str, str], where: str) -> None:
    loader = Loader(argument, **variables)
    loader.wait()
    with pytest.raises(AssertionError, match=where):
        loader.close()


def test_secret_scan_searches_the_events_topic_and_closes_every_loader(broker: EmbeddedBroker) -> None:
    workflow = Workflow(broker.bootstrap_servers, broker.create_topics)
    first = workflow.run(KAFKA_PASSWORD_PRODUCER=SECRET, KAFKA_USER_PRODUCER="someone")
    second = workflow.run(**UNREACHABLE)
    write_topic(workflow.servers, workflow.events_topic, json.dumps({"message": f"a {SECRET}"}).encode())
    with pytest.raises(AssertionError, match="queue-events"):
        workflow.close()
    assert first.process.returncode is not None
    assert second.process.returncode is not None


def test_secret_scan_knows_every_secret_a_loader_is_given(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush-in-a-file\n")
    loader = Loader(
        *("run", "--kafka-password-producer", "hush-in-a-flag", "-X", "ssl.key.password=hush-in-a-property"),
        KAFKA_PASSWORD_FILE=file,
        KAFKA_PASSWORD_CONSUMER="hush-in-a-variable",
        KAFKA_PROPERTIES="debug=conf,sasl.oauthbearer.client.secret=hush-in-properties",
        BINANCE_WS_URL="wss://someone:hush-in-a-url@127.0.0.1:9/ws",
    )
    loader.close()
    places = ("a-file", "a-flag", "a-property", "a-variable", "properties", "a-url")
    assert loader.secrets >= {*(f"hush-in-{place}" for place in places), "loader-secret", "reader-secret"}


def test_children_take_sigint_where_the_suite_runs_in_the_background() -> None:
    ask = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    starts = f"import tests, subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True, timeout=30)"
    command = ["/bin/sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, starts]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout == "True\n"


def test_limited_ends_a_process_group_that_does_not_finish_writing() -> None:
    with (
        pytest.raises(AssertionError, match=r"not within 0.1 s: .*sleep"),
        start(["/bin/sh", "-c", "sleep 600 & wait"], stdout=subprocess.PIPE) as process,
        limited(process, 0.1),
    ):
        process.communicate()


# -- bench: the requests of a contender, from the broker's log


def test_bench_counts_batches_between_two_moments(tmp_path: Path) -> None:
    def batch(moment: int, records: int) -> bytes:
        return (
            struct.pack(">qiibIhiqqqhii", 0, 61 - 12 + 7, 0, 2, 0, 0, 0, moment, moment, 0, 0, 0, records) + b"records"
        )

    allocated = bytes(100)
    log = batch(999, 1) + batch(1000, 2) + batch(1999, 3) + batch(2000, 4) + allocated
    (tmp_path / "00000000000000000000.log").write_bytes(log)
    assert written(tmp_path, 1.0, 2.0) == Written(records=5, batches=2, size=2 * 68)
