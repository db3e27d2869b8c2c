"""Tests whose servers mostly wait: a few of them at once, each told of as a test of its own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Story = Callable[[str], None]


def each(names: Iterable[str]) -> Callable[[Story], Any]:
    """Make a test for each of `names` of a function that takes one.

    All tests of a module that are made so, and that the run asks for, are begun together by the
    module's fixture `begun`: see `begin`.
    """

    def make(story: Story) -> Any:
        def test(name: str, begun: Begun) -> None:
            begun[story, name].result()

        test.__name__ = test.__qualname__ = story.__name__
        test.story = story  # type: ignore[attr-defined]
        return pytest.mark.parametrize("name", list(names))(test)

    return make


Begun = dict[tuple[Any, str], Future[None]]


def begin(request: pytest.FixtureRequest, pool: ThreadPoolExecutor) -> Begun:
    """Begin what this run asks for of the module, in the order in which it is asked for."""
    begun: Begun = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.module is request.module:
            story = getattr(item.function, "story", None)
            if story is not None:
                name = str(item.callspec.params["name"])
                begun[story, name] = pool.submit(story, name)
    return begun
