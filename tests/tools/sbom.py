"""A CycloneDX bill of materials of an image's file system: `docker export` in, JSON out."""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from email.message import Message
from email.parser import Parser
from typing import IO

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_DPKG = re.compile(r"var/lib/dpkg/status(\.d/[^/]+(?<!\.md5sums))?")
_DISTRIBUTION = re.compile(r".*\.dist-info/METADATA")
_PYTHON = re.compile(r".*/include/python3[^/]*/patchlevel\.h")  # of a Python that is no package of Debian's
_BUNDLED = re.compile(r".*/(\w+\.libs/[^/]+\.so[^/]*)")  # libraries that a wheel brings along


def main() -> int:
    """Read a tar from standard input, and write the bill to standard output."""
    found = list(components(sys.stdin.buffer))
    if not found:
        sys.stderr.write("Found no package in the archive; pipe the output of `docker export` in\n")
        return 1
    sys.stdout.write(JsonV1Dot6(Bom(components=found)).output_as_string(indent=2) + "\n")
    return 0


def components(archive: IO[bytes]) -> Iterator[Component]:
    """What a file system holds: packages of Debian and of Python, a Python built from source, bundled libraries."""
    with tarfile.open(fileobj=archive, mode="r|*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if match := _BUNDLED.fullmatch(name):
                yield Component(type=ComponentType.FILE, name=match[1], bom_ref=name)
            reader = next((read for pattern, read in _READERS if pattern.fullmatch(name)), None)
            if reader and (file := tar.extractfile(member)):
                yield from reader(file.read().decode("utf-8", "replace"))


def _packages(text: str) -> Iterator[Component]:
    for fields in _paragraphs(text.split("\n\n")):
        if fields.get("Status", "ok installed").endswith(" installed"):
            name, version = str(fields["Package"]), str(fields["Version"])
            qualifiers = {"arch": str(fields["Architecture"])}
            yield _library(name, version, PackageURL("deb", "debian", name, version, qualifiers))


def _distribution(text: str) -> Iterator[Component]:
    for fields in _paragraphs([text]):
        name, version = str(fields["Name"]), str(fields["Version"])
        purl_name = re.sub(r"[-_.]+", "-", name).lower()
        yield _library(name, version, PackageURL("pypi", None, purl_name, version))


def _paragraphs(texts: Iterable[str]) -> Iterator[Message]:
    return (Parser().parsestr(text) for text in texts if text.strip())


def _python(text: str) -> Iterator[Component]:
    [version] = re.findall(r'^#define PY_VERSION\s+"(.+)"', text, re.MULTILINE)
    yield _library("cpython", version, PackageURL("generic", None, "cpython", version))


def _library(name: str, version: str, purl: PackageURL) -> Component:
    return Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=purl.to_string())


_READERS = ((_DPKG, _packages), (_DISTRIBUTION, _distribution), (_PYTHON, _python))


if __name__ == "__main__":
    sys.exit(main())
