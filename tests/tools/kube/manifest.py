"""The manifests of ``docker/k8s`` as they stand, and what they want to find in the cluster."""

from __future__ import annotations

import fnmatch
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from loader_ws_trades.config.settings import OPTIONS
from loader_ws_trades.sandbox.market.crowd import symbols
from tests.tools.kube import pods
from tests.tools.kube.api import Api
from tests.tools.rights import Right

ONE, FLEET = "job.yaml", "fleet.yaml"
EACH = "fleet.yaml with a pair a pod"
LISTED = symbols(12)
"""The pairs of the exchange: more than one for most shares of `*USDT`, and two that it leaves out."""
FOLDER = Path(__file__).parents[3] / "docker" / "k8s"
_DEFAULTS = {option.variable: option.default for option in OPTIONS}


def granted() -> Iterator[tuple[str, str, str, str]]:
    """The rights that the KafkaUser of ``kafka.yaml`` has: kind, name and pattern of the resource, operation."""
    parts = yaml.safe_load_all((FOLDER / "kafka.yaml").read_text())
    [user] = [part for part in parts if part["kind"] == "KafkaUser"]
    for acl in user["spec"]["authorization"]["acls"]:
        resource = acl["resource"]
        pattern = {"literal": "LITERAL", "prefix": "PREFIXED"}[resource["patternType"]]
        for operation in acl["operations"]:
            yield _kafkas(resource["type"]), resource["name"], pattern, _kafkas(operation)


def _kafkas(name: str) -> str:
    """Return Kafka's own name for what Strimzi calls `transactionalId` or `DescribeConfigs`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def _one_pair_each(text: str) -> str:
    """A fleet as it was in version 1.0: a list of names, and as many pods."""
    job = yaml.safe_load(text)
    job["spec"] |= {"completions": 3, "parallelism": 3}
    [container] = job["spec"]["template"]["spec"]["containers"]
    container["env"] = [each for each in container["env"] if each["name"] != "JOB_COMPLETIONS"]
    [listed] = [each for each in container["env"] if each["name"] == "SYMBOLS"]
    listed["value"] = ",".join(LISTED[:3])
    return str(yaml.safe_dump(job))


@dataclass(frozen=True)
class Manifest:
    """A Job in a file, and what the API server reads in it."""

    text: str
    job: dict[str, Any]

    @classmethod
    def read(cls, api: Api, file: str) -> Manifest:
        """Read a file of ``docker/k8s``, or make `EACH` of one, and have the API server check it."""
        text = _one_pair_each((FOLDER / FLEET).read_text()) if file == EACH else (FOLDER / file).read_text()
        return cls(text, api.apply("/apis/batch/v1/namespaces/default/jobs", text, dry=True))

    @property
    def name(self) -> str:
        """The Job's name."""
        return str(self.job["metadata"]["name"])

    @property
    def user(self) -> str:
        """The user that writes."""
        return self.variables["KAFKA_USER_PRODUCER"]

    @property
    def indexes(self) -> int:
        """Number of pods at work at the same time."""
        return int(self.job["spec"]["completions"])

    @cached_property
    def variables(self) -> dict[str, str]:
        """The variables of every pod."""
        return pods.environment(self.job["spec"]["template"])

    @property
    def symbols(self) -> list[str]:
        """The pairs that are loaded, of those that the exchange has."""
        entries = (self.variables.get("SYMBOLS") or self.variables["SYMBOL"]).split(",")
        return [symbol for symbol in LISTED if any(fnmatch.fnmatchcase(symbol, entry) for entry in entries)]

    def share(self, index: int) -> set[str]:
        """The pairs of a pod: a list is split in its order, what a pattern means by CRC-32."""
        if "*" not in self.variables.get("SYMBOLS", ""):
            return set(self.symbols[index :: self.indexes])
        return {symbol for symbol in self.symbols if zlib.crc32(symbol.encode()) % self.indexes == index}

    def setting(self, variable: str) -> str:
        """Return the value of a setting, which may be its default."""
        return str(self.variables.get(variable) or _DEFAULTS[variable])

    def resource(self, right: Right) -> str:
        """Return the name of what a right is on."""
        return self.setting(right.setting.upper())

    def secrets(self, content: dict[str, str]) -> list[dict[str, Any]]:
        """Return the secrets that the pods mount, made of `content`, which is by their keys."""
        sources = [volume["secret"] for volume in self.job["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
        return [
            {
                "metadata": {"name": source["secretName"]},
                "stringData": {item["key"]: content[item["key"]] for item in source["items"]},
            }
            for source in sources
        ]
