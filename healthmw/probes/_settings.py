"""A probe of the app's configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sized
from typing import Any

from healthmw.exceptions import ProbeFailedError

_TRUTHS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class SettingsProbe:
    """See that settings are there and can be parsed. No value is ever shown.

    `required` maps names to parsers: callables that take the value and raise when it won't do, such
    as `int`, `float`, `json.loads`, `datetime.fromisoformat` or a function of your own; `str` takes
    any text. `bool` means 1, true, yes or on, or 0, false, no or off. A collection of names alone
    stands for `str`. What is missing or empty, be it text or a collection, fails. `optional` is the
    same for those that may be missing.

    `source` is where they are: a mapping, by default the environment; or an object that has them as
    attributes, such as `django.conf.settings`. A value that is of a parser's type already is taken
    as it is. Each run reads anew.

    A pass proves that each setting is there and its parser took it, and not that it is right.
    Raises `ProbeFailedError`, which names all settings that are not well. Put it into the release
    phase (`groups=["release"]`), where it stops a deploy that lacks a setting.
    """

    def __init__(
        self,
        required: Mapping[str, Callable[[Any], object]] | list[str] | tuple[str, ...],
        *,
        optional: Mapping[str, Callable[[Any], object]] | list[str] | tuple[str, ...] = (),
        source: object = None,
    ) -> None:
        self._required = _parsers("required", required)
        self._optional = _parsers("optional", optional)
        if not self._required and not self._optional:
            raise ValueError("required names no setting: such a probe would always pass")
        # Not by a default: documentation shows those, and the environment has secrets in it.
        self._source = os.environ if source is None else source

    def __repr__(self) -> str:
        return f"<SettingsProbe {', '.join([*self._required, *self._optional])}>"

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the settings that must be there: part of the release's fingerprint."""
        return tuple(self._required)

    def __call__(self) -> None:
        """Read and parse each once."""
        wrong: list[str] = []
        for name, parse in {**self._required, **self._optional}.items():
            value = self._value(name)
            if value is None or (isinstance(value, Sized) and not len(value)):
                if name in self._required:
                    wrong.append(f"{name} is missing")
                continue
            try:
                _parse(parse, value)
            except Exception:  # noqa: BLE001 - its words may quote the value, so none are kept
                wrong.append(f"{name} is not a valid {getattr(parse, '__name__', 'value')}")
        if wrong:
            raise ProbeFailedError("; ".join(wrong))

    def _value(self, name: str) -> Any:
        if isinstance(self._source, Mapping):
            return self._source.get(name)
        return getattr(self._source, name, None)


def _parsers(option: str, settings: object) -> dict[str, Callable[[Any], object]]:
    if isinstance(settings, list | tuple):
        settings = dict.fromkeys(settings, str)
    if not isinstance(settings, Mapping) or not all(map(callable, settings.values())):
        raise TypeError(f"{option} must map names to parsers, or be a list of names")
    return dict(settings)


def _parse(parse: Callable[[Any], object], value: Any) -> None:
    if isinstance(parse, type) and isinstance(value, parse):
        return
    if parse is bool:  # bool("false") is True, and nobody means that
        _TRUTHS[str(value).lower()]
    else:
        parse(value)
