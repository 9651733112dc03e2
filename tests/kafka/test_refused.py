"""Each case of a start that is refused ends with its exit code and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.tools.apache_kafka import Cluster
from tests.tools.chaos import refused
from tests.tools.chaos.refused import CASES, Case, Outcome

# Eight starts at once on a busy machine: a broker may need seconds to refuse one of them.
QUICK = {"STARTUP_GRACE": "1", "STARTUP_TIMEOUT": "15"}


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
        yield {case.name: pool.submit(place.attempt, case, QUICK) for case in CASES if case.name in names}


def _is_case(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == test_a_start_that_is_refused.__name__


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_start_that_is_refused(case: Case, attempts: dict[str, Future[Outcome]]) -> None:
    outcome = attempts[case.name].result(120)
    assert outcome.wrong is None
    assert outcome.message.count(" (retrying") == 0
