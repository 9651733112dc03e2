"""What happens to a Job's pods, and how Kubernetes must end it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.tools.kube.manifest import EACH, FLEET, ONE
from tests.tools.kube.outcome import End
from tests.tools.kube.trial import Trial


@dataclass(frozen=True)
class Scenario:
    """A manifest, what happens, and the end that it must come to."""

    name: str
    manifest: str
    play: Callable[[Trial], None]
    expected: End
    setting: Mapping[str, Any] = field(default_factory=dict)
    """Keywords for the `Trial`: what is not as it should be."""


def _then_stop(*steps: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Let trades load, let something happen, and stop the Job once it has gone on."""

    def play(trial: Trial) -> None:
        for step in steps:
            trial.let_load()
            step(trial)
        trial.let_load()
        trial.stop()
        trial.let_finish()

    return play


_stop = _then_stop()


def _evict_while_kafka_hangs(trial: Trial) -> None:
    with trial.hanging_kafka():
        trial.evict()


def _stop_the_others(trial: Trial) -> None:
    trial.let_end(index=2)
    _stop(trial)


SCENARIOS = [
    Scenario("a stop command", ONE, _stop, End("Complete", ((0,),), counted=0)),
    Scenario("an eviction, then a stop", ONE, _then_stop(Trial.evict), End("Complete", ((143, 0),), counted=0)),
    # What is under way cannot be delivered: the loader gives up, and says so, before its grace period is over.
    Scenario(
        "an eviction while Kafka hangs, then a stop",
        ONE,
        _then_stop(_evict_while_kafka_hangs),
        End("Complete", ((1, 0),), counted=0),
    ),
    Scenario("a crash (kill -9), then a stop", ONE, _then_stop(Trial.crash), End("Complete", ((137, 0),), counted=1)),
    Scenario("a process that hangs, then a stop", ONE, _then_stop(Trial.hang), End("Complete", ((137, 0),), counted=1)),
    Scenario(
        "a symbol that the exchange does not know",
        ONE,
        Trial.let_finish,
        End("Failed (PodFailurePolicy)", ((2,),), counted=1),
        {"unknown": ["BTCUSDT"]},
    ),
    Scenario(
        "a wrong password in the secret",
        ONE,
        Trial.let_finish,
        End("Failed (PodFailurePolicy)", ((2,),), counted=1),
        {"password": "not-the-password"},
    ),
    Scenario("fleet: a stop command", FLEET, _stop, End("Complete", ((0,),) * 4, counted=0)),
    Scenario(
        "fleet: one evicted, then a stop",
        FLEET,
        _then_stop(partial(Trial.evict, index=1)),
        End("Complete", ((0,), (143, 0), (0,), (0,)), counted=0),
    ),
    Scenario(
        "fleet: one crashed, then a stop",
        FLEET,
        _then_stop(partial(Trial.crash, index=2)),
        End("Complete", ((0,), (0,), (137, 0), (0,)), counted=1),
    ),
    Scenario("fleet, a pair a pod: a stop command", EACH, _stop, End("Complete", ((0,),) * 3, counted=0)),
    Scenario(
        "fleet, a pair a pod: one symbol that the exchange does not know",
        EACH,
        _stop_the_others,
        End("Failed (FailedIndexes)", ((0,), (0,), (2,)), counted=1, failed_indexes="2"),
        {"unknown": ["SOLUSDT"]},
    ),
]
