"""OAUTHBEARER on Apache Kafka, which takes unsecured tokens for development (KIP-255)."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loader_ws_trades.sandbox import Exchange, Market
from tests.tools.apache_kafka import Cluster
from tests.tools.loader import Workflow, check_events, urls, workflow_on
from tests.tools.rights import CHECKPOINT, LEAST, POLICY

LISTENER = "listener.name.sasl_ssl"
BROKER = {
    "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
    f"{LISTENER}.oauthbearer.sasl.jaas.config": (
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";'
    ),
    # A connection ends with its token, unless the client brings a new one (KIP-368).
    f"{LISTENER}.oauthbearer.connections.max.reauth.ms": "60000",
}
LIFE = 4  # seconds of a token
OWN_TOKENS = (
    "enable.sasl.oauthbearer.unsecure.jwt=true,sasl.oauthbearer.method=default,"
    f"sasl.oauthbearer.config=principal=loader lifeSeconds={LIFE}"
)


class TokenServer(BaseHTTPRequestHandler):
    """Gives the client `loader` a token, as OIDC's client credentials grant does."""

    def do_POST(self) -> None:
        now = time.time()
        claims = {"sub": "loader", "iat": now, "exp": now + LIFE}
        parts = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in ({"alg": "none"}, claims))
        token = ".".join(part.rstrip(b"=").decode() for part in parts) + "."
        answer = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": LIFE}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def fetched_tokens() -> Iterator[str]:
    """The properties with which tokens come from a server, as with any managed Kafka."""
    with ThreadingHTTPServer(("127.0.0.1", 0), TokenServer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield (
            "sasl.oauthbearer.client.id=loader,sasl.oauthbearer.client.secret=hush-hush-secret,"
            f"sasl.oauthbearer.token.endpoint.url=http://127.0.0.1:{server.server_port}/token"
        )
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cluster(kafka_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("kafka"), properties=BROKER) as made:
        yield made


@pytest.fixture
def workflow(cluster: Cluster) -> Iterator[Workflow]:
    with workflow_on(cluster.bootstrap_servers, cluster.create_topic) as made:
        made.variables |= {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.sasl_bootstrap_servers,
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_PROPERTIES": OWN_TOKENS,
            "CA_PATH": cluster.ca_path,
        }
        for right in (*LEAST, CHECKPOINT, POLICY):
            cluster.grant("loader", str(made.variables[right.setting.upper()]), right.operation)
        yield made


@pytest.mark.parametrize("delivery", ["idempotent", "transactional"])
def test_a_run_outlives_the_tokens_that_it_fetches(
    workflow: Workflow, cluster: Cluster, fetched_tokens: str, delivery: str
) -> None:
    workflow.variables["KAFKA_PROPERTIES"] = fetched_tokens
    cluster.grant("loader", "loader-ws-trades.", "WRITE", kind="TRANSACTIONAL_ID", pattern="PREFIXED")
    with Exchange([Market.generated("POLUSDT", rate=100)]) as exchange:
        loader = workflow.run("--duration", "12s", **urls(exchange), DELIVERY=delivery)
        assert loader.wait() == 0, loader.errors
        # On a slow machine a token may expire before its first use, which the start retries.
        _, started, after = loader.errors.partition("Writing trades")
        assert started
        assert "WARNING" not in after
    assert len(workflow.consecutive_ids()) > 500
    check_events(workflow.events(), workflow, "finished")


def test_check_passes_and_a_stop_command_is_read(workflow: Workflow) -> None:
    with Exchange([Market.generated("POLUSDT", rate=100)]) as exchange:
        workflow.variables |= urls(exchange)
        check = workflow.start("check")
        assert check.wait() == 0, check.output() + check.errors
        loader = workflow.run()
        loader.wait_for_line("Connected")
        workflow.stop()
        assert loader.wait() == 0, loader.errors
