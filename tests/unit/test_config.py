"""Settings: precedence, validation, and what must never be shown."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from loader_ws_trades import logs, text
from loader_ws_trades.binance.stream_urls import stream_url
from loader_ws_trades.cli.options import gather
from loader_ws_trades.config import settings as config
from loader_ws_trades.config.loading import load
from loader_ws_trades.config.parsers import url_list
from loader_ws_trades.config.settings import OPTIONS, Option
from loader_ws_trades.errors import ConfigurationError
from loader_ws_trades.kafka import properties

CERTIFICATE = trustme.CA().cert_pem

REQUIRED = {
    "queue_id": "wf-1",
    "symbol": "BTCUSDT",
    "type": "ws_trade",
    "kafka_topic": "trades",
    "telemetry_producer_id": "loader-1",
    "kafka_bootstrap_servers": "kafka:9092",
}

# A setting of each kind, and three values of it.
SAMPLES = {
    "kafka_topic": ("a", "b", "c"),
    "gap_repair": ("off", "on", "off"),
    "shutdown_timeout": ("11", "12", "13"),
    "kafka_properties": ("linger.ms=1", "linger.ms=2", "linger.ms=3"),
}


def gathered(flags: dict[str, Any], env_file: str | None = None) -> config.Settings:
    return gather(flags, env_file)[0]


@pytest.fixture
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_no_variables")
@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.name in SAMPLES], ids=lambda option: option.name
)
def test_flag_overrides_variable_overrides_env_file_overrides_default(
    option: Option, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = {name: value for name, value in REQUIRED.items() if name != option.name}
    in_flag, in_variable, in_file = SAMPLES[option.name]

    def found(**flags: Any) -> object:
        return getattr(gathered(base | flags, None), option.name)

    default = None if option.default is None else option.parse(option.default)
    if option.required:
        with pytest.raises(ConfigurationError, match=f"{option.variable} .{option.flag}. is required"):
            found()
    else:
        assert found() == default
    (tmp_path / ".env").write_text(f"{option.variable}='{in_file}'\n")
    assert found() == option.parse(in_file)
    monkeypatch.setenv(option.variable, in_variable)
    assert found() == option.parse(in_variable)
    monkeypatch.setenv(option.variable, "")
    assert found() == option.parse(in_file), "an empty variable counts as not set"
    monkeypatch.setenv(option.variable, in_variable)
    flag = (in_flag,) if option.short else in_flag
    assert found(**{option.name: flag}) == option.parse(in_flag)


@pytest.mark.usefixtures("_no_variables")
def test_a_password_file_flag_overrides_a_password_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("KAFKA_PASSWORD_PRODUCER", "from-variable")
    flags = REQUIRED | {"kafka_user_producer": "me"}
    assert gathered(flags, None).kafka_password_producer == "from-variable"
    assert gathered(flags | {"kafka_password_file": "secret"}, None).kafka_password_producer == "from-file"


@pytest.mark.usefixtures("_no_variables")
def test_symbol_and_symbols_are_one_setting_in_two_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags: dict[str, Any] = REQUIRED | {"symbol": ""}
    (tmp_path / ".env").write_text("SYMBOL=bnbbtc\n")
    monkeypatch.setenv("SYMBOLS", "ethusdt,polusdt")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert gathered(flags, None).symbol == "POLUSDT"
    alone = gathered(flags | {"symbol": "btcusdt"}, None)
    assert (alone.symbol, alone.symbols, alone.job_completion_index) == ("BTCUSDT", None, None)
    monkeypatch.setenv("SYMBOL", "btcusdt")
    with pytest.raises(ConfigurationError) as caught:
        gathered(flags, None)
    assert caught.value.faults == ("SYMBOL (--symbol) and SYMBOLS (--symbols) are both set; set only one",)


def of_many(symbols: str, index: str | None = None, **given: str) -> config.Settings:
    return load({**REQUIRED, "symbol": "", "symbols": symbols, "job_completion_index": index, **given})


def test_the_index_picks_one_of_many_symbols() -> None:
    for index, symbol in enumerate(("BTCUSDT", "ETHUSDT", "币安USDT")):
        settings = of_many(" btcusdt ,ETHusdt,\n币安usdt", str(index))
        assert (settings.symbol, settings.many) == (symbol, False)
        assert properties.transactional_id(settings) == f"loader-ws-trades.wf-1.{symbol}"
    assert of_many("btcusdt").symbol == "BTCUSDT", "there is nothing to choose"
    assert load(REQUIRED | {"job_completion_index": "0"}).symbol == "BTCUSDT", "any Indexed Job has an index"
    with pytest.raises(ConfigurationError, match=r"SYMBOL .--symbol. names one pair for all") as caught:
        load(REQUIRED | {"job_completion_index": "2"})
    assert len(caught.value.faults) == 1
    assert load(REQUIRED | {"job_completion_index": "2"}, needed=("queue_id",)).queue_id == "wf-1"


LISTED = ["BTCUSDT", "ETHBTC", "ETHUSDT", "币安USDT"]  # what the exchange says is trading


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ("ethusdt,*btc,haltbtc", ["ETHUSDT", "ETHBTC", "HALTBTC"]),
        ("*", LISTED),
        ("???usdt", ["BTCUSDT", "ETHUSDT"]),
        ("币*", ["币安USDT"]),
        ("*eur", []),
        ("btcusdt,xusdt", ["BTCUSDT", "XUSDT"]),
    ],
)
def test_one_process_loads_all_that_match(symbols: str, expected: list[str]) -> None:
    settings = of_many(
        symbols, kafka_topic="t-{symbol}" if "安" not in symbols else "t", telemetry_producer_id="{symbol}"
    )
    assert (settings.many, settings.symbol, settings.share) == (True, "", (0, 1))
    assert settings.chosen(reversed(LISTED)) == expected
    assert properties.transactional_id(settings) == "loader-ws-trades.wf-1.share-0-of-1"
    assert properties.consumer_properties(settings)["client.id"] == "share-0-of-1"


def test_one_of_many_has_names_of_its_own() -> None:
    settings = of_many(
        "*", kafka_topic="trades-{symbol}", telemetry_producer_id="loader-{symbol}", queue_events_topic="e"
    )
    one = settings.for_symbol("ETHUSDT")
    assert (one.symbol, one.kafka_topic, one.telemetry_producer_id) == ("ETHUSDT", "trades-ETHUSDT", "loader-ETHUSDT")
    with pytest.raises(ValueError, match=r"KAFKA_TOPIC .--kafka-topic. contains {symbol}, but 币安USDT has characters"):
        settings.for_symbol("币安USDT")
    with pytest.raises(ValueError, match=r"KAFKA_TOPIC .--kafka-topic. is TRADES for TRADES, which is another topic"):
        of_many("*", kafka_topic="{symbol}", queue_events_topic="TRADES").for_symbol("TRADES")


@hypothesis_settings(max_examples=50)
@given(
    st.lists(st.text("ABCXYZ币", min_size=1, max_size=5), unique=True, min_size=2, max_size=8),
    st.integers(1, 10),
    st.booleans(),
)
def test_shares_are_disjoint_and_complete(names: list[str], shares: int, by_name: bool) -> None:
    """And with a pattern, a new listing moves no other pair."""
    entries = "*" if by_name else ",".join(names)
    found: list[str] = []
    for place in range(shares):
        if not by_name and place >= len(names):
            with pytest.raises(ConfigurationError, match=f"is {place}, but SYMBOLS .--symbols. has {len(names)} pairs"):
                of_many(entries, str(place), job_completions=str(shares))
            continue
        share = of_many(entries, str(place), job_completions=str(shares))
        mine = share.chosen(names) if share.many else [share.symbol]
        found += mine
        if by_name:
            assert properties.transactional_id(share) == f"loader-ws-trades.wf-1.share-{place}-of-{shares}"
            assert set(share.chosen([*names, "NEWUSDT"])) - {"NEWUSDT"} == set(mine)
        else:
            assert mine == names[place::shares]
    assert sorted(found) == sorted(names)


def test_the_crc_of_the_name_decides_its_share() -> None:
    shares = [of_many("*usdt,ETHBTC", str(place), job_completions="3").chosen(LISTED) for place in range(3)]
    assert shares == [
        [name for name in ("BTCUSDT", "ETHUSDT", "币安USDT", "ETHBTC") if CRC[name] % 3 == n] for n in range(3)
    ]


# By `printf %s BTCUSDT | gzip -c | tail -c8 | od -An -tu4 -N4`.
CRC = {"BTCUSDT": 2895029187, "ETHUSDT": 519679068, "币安USDT": 4197323482, "ETHBTC": 1064890993}


def test_a_command_without_a_symbol_needs_no_share() -> None:
    given = {
        "symbols": "a,b*",
        "kafka_topic": "t-{symbol}",
        "telemetry_producer_id": "p-{symbol}",
        "heartbeat_file": "{symbol}",
    }
    for share in ({}, {"job_completion_index": "7"}):
        settings = load(given | share, needed=())
        for name in ("symbol", "kafka_topic", "telemetry_producer_id", "heartbeat_file"):
            assert getattr(settings, name) is None


def test_a_command_for_one_pair_says_what_to_set() -> None:
    for symbols, held in (("a,b,c", "3 pairs"), ("*", "a pattern")):
        with pytest.raises(ConfigurationError) as caught:
            load(REQUIRED | {"symbol": "", "symbols": symbols}, one_pair=True)
        assert caught.value.faults == (
            f"SYMBOLS (--symbols) has {held}, but this command takes one pair; set SYMBOL (--symbol) instead",
        )
    assert load(THREE | {"job_completion_index": "1"}, needed=("symbol",), one_pair=True).symbol == "B"


def test_the_symbol_is_filled_in() -> None:
    places = {
        "kafka_topic": "trades.{symbol}_{symbol}",
        "telemetry_producer_id": "loader-{symbol}/币安",
        "heartbeat_file": "/tmp/{symbol}/alive",  # noqa: S108 - nothing is written there
    }
    for settings in (load(REQUIRED | places | {"symbol": "ethusdt"}), of_many("btcusdt,ethusdt", "1", **places)):
        assert settings.kafka_topic == "trades.ETHUSDT_ETHUSDT"
        assert settings.telemetry_producer_id == "loader-ETHUSDT/币安"
        assert settings.heartbeat_file == "/tmp/ETHUSDT/alive"  # noqa: S108
    assert load(REQUIRED | places | {"symbol": "币安usdt", "kafka_topic": "t"}).telemetry_producer_id == (
        "loader-币安USDT/币安"
    )


THREE = {"symbol": "", "symbols": "a,b,c"}
FAULTS: list[tuple[dict[str, str], str]] = [
    (
        THREE | {"job_completion_index": "3"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is 3, but SYMBOLS (--symbols) ",
    ),
    (
        THREE | {"job_completion_index": "-1"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is '-1', which is not a whole",
    ),
    (
        THREE | {"symbols": "a"} | {"job_completion_index": "1"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is 1, but ",
    ),
    (THREE | {"symbols": "a,,b", "job_completion_index": "0"}, "SYMBOLS (--symbols) has an empty entry; "),
    (
        THREE | {"symbols": "a,b/c", "job_completion_index": "0"},
        "SYMBOLS (--symbols) has the entry 'b/c', which is neither a trading pair nor a pattern; use entries like",
    ),
    (THREE | {"symbols": "a,[b]*"}, "SYMBOLS (--symbols) has the entry '[b]*', which is neither"),
    (THREE | {"symbols": "a,b,A", "job_completion_index": "0"}, "SYMBOLS (--symbols) names A more than once; list it "),
    (
        THREE | {"symbols": "*", "job_completion_index": "0"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is 0, but SYMBOLS (--symbols) has a pattern, which is split "
        "into as many shares as JOB_COMPLETIONS (--job-completions) says; set it",
    ),
    (
        THREE | {"symbols": "*", "job_completion_index": "4", "job_completions": "4"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is 4, but JOB_COMPLETIONS (--job-completions) is 4; set that",
    ),
    (
        THREE | {"job_completion_index": "3", "job_completions": "4"},
        "JOB_COMPLETION_INDEX (--job-completion-index) is 3, but SYMBOLS (--symbols) has 3 pairs (indexes 0 to 2); ",
    ),
    (
        THREE | {"job_completions": "0"},
        "JOB_COMPLETIONS (--job-completions) is '0', which is not a whole number from 1",
    ),
    (
        THREE | {"heartbeat_file": "/run/{symbol}"},
        "HEARTBEAT_FILE (--heartbeat-file) contains {symbol}, but one process loads all pairs of SYMBOLS (--symbols)",
    ),
    (
        THREE | {"symbols": "a,币安usdt", "kafka_topic": "trades-{symbol}"},
        "KAFKA_TOPIC (--kafka-topic) contains {symbol}, but 币安USDT has characters not allowed in topic names; use a",
    ),
    (
        {"kafka_topic": "trades-{symbol}", "symbol": "币安usdt"},
        "KAFKA_TOPIC (--kafka-topic) contains {symbol}, but 币安USDT has characters not allowed in topic names; use a",
    ),
    (
        {"kafka_topic": "{symbol}", "symbol": "queue", "queue_events_topic": "QUEUE"},
        "KAFKA_TOPIC (--kafka-topic), QUEUE_EVENTS_TOPIC (--queue-events-topic), QUEUE_CONTROL_TOPIC "
        "(--queue-control-topic) must be three different topics",
    ),
    (
        {"kafka_topic": "trades-{Symbol}"},
        "KAFKA_TOPIC (--kafka-topic) is 'trades-{Symbol}', which is not a topic name; use up to 249 letters, digits, "
        "'.', '_' and '-', and {symbol} for the symbol",
    ),
    (
        {"telemetry_producer_id": "loader-{index}"},
        "TELEMETRY_PRODUCER_ID (--telemetry-producer-id) contains '{index}'; only {symbol} is allowed in braces",
    ),
    (
        {"kafka_topic": "t-{symbol}", "symbol": "b/c"},
        "SYMBOL (--symbol) is 'b/c', which is not a trading pair; use one",
    ),
    ({"kafka_user_producer": "u"}, "KAFKA_USER_PRODUCER (--kafka-user-producer) is set without a password; set"),
    (
        {"kafka_password_producer": "p"},
        "KAFKA_PASSWORD_PRODUCER (--kafka-password-producer) is set without a user; set",
    ),
    (
        {"kafka_security_protocol": "sasl_ssl"},
        "KAFKA_SECURITY_PROTOCOL (--kafka-security-protocol) is SASL_SSL, which ",
    ),
    (
        {"metrics_port": "tcp://10.0.0.1:9464"},
        "METRICS_PORT (--metrics-port) is 'tcp://10.0.0.1:9464', which is not a port; Kubernetes sets this variable",
    ),
]


@pytest.mark.parametrize(("given", "says"), FAULTS)
def test_a_fault_is_one_sentence(given: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(REQUIRED | given)
    [fault] = caught.value.faults
    assert fault.startswith(says), fault


WRONG = {
    "symbol": [" ", "\u200b", "BTC/USDT", "btc usdt"],
    "kafka_topic": ["no spaces", ".."],
    "kafka_bootstrap_servers": [
        "kafka",
        "kafka:65536",
        f"kafka:{'9' * 5000}",
        "kafka:٩٠٩٢",
        "[::g]:9092",
        "kafka://kafka:9092",
    ],
    "binance_ws_url": [
        "http://x/ws",
        "ws://x/ws,http://y/ws",
        "wss://x:99999/ws",
        "stream.binance.com",
        "wss://h/w\ns",
        "wss://h/ws#part",
        "wss://a..b/ws",
        "wss://h\\@elsewhere/ws",
        "wss://[::1/ws",
        f"wss://h/{'x' * 8000}",
    ],
    "feed_connections": ["3"],
    "binance_rest_url": ["ftp://x", "http://[::1"],
    "ca_path": ["/nowhere/ca.pem", "/dev/zero", "a\0b"],
    "kafka_password_file": ["/nowhere/password", "/dev/zero", "/dev/null", "a\0b"],
    "kafka_user_producer": ["a\nb"],
    "telemetry_interval": ["0", "abc", "-1", "nan"],
    "duration": ["1y"],
    "max_records": ["0", "1.5"],
    "metrics_port": ["0", "65536", "http"],
    "rest_weight_limit": ["6001", "9" * 5000],
    "heartbeat_file": ["a\0b"],
    "control_from": ["yesterday"],
    "log_level": ["loud"],
    "kafka_properties": ["linger.ms", "transactional.id=mine", "bootstrap.servers=elsewhere:9092"],
    "kafka_security_protocol": ["TLS"],
}


def test_all_faults_are_reported_together_with_variable_and_flag() -> None:
    for name, value in ((name, value) for name, values in WRONG.items() for value in values):
        with pytest.raises(ConfigurationError) as caught:
            load(REQUIRED | {name: value})
        [fault] = caught.value.faults
        assert fault.startswith(config.named(name)), fault
        assert fault.isprintable(), fault
        assert len(fault) < 400, fault
    worst = {name: values[-1] for name, values in WRONG.items()}
    with pytest.raises(ConfigurationError) as caught:
        load({**worst, "queue_id": ""})
    reported = {fault.split(" ")[0] for fault in caught.value.faults}
    assert reported >= {name.upper() for name in worst} | {"QUEUE_ID", "TYPE"}


@pytest.mark.parametrize(
    ("base", "symbol", "expected"),
    [
        ("wss://h:9443/ws", "BTCUSDT", "wss://h:9443/ws/btcusdt@trade"),
        ("wss://h/ws/", "BTCUSDT", "wss://h/ws/btcusdt@trade"),
        ("wss://h/ws?timeUnit=MICROSECOND", "btcusdt", "wss://h/ws/btcusdt@trade?timeUnit=MICROSECOND"),
        ("ws://h/stream", "btcusdt", "ws://h/stream?streams=btcusdt@trade"),
        ("ws://h/stream?timeUnit=microsecond", "A", "ws://h/stream?streams=a@trade&timeUnit=microsecond"),
        ("ws://h/ws", "币安USDT", "ws://h/ws/%E5%B8%81%E5%AE%89usdt@trade"),
    ],
)
def test_the_stream_name_is_appended_to_the_path_before_the_query(base: str, symbol: str, expected: str) -> None:
    settings = load(REQUIRED | {"binance_ws_url": base, "symbol": symbol})
    assert stream_url(settings.binance_ws_url, [settings.symbol]) == expected


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("wss://h:9443/ws", "wss://h:9443/stream?streams=btcusdt@trade/%E5%B8%81usdt@trade"),
        (
            "ws://h/stream/?timeUnit=microsecond",
            "ws://h/stream?streams=btcusdt@trade/%E5%B8%81usdt@trade&timeUnit=microsecond",
        ),
        ("ws://h/proxy/ws", "ws://h/proxy/stream?streams=btcusdt@trade/%E5%B8%81usdt@trade"),
        ("ws://h", "ws://h/stream?streams=btcusdt@trade/%E5%B8%81usdt@trade"),
    ],
)
def test_several_streams_are_combined_whatever_the_base_url(base: str, expected: str) -> None:
    assert stream_url(base, ["BTCUSDT", "币USDT"], combined=True) == expected


@pytest.mark.parametrize(
    ("given", "seconds"), [("10", 10.0), ("0.5", 0.5), ("30s", 30.0), ("5m", 300.0), ("23h", 82800.0), ("1d", 86400.0)]
)
def test_time_spans_may_have_a_unit(given: str, seconds: float) -> None:
    assert load(REQUIRED | {"duration": given}).duration == seconds


def test_security_is_derived_and_can_be_overridden(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    CERTIFICATE.write_to_path(ca)

    def made(**values: str) -> dict[str, object]:
        return dict(properties.trade_producer_properties(load(REQUIRED | values)))

    user = {"kafka_user_producer": "me", "kafka_password_producer": "hush"}
    assert made()["security.protocol"] == "PLAINTEXT"
    assert made(ca_path=str(ca))["security.protocol"] == "SSL"
    secured = made(ca_path=str(ca), **user)
    assert secured["security.protocol"] == "SASL_SSL"
    assert secured["sasl.mechanism"] == "SCRAM-SHA-512"
    assert secured["sasl.username"] == "me"
    assert secured["sasl.password"] == "hush"
    assert secured["ssl.ca.location"] == str(ca)
    assert (
        made(**user, kafka_security_protocol="SASL_PLAINTEXT", kafka_sasl_mechanism="PLAIN").items()
        >= {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
        }.items()
    )


def test_oauthbearer_takes_properties_instead_of_a_user() -> None:
    oauth = REQUIRED | {"kafka_sasl_mechanism": "oauthbearer", "kafka_properties": "sasl.oauthbearer.client.id=me"}
    settings = load(oauth)
    for made in (properties.trade_producer_properties(settings), properties.consumer_properties(settings)):
        assert made["security.protocol"] == "SASL_SSL"
        assert made["sasl.mechanism"] == "OAUTHBEARER"
        assert made["sasl.oauthbearer.method"] == "oidc"
        assert made["sasl.oauthbearer.client.id"] == "me"
        assert "sasl.username" not in made
    source = f"sasl.oauthbearer.* in {config.named('kafka_properties')}"
    assert properties.producer_credentials(settings) == properties.consumer_credentials(settings) == source
    plain = load(oauth | {"kafka_security_protocol": "SASL_PLAINTEXT"})
    assert properties.consumer_properties(plain)["security.protocol"] == "SASL_PLAINTEXT"
    for wrong in (
        {"kafka_security_protocol": "SSL"},
        {"kafka_user_producer": "u", "kafka_password_producer": "p"},
        {"kafka_user_consumer": "u", "kafka_password_consumer": "p"},
    ):
        with pytest.raises(ConfigurationError, match="OAUTHBEARER"):
            load(oauth | wrong)


def test_the_consumer_has_its_own_credentials_or_the_producers() -> None:
    writer = {"kafka_user_producer": "w", "kafka_password_producer": "wp"}
    reader = {"kafka_user_consumer": "r", "kafka_password_consumer": "rp"}
    assert properties.consumer_properties(load(REQUIRED | writer))["sasl.username"] == "w"
    both = load(REQUIRED | writer | reader)
    assert properties.consumer_properties(both)["sasl.username"] == "r"
    assert properties.consumer_properties(both)["sasl.password"] == "rp"
    assert properties.telemetry_producer_properties(both)["sasl.username"] == "w"


def test_properties_reach_every_client_last() -> None:
    settings = load(REQUIRED | {"kafka_properties": ("linger.ms=7", "debug=broker,topic")})
    for made in (
        properties.trade_producer_properties,
        properties.telemetry_producer_properties,
        properties.consumer_properties,
    ):
        assert made(settings)["linger.ms"] == "7"
        assert made(settings)["debug"] == "broker,topic"


def test_secrets_are_not_shown() -> None:
    secrets = {
        "kafka_password_producer": "hush-producer",
        "kafka_password_consumer": "hush-consumer",
        "kafka_properties": "ssl.key.password=hush-property",
        "binance_ws_url": "wss://me:hush-url@h/ws",
    }
    settings = load(REQUIRED | secrets | {"kafka_user_producer": "u", "kafka_user_consumer": "u"})
    assert "hush" not in repr(settings)
    assert "hush" not in logs.redacted(f"{json.dumps(secrets)}", settings)
    with pytest.raises(ConfigurationError) as caught:
        load(secrets | {"binance_ws_url": "wss//me:hush-url@h/ws", "kafka_properties": "hush-property"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://host:9443/ws", "wss://host:9443/ws"),
        ("wss://me:hush@host:9443/ws/x@trade", "wss://***@host:9443/ws/x@trade"),
        ("wss://host/ws?token=hush", "wss://host/ws?***"),
        ("wss://host/ws#hush", "wss://host/ws?***"),
        ("wss://me:hush@host/stream?streams=x@trade&token=a://hush", "wss://***@host/stream?***"),
        ("redirected to https://a/?t=hush, not wss://b/ws", "redirected to https://a/?*** not wss://b/ws"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert text.redacted_url(url) == shown


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("wss://me:p%40ssw0rd@host/ws?token=hush-hush&timeUnit=MICROSECOND", {"p%40ssw0rd", "p@ssw0rd", "hush-hush"}),
        ("wss://hush-token@h/ws", {"hush-token"}),
    ],
)
def test_secrets_in_a_url_are_redacted(url: str, secrets: set[str]) -> None:
    settings = load(REQUIRED | {"binance_ws_url": url})
    assert set(logs.secrets(settings)) >= secrets
    assert not [secret for secret in secrets if secret in repr(settings)]


AROUND = ("{}\n", "{}\r\n", "\ufeff{}", " {}\t", "\ufeff \n{}\u00a0\ufeff")


@pytest.mark.parametrize("around", AROUND)
def test_surrounding_white_space_and_bom_are_stripped(around: str) -> None:
    given = REQUIRED | {name: value for name, (value, *_) in SAMPLES.items()}
    given |= {"binance_ws_url": "ws://a/ws", "log_level": "debug", "heartbeat_file": "alive", "max_records": "7"}
    assert load({name: around.format(value) for name, value in given.items()}) == load(given)


@pytest.mark.parametrize("blank", ["", " \n", "\ufeff\r\n"])
@pytest.mark.usefixtures("_no_variables")
def test_a_blank_variable_counts_as_not_set(blank: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in OPTIONS:
        assert getattr(load({option.name: blank}, needed=()), option.name) == (
            None if option.default is None else option.parse(option.default)
        )
    (tmp_path / ".env").write_text("SYMBOL=ethusdt")
    monkeypatch.setenv("SYMBOL", blank)
    assert gathered(REQUIRED | {"symbol": blank}).symbol == "ETHUSDT"


@pytest.mark.parametrize("around", ["{}", *AROUND])
def test_a_password_file_is_stripped(around: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(around.format("hush hush").encode())
    settings = load(REQUIRED | {"kafka_user_producer": "me", "kafka_password_file": str(file)})
    assert settings.kafka_password_producer == "hush hush"
    assert properties.producer_credentials(settings) == (
        f"{config.named('kafka_user_producer')} and {config.named('kafka_password_file')}"
    )
    assert properties.consumer_credentials(settings) == properties.producer_credentials(settings)


NAMES = (
    *("queue_id", "type", "telemetry_producer_id", "kafka_user_producer", "heartbeat_file", "symbol", "kafka_topic"),
    *("kafka_bootstrap_servers", "binance_ws_url", "ca_path", "kafka_password_file"),
)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('"{}"', "begins or ends with a quote, which `docker --env-file` keeps"),
        ("'{}'", "begins or ends with a quote, which `docker --env-file` keeps"),
        ("{}\x1b[2J{}", "contains U+001B, an"),
        ("{}\n{}", "contains U+000A, an"),
        ("{}\u200b", "contains U+200B, an"),
        ("{}\ufeff{}", "contains U+FEFF, an"),
        ("{}\u202e", "contains U+202E, an"),
        ("{}\udcff", "contains U+DCFF, an"),
    ],
)
def test_invisible_characters_and_quotes_are_rejected(value: str, says: str) -> None:
    for name in NAMES:
        with pytest.raises(ConfigurationError) as caught:
            load({**REQUIRED, "kafka_password_producer": "x", name: value.replace("{}", "a")})
        fault = next(fault for fault in caught.value.faults if fault.startswith(config.named(name)))
        assert fault.startswith(f"{config.named(name)} {says}"), fault
        assert fault.isprintable()


def test_a_password_of_two_lines_is_rejected_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush\nhush\n")
    for name, value in (("kafka_password_file", str(file)), ("kafka_password_producer", "hush\nhush")):
        with pytest.raises(ConfigurationError) as caught:
            load(REQUIRED | {"kafka_user_producer": "me", name: value})
        [fault] = caught.value.faults
        assert fault.startswith(config.named(name))
        assert "control character" in fault
        assert "hush" not in fault


def test_a_secret_pasted_into_another_setting_is_not_shown() -> None:
    secret = "hush-" * 20 + "/"
    for name in ("symbol", "kafka_topic", "telemetry_interval", "log_level", "metrics_port", "resume_limit"):
        for holding in ("kafka_password_producer", "kafka_properties"):
            given = f"ssl.key.password={secret}" if holding == "kafka_properties" else secret
            with pytest.raises(ConfigurationError) as caught:
                load(REQUIRED | {"kafka_user_producer": "u", holding: given, name: f"x{secret}"})
            assert "hush" not in str(caught.value)
    for name in ("kafka_bootstrap_servers", "symbol"):
        with pytest.raises(ConfigurationError) as caught:
            load(REQUIRED | {name: "me:hush-hush@kafka:x"})
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("binance_ws_url", url)
            for url in ("wss://h", "ws://127.0.0.1:1/ws", "wss://[::1]:9443/ws", "wss://h.:9443/ws")
        ),
        *(("binance_ws_url", url) for url in ("wss://币安.com/ws", "ws://a_b")),
        *(("kafka_bootstrap_servers", text) for text in ("a:1", "[::1]:9092,b.c:65535", "a_b:1,c-d.:2", "币安.com:1")),
    ],
)
def test_every_kind_of_host_is_accepted(name: str, value: str) -> None:
    assert getattr(load(REQUIRED | {name: value}), name) == value


PIECES = st.sampled_from(
    [
        *("\ufeff", "\n", "\0", "\u200b", "\udcff", '"', "'", "://"),
        *("wss://", "tcp://", "@", "#", ":", ",", "=", "{", "}"),
        *("9" * 400, "9" * 5000, "٣", "-", ".", "..", "/", "[::1]", "nan", "inf", "1e9", "d", " ", "hush", "a" * 300),
        *("{symbol}", "/dev/null", "btcusdt", "h", "1", "group.id", "linger.ms", "on"),
    ]
)
ANYTHING = st.one_of(st.binary(max_size=20).map(os.fsdecode), st.lists(PIECES, max_size=6).map("".join))


@hypothesis_settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([option.name for option in OPTIONS]), ANYTHING, max_size=8))
def test_any_text_gives_settings_or_sentences_without_secrets(texts: dict[str, str]) -> None:
    secret = "0xSECRET-of-the-test"
    texts = {name: text.replace("hush", secret) for name, text in texts.items()}
    texts["kafka_password_consumer"] = secret
    made, faults = [], list[str]()
    try:
        made = [load(REQUIRED | texts)]
    except ConfigurationError as error:
        faults += error.faults
    assert made or faults
    for fault in faults:
        assert re.match(r"[A-Z_]+ \(-", fault), fault
        assert fault.isprintable(), fault
        assert len(fault) < 600, fault
        assert secret not in fault
    for settings in made:
        assert "SECRET" not in logs.redacted(repr(settings), settings)
        assert stream_url(url_list(settings.binance_ws_url)[0], [settings.symbol]).isprintable()


def test_several_stream_urls() -> None:
    bases = "ws://a:1/ws, wss://u:secret-1@b/stream?x=1,2 ,ws://c/ws"
    settings = load(REQUIRED | {"binance_ws_url": bases})
    expected = ("ws://a:1/ws/btcusdt@trade", "wss://u:secret-1@b/stream?streams=btcusdt@trade&x=1,2")
    found = [stream_url(base, [settings.symbol]) for base in url_list(settings.binance_ws_url)]
    assert found == [*expected, "ws://c/ws/btcusdt@trade"]
    assert "secret-1" in logs.secrets(settings)
    assert "secret-1" not in repr(settings)
