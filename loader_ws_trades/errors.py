"""The errors of this package, told apart by what the caller does with them.

    LoaderError
    ├── ConfigurationError   give up, exit code 2: running again will not help
    ├── RunError             give up, exit code 1: running again may help
    ├── EndOfOutputError          stop, exit code 0: nobody reads what is written
    └── UnavailableError     the other side does not answer now: warn, or try again later

The text of each is one sentence for the user: what is wrong and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class LoaderError(Exception):
    """Base of the errors that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(LoaderError):
    """A setting is wrong, or the other side refuses what it asks for; running again will not help."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class RunError(LoaderError):
    """The run cannot go on; running again may help."""


class EndOfOutputError(LoaderError):
    """Nobody reads what is written any more: a pipe was closed."""

    exit_code = 0


class UnavailableError(LoaderError):
    """The other side did not answer, or asked us to wait."""

    def __init__(self, message: str, *, retry_after: float = 0.0, lasting: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait before the next attempt, if the other side said so."""
        self.lasting = lasting
        """Whether there is little hope that a later attempt goes better."""
