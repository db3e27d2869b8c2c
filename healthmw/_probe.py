"""What a probe is: any callable that returns when what it tests is well, and raises when not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from healthmw._model import NOTHING_MEASURED, Measurement
from healthmw._options import WrongTypeError
from healthmw.exceptions import ProbeFailedError

_MEASUREMENTS_KEPT = 64
_NAME_KEPT = 200


@dataclass(frozen=True, slots=True)
class Degraded:
    """What a probe returns when the dependency works, but not as well as it should.

    `detail` says what is amiss, for the log and for authorised eyes; `measurements` maps names to
    numbers or short texts, with the unit as the name's suffix (`lag_seconds`, `used_bytes`).
    """

    detail: str = ""
    measurements: Mapping[str, Measurement] = field(default_factory=lambda: NOTHING_MEASURED)


Outcome = Degraded | Mapping[str, Measurement] | None
"""What a probe may return: nothing, what it measured, or `Degraded`."""

Probe = Callable[[], Any]
"""A probe: a callable without arguments, sync or async.

It returns when what it tests is well and raises when it is not. It may return `Degraded(...)` or a
mapping of measurements; any other value but False, alone or as the first item of a tuple, counts as
well. It knows no policy: timeouts, retries, caching and criticality belong to the check.

These optional attributes are understood:

- `is_async` (bool): whether to call it on the event loop or in a thread, where that can't be told
  from the signature;
- `aclose()` (async) or `close()` (sync): gives back what the probe opened. It may run again after;
- `component_type` (text): what health+json says of the kind of thing, `datastore` for one;
- `needs` (texts): what the release that runs here needs, for the release toolkit to compare.
"""


probing: ContextVar[Any] = ContextVar("healthmw_probing", default=None)
"""The permit with which the probe runs that called us, or that began what has called us.

While it is a breaker's trial, guards of that breaker let its calls pass.
"""


def check_probe(probe: object) -> None:
    """Raise `WrongTypeError` unless `probe` is a callable that takes no arguments."""
    if inspect.iscoroutine(probe):
        probe.close()
        raise WrongTypeError(
            "probe is a coroutine that was called already: pass the function, uncalled"
        )
    if not callable(probe):
        raise WrongTypeError(
            f"probe must be a callable without arguments, not {type(probe).__name__}"
        )
    if inspect.isclass(probe):
        raise WrongTypeError(
            f"probe is the class {probe.__name__}: pass an instance, {probe.__name__}(...)"
        )
    inner = _unwrapped(probe)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise WrongTypeError(
            "probe is a generator function, which a call does not run: use no `yield`"
        )
    try:
        inspect.signature(probe).bind()
    except ValueError:
        return  # a builtin without a signature: the first run will tell
    except TypeError as exc:
        raise WrongTypeError(
            f"probe must be callable without arguments ({exc}): use a lambda or functools.partial"
        ) from None


def _unwrapped(probe: Any) -> Any:
    while isinstance(probe, functools.partial):
        probe = probe.func
    return probe


def is_async(probe: Probe) -> bool:
    """Tell whether `probe` is to be called on the event loop (or else in a thread)."""
    declared = getattr(probe, "is_async", None)
    if isinstance(declared, bool):
        return declared
    inner = _unwrapped(probe)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004 - not asking whether, but which kind
    )


def closer(probe: Probe) -> Callable[[], Awaitable[object] | object] | None:
    """Return the bound method that gives back what `probe` opened, if it has one.

    Only instances of classes made for probing are asked: the `close` of a client whose bound method
    serves as a probe (`redis.ping`) is the app's own business.
    """
    if inspect.isroutine(probe) or isinstance(probe, functools.partial):
        return None
    found = getattr(probe, "aclose", None) or getattr(probe, "close", None)
    return found if callable(found) else None


def read_outcome(value: object) -> tuple[str | None, Mapping[str, Measurement]]:
    """Return (None or what is degraded, measurements) of a value that a probe returned.

    Raises `ProbeFailedError` for False (whoever writes `return ok` or `return ok, why` means it),
    and for a call that was prepared and never run: it says nothing.
    """
    if value is None:
        return None, NOTHING_MEASURED
    if value is False:
        raise ProbeFailedError("the probe returned False")
    # What a check of other libraries returns: whether it passed, and why not.
    if isinstance(value, tuple) and value and value[0] is False:
        raise ProbeFailedError(f"the probe returned {value!r}")
    if inspect.iscoroutine(value):
        value.close()
    if inspect.isawaitable(value):
        raise ProbeFailedError("the probe returned what it should have awaited: `await` is missing")
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise ProbeFailedError("the probe returned a generator, which nobody has run")
    if value is Degraded:
        value = Degraded()
    if isinstance(value, Degraded):
        return str(value.detail or ""), _measurements(value.measurements)
    if isinstance(value, Mapping):
        return None, _measurements(value)
    return None, NOTHING_MEASURED


def _measurements(values: Mapping[Any, Any]) -> Mapping[str, Measurement]:
    """Keep what can be shown: scalars under text names, and not without end."""
    kept: dict[str, Measurement] = {}
    for name, value in values.items():
        if len(kept) == _MEASUREMENTS_KEPT:
            break
        if isinstance(name, str) and isinstance(value, bool | int | float | str):
            kept[name[:_NAME_KEPT]] = value
    return kept
