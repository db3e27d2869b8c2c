"""A dict that nobody can change: what one reader of a report does to it, no other sees."""

from __future__ import annotations

from typing import NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that can't be changed. Unlike `MappingProxyType` it can be copied and pickled.

    So it goes through `dataclasses.asdict`, `json.dumps` and a queue to another process.
    """

    __slots__ = ()

    def _refuse(self, *_arguments: object, **_more: object) -> NoReturn:
        raise TypeError("other readers have the same one, so it can't be changed: copy it, dict(x)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict[K, V]], tuple[dict[K, V]]]:
        return type(self), (dict(self),)
