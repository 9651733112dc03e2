"""The pure parts of `make kube-test`: what it makes of Kubernetes' go.mod, and of a pod's specification."""

from __future__ import annotations

import base64
import socket
import threading
from typing import Any

import pytest

from tests.tools.kube import pods
from tests.tools.kube.binaries import module_file
from tests.tools.kube.liveness import Liveness
from tests.tools.kube.outcome import End, Outcome

UPSTREAM = """\
// This is a generated file.

module k8s.io/kubernetes

go 1.24.0

require (
\tgithub.com/blang/semver/v4 v4.0.0
\tk8s.io/api v0.0.0
\tk8s.io/klog/v2 v2.130.1
\tk8s.io/kube-openapi v0.0.0-20250710124328-f3f2b991d03b
)

require k8s.io/gengo/v2 v2.0.0-20250604051438-85fd79dbfd9f // indirect

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
\tk8s.io/kube-proxy => ./staging/src/k8s.io/kube-proxy
)
"""

MODULE = """\
// This is a generated file.

module loader-ws-trades.invalid/kube

go 1.24.0

require (
\tgithub.com/blang/semver/v4 v4.0.0
\tk8s.io/api v0.34.1
\tk8s.io/klog/v2 v2.130.1
\tk8s.io/kube-openapi v0.0.0-20250710124328-f3f2b991d03b
)

require k8s.io/gengo/v2 v2.0.0-20250604051438-85fd79dbfd9f // indirect

replace (
\tk8s.io/api => k8s.io/api v0.34.1
\tk8s.io/kube-proxy => k8s.io/kube-proxy v0.34.1
)

require k8s.io/kubernetes v1.34.1
"""

GIVEN = pods.sources(
    [
        {"metadata": {"name": "addresses"}, "data": {"BROKERS": "kafka:9093", "LEVEL": "info"}},
        {"metadata": {"name": "no"}},
    ],
    [{"metadata": {"name": "user"}, "data": {"password": base64.b64encode(b"sesame").decode()}}],
)


def pod(**container: Any) -> dict[str, Any]:
    """A pod as the API gives it, with what matters of its container."""
    metadata = {
        "name": "wf-1-abcde",
        "namespace": "loaders",
        "labels": {"app.kubernetes.io/name": "loader"},
        "annotations": {"batch.kubernetes.io/job-completion-index": "2"},
    }
    return {"metadata": metadata, "spec": {"containers": [{"name": "loader", **container}]}}


def environment(*env: dict[str, Any], **container: Any) -> dict[str, str]:
    return pods.environment(pod(env=list(env), **container), GIVEN)


def test_kubernetes_libraries_are_taken_as_modules_of_their_own() -> None:
    assert module_file(UPSTREAM, "1.34.1") == MODULE


def test_plain_variables_keep_their_values() -> None:
    assert environment({"name": "A", "value": "1"}, {"name": "B"}) == {"A": "1", "B": ""}


def test_a_reference_stands_for_a_variable_set_before_it() -> None:
    found = environment(
        {"name": "EARLY", "value": "$(LATE)"},
        {"name": "LATE", "value": "x"},
        {"name": "BOTH", "value": "$(LATE)-$$(LATE)-$LATE"},
    )
    assert found == {"EARLY": "$(LATE)", "LATE": "x", "BOTH": "x-$(LATE)-$LATE"}


def test_variables_come_from_secrets_config_maps_and_fields() -> None:
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    found = environment(
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "user", "key": "password"}}},
        {"name": "BROKERS", "valueFrom": {"configMapKeyRef": {"name": "addresses", "key": "BROKERS"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "user", "key": "other", "optional": True}}},
    )
    assert found == {"PASSWORD": "sesame", "BROKERS": "kafka:9093", "POD": "wf-1-abcde", "JOB_COMPLETION_INDEX": "2"}


def test_single_variables_go_over_those_of_a_whole_config_map() -> None:
    found = environment(
        {"name": "KAFKA_LEVEL", "value": "debug"},
        envFrom=[{"prefix": "KAFKA_", "configMapRef": {"name": "addresses"}}, {"secretRef": {"name": "user"}}],
    )
    assert found == {"KAFKA_BROKERS": "kafka:9093", "KAFKA_LEVEL": "debug", "password": "sesame"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"secretKeyRef": {"name": "other", "key": "password"}}, "there is no Secret other"),
        ({"configMapKeyRef": {"name": "addresses", "key": "PORT"}}, "ConfigMap addresses has no key PORT"),
        ({"configMapKeyRef": {"name": "no", "key": "PORT"}}, "ConfigMap no has no key PORT"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "the field status.podIP is not known here"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "valueFrom is not known here: resourceFieldRef"),
    ],
)
def test_what_is_not_there_is_named(source: dict[str, Any], said: str) -> None:
    with pytest.raises(pods.PodError, match=said):
        environment({"name": "A", "valueFrom": source})


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, ["loader", "run"]),
        ({"args": ["backfill", "--from-id", "$(FROM)"]}, ["loader", "backfill", "--from-id", "5"]),
        ({"command": ["sh"]}, ["sh"]),
        ({"command": ["sh"], "args": ["-c", "$(OTHER)"]}, ["sh", "-c", "$(OTHER)"]),
    ],
)
def test_a_pods_command_and_arguments_replace_those_of_the_image(
    container: dict[str, Any], expected: list[str]
) -> None:
    assert pods.command(pod(**container), {"FROM": "5"}, ["loader"], ["run"]) == expected


def test_mounted_secrets_are_files_and_paths_follow_them() -> None:
    made = pod(
        volumeMounts=[
            {"name": "user", "mountPath": "/secrets/user"},
            {"name": "all", "mountPath": "/etc/all/"},
            {"name": "tmp", "mountPath": "/scratch"},
        ]
    )
    made["spec"]["volumes"] = [
        {"name": "user", "secret": {"secretName": "user", "items": [{"key": "password", "path": "kafka/password"}]}},
        {"name": "all", "configMap": {"name": "addresses"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    user, everything, tmp = pods.mounts(made, GIVEN)
    assert user == pods.Mount("/secrets/user", {"kafka/password": b"sesame"})
    assert everything == pods.Mount("/etc/all", {"BROKERS": b"kafka:9093", "LEVEL": b"info"})
    assert tmp == pods.Mount("/scratch", {})
    moves = {"/secrets/user": "/here/user"}
    assert pods.moved("/secrets/user/kafka/password", moves) == "/here/user/kafka/password"
    assert pods.moved("/secrets/user", moves) == "/here/user"
    assert pods.moved("/secrets/users/password", moves) == "/secrets/users/password"


def test_a_container_that_does_not_answer_its_probes_is_given_up() -> None:
    container = {
        "ports": [{"name": "metrics", "containerPort": 9464}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "periodSeconds": 0.01,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # refused from here on
    liveness = Liveness(container, {9464: port}, given_up.set)
    assert given_up.wait(30)
    assert liveness.answers == [0, 0, 0]


def test_an_end_other_than_the_expected_one_is_wrong() -> None:
    expected = End("Complete", ((143, 0),), counted=0)
    assert str(expected) == "143, 0: Complete, 0 counted as failed"
    assert Outcome("an eviction", expected, seen=End("Complete", ((143, 0),), counted=0)).passed
    assert not Outcome("an eviction", expected, seen=End("Complete", ((143, 0),), counted=1)).passed
    assert not Outcome("an eviction", expected).passed
    assert not Outcome("an eviction", expected, seen=expected, broken=["1 lost"]).passed
