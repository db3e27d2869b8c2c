"""Names that a package loads on first use (PEP 562), so that importing it costs next to nothing."""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself is a tenth of the time that the command line takes to start
    from collections.abc import Callable, Mapping
    from typing import Any


def on_first_use(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and `__dir__` of `package`, for names to their submodules' names.

    What comes from a private module says, once loaded, that it lives in `package`, so that
    messages, tracebacks and the documentation name what to import.
    """
    module = sys.modules[package]

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=module
            )
        found = getattr(importlib.import_module(f"{package}.{home}"), name)
        if home.startswith("_"):
            found.__module__ = package
        setattr(module, name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(module), *homes})

    return load, names
