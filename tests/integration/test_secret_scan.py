"""The search of everything that a loader shows for secrets finds them: a test that shows one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loader_ws_trades.sandbox import EmbeddedBroker
from tests.tools.loader import DEBUG, Loader, Workflow
from tests.tools.topics import write_topic

SECRET = "hush-hush-secret"


def test_a_secret_in_standard_error_fails() -> None:
    # The loader cannot know that what stands in a command's place is its password.
    loader = Loader(SECRET, KAFKA_PASSWORD_PRODUCER=SECRET)
    assert loader.wait() == 2
    with pytest.raises(AssertionError, match="standard error"):
        loader.close()


def test_a_secret_in_standard_output_fails() -> None:
    loader = Loader("--version", KAFKA_PASSWORD_CONSUMER="loader-ws-trades")
    assert loader.wait() == 0
    with pytest.raises(AssertionError, match="standard output"):
        loader.close()


def test_a_secret_on_the_events_topic_fails_and_all_loaders_are_closed() -> None:
    with EmbeddedBroker() as broker:
        workflow = Workflow(broker.bootstrap_servers, broker.create_topics)
        first = workflow.run(KAFKA_PASSWORD_PRODUCER=SECRET, KAFKA_USER_PRODUCER="someone")
        second = workflow.run(BINANCE_REST_URL="http://127.0.0.1:9", BINANCE_WS_URL="ws://127.0.0.1:9/ws")
        write_topic(workflow.servers, workflow.events_topic, json.dumps({"message": f"a {SECRET}"}).encode())
        with pytest.raises(AssertionError, match="queue-events"):
            workflow.close()
        assert first.process.returncode is not None
        assert second.process.returncode is not None


def test_everything_that_is_secret_is_searched_for(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush-in-a-file\n")
    loader = Loader(
        "run",
        "--kafka-password-producer",
        "hush-in-a-flag",
        "-X",
        "ssl.key.password=hush-in-a-property",
        KAFKA_PASSWORD_FILE=file,
        KAFKA_PASSWORD_CONSUMER="hush-in-a-variable",
        KAFKA_PROPERTIES="debug=conf,sasl.oauthbearer.client.secret=hush-in-properties",
        BINANCE_WS_URL="wss://someone:hush-in-a-url@127.0.0.1:9/ws",
    )
    loader.close()
    places = ("a-file", "a-flag", "a-property", "a-variable", "properties", "a-url")
    assert loader.secrets >= {*(f"hush-in-{place}" for place in places), "loader-secret", "reader-secret"}


def test_what_librdkafka_says_is_searched_too_and_hidden_from_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEBUG, "1")
    with EmbeddedBroker() as broker:
        workflow = Workflow(broker.bootstrap_servers, broker.create_topics)
        loader = workflow.run(BINANCE_REST_URL="http://127.0.0.1:9", BINANCE_WS_URL="ws://127.0.0.1:9/ws")
        loader.wait_for_line("Loading trades")
        workflow.stop()
        assert loader.wait() == 0
        assert not {line.split()[1] for line in loader.errors.splitlines()} - {"INFO", "WARNING"}
        # Words of librdkafka's own, in place of a secret that it would show.
        loader.secrets = frozenset({"client.software.name"})
        with pytest.raises(AssertionError, match=r"DEBUG +librdkafka: CONF"):
            workflow.close()
