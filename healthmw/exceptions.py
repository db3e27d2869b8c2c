"""Every error that healthmw raises on its own account.

The tree of them::

    Exception
    └── HealthError
        ├── DependencyUnavailable   a guarded call was refused and has no fallback
        ├── ProbeFailedError        a probe looked, and what it saw was not well
        │   └── ProbeTimeoutError   a probe gave up waiting (also a TimeoutError)
        ├── WrongCredentialsError   a caller of the endpoint showed a wrong secret
        └── MissingExtraError       an optional library is not installed (also an ImportError)

Wrong options raise `ValueError`, and where the type is wrong one that is a `TypeError`, too.
"""

from __future__ import annotations

__all__ = (
    "DependencyUnavailable",
    "HealthError",
    "MissingExtraError",
    "ProbeFailedError",
    "ProbeTimeoutError",
    "WrongCredentialsError",
)


class HealthError(Exception):
    """The base of every error that healthmw defines."""


class DependencyUnavailable(HealthError):  # noqa: N818 - the contract's name: it reads as a state
    """A call to a dependency was refused, and no fallback was given.

    `name` is the check's name. `retry_after` is the number of seconds until a call may succeed
    again, or None when that isn't known.
    """

    def __init__(self, name: str, retry_after: float | None = None) -> None:
        self.name = name
        self.retry_after = retry_after
        super().__init__(name, retry_after)

    def __str__(self) -> str:
        """Name the dependency, and say when to try again where that is known."""
        if self.retry_after is None:
            return f"{self.name} is unavailable"
        return f"{self.name} is unavailable; try again in {self.retry_after:.1f} s"


class ProbeFailedError(HealthError):
    """A probe reached what it tests, and what it found was not well."""


class ProbeTimeoutError(ProbeFailedError, TimeoutError):
    """A probe's own time limit passed: the check's reason is `timeout`, not `failed`."""


class WrongCredentialsError(HealthError):
    """The caller of the endpoint showed credentials, and they are wrong.

    An `authorize=` function of your own raises it where False would be too mild: the caller gets a
    403 (401 if a `Token` would do as well), and after ten from one address a 429 for a while.
    """


class MissingExtraError(HealthError, ImportError):
    """An optional library is needed and not installed; the message names the extra to install."""

    def __init__(self, what: str, extra: str) -> None:
        self.what = what
        self.extra = extra
        super().__init__(what, extra)

    def __str__(self) -> str:
        """Name what needs the library, and what to install."""
        return f"{self.what} needs an optional library: pip install 'healthmw[{self.extra}]'"
