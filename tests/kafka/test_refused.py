"""Starts that Kafka rejects, one of each kind: the exit code, and one sentence that says what to do.

Row 16 of `make chaos` tries all cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.tools.apache_kafka import Cluster
from tests.tools.chaos import refused
from tests.tools.chaos.refused import CASES, Case, Outcome

SELECTED = {
    "wrong password",
    "wrong password of the consumer",
    "no CA",
    "another host name",
    "plaintext to a TLS port",
    "TLS without a user to a port that asks for one",
    "TLS to a plaintext port",
    "a user to a port that asks for none",
    "another mechanism",
    "plaintext to a TLS port, and brokers that are away or cut off",
    "no topic QUEUE_EVENTS_TOPIC",
    "nothing in place of WRITE on KAFKA_TOPIC",
    "DESCRIBE in place of READ on QUEUE_CONTROL_TOPIC",
    "no right to the transactional id",
    "a topic that is made after the start",
    "no broker, with TLS and a user",
    "a name that does not resolve",
    "a port that cuts off",
}
QUICK_CASES = [case for case in CASES if case.name in SELECTED]
assert len(QUICK_CASES) == len(SELECTED)
# Several starts at once: a broker may need seconds to reject one of them. Exit code 1 takes all of the timeout.
QUICK = {2: {"STARTUP_GRACE": "1", "STARTUP_TIMEOUT": "60"}, 1: {"STARTUP_GRACE": "1", "STARTUP_TIMEOUT": "8"}}
QUICK[0] = QUICK[2]


@pytest.fixture(scope="module")
def attempts(
    request: pytest.FixtureRequest, kafka_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """The outcomes, by the case's name, of all cases that are selected: they run several at once."""
    names = {item.callspec.params["case"].name for item in request.session.items if _is_case(item)}  # type: ignore[attr-defined]
    with (
        refused.place(kafka_cluster, tmp_path_factory.mktemp("refused")) as place,
        ThreadPoolExecutor(refused.AT_ONCE) as pool,
    ):
        yield {
            case.name: pool.submit(place.attempt, case, QUICK[case.exit_code])
            for case in QUICK_CASES
            if case.name in names
        }


def _is_case(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == test_rejected_start_says_what_to_do.__name__


@pytest.mark.parametrize("case", QUICK_CASES, ids=lambda case: case.name)
def test_rejected_start_says_what_to_do(case: Case, attempts: dict[str, Future[Outcome]]) -> None:
    outcome = attempts[case.name].result(120)
    assert outcome.wrong is None
    assert outcome.message.count(" (retrying") == 0
