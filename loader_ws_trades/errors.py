"""The errors of this package, grouped by how callers handle them.

    LoaderError
    ├── ConfigurationError   exit code 2: running again will not help
    ├── RunError             exit code 1: running again may help
    ├── EndOfOutputError     exit code 0: the reader of the output has gone away
    └── UnavailableError     no answer at present: warn, or retry later

Each text is one sentence for the user: what is wrong and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LoaderError(Exception):
    """Base of the errors that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(LoaderError):
    """A setting is wrong, or the other side rejects it; running again will not help."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class RunError(LoaderError):
    """The run cannot continue; running again may help."""


class EndOfOutputError(LoaderError):
    """The reader of the output has gone away: a pipe was closed."""

    exit_code = 0


class UnavailableError(LoaderError):
    """The other side did not answer, or asked us to wait."""

    def __init__(self, message: str, *, retry_after: float = 0.0, lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait before the next attempt, if the other side said so."""
        self.lasting = lasting
        """Whether a later attempt is unlikely to succeed."""
