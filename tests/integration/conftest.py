"""A workflow on the embedded broker, and an exchange over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from loader_ws_trades.sandbox import EmbeddedBroker, Exchange, Market
from tests.tools.loader import Workflow, workflow_on


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def workflow(broker: EmbeddedBroker) -> Iterator[Workflow]:
    with workflow_on(broker.bootstrap_servers, broker.create_topics) as made:
        yield made


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that the loader trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def context_of(authority: trustme.CA) -> ssl.SSLContext:
    """What a server on loopback needs to speak TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def secured_exchange(authority: trustme.CA) -> Iterator[Exchange]:
    with Exchange([Market.generated("POLUSDT", rate=100)], ssl=context_of(authority), ping_interval=0.2) as exchange:
        yield exchange
