"""The shop that the recipes are tried on: started once a run, mended after each test."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from healthmw import Health
from healthmw.wsgi import HealthApp
from tests.programs import do_without, served
from tests.recipes.instances import Shop
from tests.services.servers import MissingServerError

if TYPE_CHECKING:
    from collections.abc import Iterator


def broken() -> None:
    raise OSError("no route to host")


@pytest.fixture(scope="session")
def _two_shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, Shop]]:
    folder = tmp_path_factory.mktemp("shops")
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        makings = [pool.submit(Shop, name, folder / name) for name in ("one", "two")]
        try:
            one, two = (making.result() for making in makings)
        except MissingServerError as exc:
            do_without(exc)
        for shop in (one, two):
            stack.callback(shop.database.close)
            stack.callback(shop.kill)
        for starting in [pool.submit(shop.__enter__) for shop in (one, two)]:
            starting.result()
        yield one, two


@pytest.fixture
def shops(_two_shops: tuple[Shop, Shop]) -> Iterator[tuple[Shop, Shop]]:
    """Two instances of the shop, well, each with its own database."""
    yield _two_shops
    for shop in _two_shops:
        shop.mend()


@pytest.fixture(scope="module")
def well() -> Iterator[str]:
    """The address of an app that is well."""
    health = Health(release="v42")
    health.add("database", lambda: None)
    with served(HealthApp(health)) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def unwell() -> Iterator[str]:
    """The address of one that isn't: its check `search` fails."""
    health = Health(release="v42")
    health.add("search", broken)
    with served(HealthApp(health)) as port:
        yield f"127.0.0.1:{port}"
