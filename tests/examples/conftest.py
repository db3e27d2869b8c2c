from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.examples.shops import DJANGO, DJANGO_ASGI, FASTAPI, FLASK, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(
    params=[FASTAPI, FLASK, DJANGO, DJANGO_ASGI], ids=["fastapi", "flask", "django", "django-asgi"]
)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """An example that serves, and all that it needs."""
    made = Shop(request.param, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(params=[FASTAPI, FLASK, DJANGO], ids=["fastapi", "flask", "django"])
def idle_shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """An example of which nothing runs yet."""
    made = Shop(request.param, tmp_path)
    yield made
    made.stop()
