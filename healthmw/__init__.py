"""Health checks for Python web apps: readiness that is true, and an answer that is always on time.

The names here are loaded on first use, so that `import healthmw` costs next to nothing.
"""

from __future__ import annotations

from healthmw._lazy import on_first_use

TYPE_CHECKING = False  # as `typing` has it, without the time that loading `typing` takes
if TYPE_CHECKING:
    from healthmw._breaker import CircuitBreaker
    from healthmw._check import Check
    from healthmw._health import Health
    from healthmw._listeners import Listener, StatusChange
    from healthmw._model import Reason, Report, Result, Status
    from healthmw._probe import Degraded
    from healthmw.exceptions import DependencyUnavailable

__all__ = (
    "Check",
    "CircuitBreaker",
    "Degraded",
    "DependencyUnavailable",
    "Health",
    "Listener",
    "Reason",
    "Report",
    "Result",
    "Status",
    "StatusChange",
)

# Hidden from type checkers: to them any misspelt name would be one that is loaded on first use.
if not TYPE_CHECKING:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "Check": "_check",
            "CircuitBreaker": "_breaker",
            "Degraded": "_probe",
            "DependencyUnavailable": "exceptions",
            "Health": "_health",
            "Listener": "_listeners",
            "Reason": "_model",
            "Report": "_model",
            "Result": "_model",
            "Status": "_model",
            "StatusChange": "_listeners",
        },
    )
