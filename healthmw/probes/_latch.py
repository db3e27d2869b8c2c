"""A probe of whether the app has warmed up: it says so itself."""

from __future__ import annotations

from healthmw.exceptions import ProbeFailedError


class Latch:
    """Pass once the app has said that it is warmed up: caches are filled, the model is loaded.

    `Latch("prices", "model")` waits for `set("prices")` and `set("model")`, in any order and from
    any thread; `Latch()` for one `set()`. A pass proves that they were called, and lasts: there is
    no way back. `is_set` tells, too.

    Register it as any other probe. `ready` and `startup` fail until it is set, and say what is
    missing; `startup` then stays passed. Raises `ProbeFailedError`.
    """

    is_async = True  # it waits for nothing: a thread would cost more than it

    def __init__(self, *parts: str) -> None:
        if not all(part and isinstance(part, str) for part in parts):
            raise ValueError(f"parts must be names, not {parts!r}")
        self._parts = parts or ("",)
        self._done: set[str] = set()

    def __repr__(self) -> str:
        return f"Latch({', '.join(map(repr, filter(None, self._parts)))})"

    @property
    def is_set(self) -> bool:
        """Whether everything has been set."""
        return not self._missing()

    def set(self, part: str = "") -> None:
        """Say that `part` is done. Raises `ValueError` for one that was not named at first."""
        if part not in self._parts:
            known = ", ".join(filter(None, self._parts)) or "none: call set() without a part"
            raise ValueError(f"part={part!r} is not one of this latch: {known}")
        self._done.add(part)

    def _missing(self) -> list[str]:
        return [part for part in self._parts if part not in self._done]

    async def __call__(self) -> None:
        """Look once."""
        missing = self._missing()
        if missing:
            raise ProbeFailedError(
                f"still to come: {', '.join(missing)}" if missing[0] else "not set"
            )
