"""Options, checked: what makes no sense is refused at once, by the option's name."""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Iterable
from enum import Enum
from typing import Final

_SHORTEST = 1e-9
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class WrongTypeError(TypeError, ValueError):
    """An option was given what it has no use for, whatever its value.

    Every wrong option raises `ValueError`; this one is what Python has for it besides.
    """


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "MISSING"


MISSING: Final = Missing.MISSING
"""What an option is that was not given, where None would be a value."""


def name_of(option: str, value: object) -> str:
    """Return `value` if it can name a check or group (it becomes part of a path)."""
    value = text(option, value)
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{option}={value!r} can't be part of a path: use up to 64 letters, digits, "
            "'-', '_' and '.', beginning with a letter or digit"
        )
    return value


def names(option: str, values: object) -> frozenset[str]:
    """Return `values` as a set, if it is a collection of names."""
    if isinstance(values, str):
        raise WrongTypeError(f"{option} must be a collection of names: write {option}=[{values!r}]")
    if not isinstance(values, Iterable):
        raise WrongTypeError(f"{option} must be a collection of names, not {type(values).__name__}")
    found: set[str] = set()
    for value in values:
        if not isinstance(value, str):
            raise WrongTypeError(f"{option} must be a collection of names, and {value!r} is none")
        found.add(value)
    return frozenset(found)


def number(option: str, value: object, wanted: str = "a number") -> float:
    """Return `value` if it is a number; infinity for an integer that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongTypeError(f"{option} must be {wanted}, not {type(value).__name__}")
    try:
        float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    return value


def seconds(option: str, value: object, *, zero: bool = False) -> float:
    """Return `value` if it is a finite number of seconds above 0 (or, with `zero`, not below)."""
    value = number(option, value, "a number of seconds")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        least = "0 or more" if zero else "above 0"
        raise ValueError(f"{option}={value!r} must be a finite number of seconds, {least}")
    if 0 < value < _SHORTEST:
        raise ValueError(f"{option}={value!r} is less than a nanosecond: no clock can tell")
    return float(value)


def rate(option: str, value: object) -> float:
    """Return `value` if it is a finite number above 0."""
    value = number(option, value)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{option}={value!r} must be a finite number above 0")
    return float(value)


def count(option: str, value: object, most: int = sys.maxsize) -> int:
    """Return `value` if it is a whole number of 1 or more, and not above `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongTypeError(f"{option} must be a whole number, not {type(value).__name__}")
    size = number(option, value)
    if size < 1:
        raise ValueError(f"{option}={size!r} must be 1 or more")
    if size > most:
        raise ValueError(f"{option}={size!r} must be {most} or less")
    return value


def flag(option: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise WrongTypeError(f"{option} must be True or False, not {type(value).__name__}")
    return value


def text(option: str, value: object) -> str:
    """Return `value` if it is a str."""
    if not isinstance(value, str):
        raise WrongTypeError(f"{option} must be a str, not {type(value).__name__}")
    return value


def visible(option: str, value: object) -> str:
    """Return `value` if it is all visible ASCII, as URLs and keys are. The error does not show it.

    What is read from a file mostly ends with a line break, which would be found out much later.
    """
    value = text(option, value)
    if not value or not all("!" <= char <= "~" for char in value):
        raise ValueError(f"{option} must be visible ASCII characters: no blank, no line break")
    return value


def header_name(option: str, value: object) -> str:
    """Return `value` if a header may have this name."""
    value = text(option, value)
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{option}={value!r} can't be the name of a header")
    return value


def header_value(option: str, value: object) -> str:
    """Return `value` if a header may have it. The error does not show it."""
    value = text(option, value)
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(f"{option} has a line break, an outer blank or non-ASCII text")
    return value


def check_function(option: str, value: object) -> None:
    """Raise `WrongTypeError` unless `value` can be called, and is not async: nobody awaits it."""
    if not callable(value):
        raise WrongTypeError(f"{option} must be a function, not {type(value).__name__}")
    function: object = value
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not asking whether, but which kind
    ):
        raise WrongTypeError(f"{option} must be a sync function, and {value!r} is async")
