"""The examples on PostgreSQL, which hangs, crashes and comes back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from examples._servers import procfile
from tests.examples.shops import DJANGO, FASTAPI, FLASK, Kind, Shop
from tests.services.servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.servers import PostgreSQL

HEALTH = "/health_check"


@pytest.fixture(params=[FASTAPI, FLASK, DJANGO], ids=["fastapi", "flask", "django"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def as_heroku_writes_it(server: PostgreSQL) -> str:
    return server.dsn().replace("postgresql://", "postgres://")


@pytest.fixture
def shop(kind: Kind, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(kind, tmp_path, DATABASE_URL=as_heroku_writes_it(postgresql))
    yield made
    made.stop()


def test_django_can_drop_the_database_of_its_tests_though_they_asked_for_its_health(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    shop = Shop(DJANGO, tmp_path, DATABASE_URL=as_heroku_writes_it(postgresql))
    done = shop.run("python -W error manage.py test")
    assert done.returncode == 0, done.stdout


def test_a_shop_is_released_and_says_when_postgresql_is_not_there_and_when_it_is_back(
    shop: Shop, postgresql: PostgreSQL
) -> None:
    released = shop.run(procfile(shop.kind.folder, "release"))
    assert released.returncode == 0, released.stdout
    assert PASSWORD not in released.stdout
    shop.start()
    shop.until(HEALTH, lambda answer: answer.body == "OKAY")
    assert shop.ask("/orders").status == 200

    postgresql.pause()
    shop.until(HEALTH, lambda answer: answer.status == 503)
    began = time.monotonic()
    verdict = shop.ask(HEALTH)
    assert verdict.body.startswith("FAILED: database (")
    assert time.monotonic() - began < 6  # the group's deadline is 5 s; a hang would have no end
    assert shop.ask(f"{HEALTH}/live").body == "OKAY"
    postgresql.resume()
    shop.until(HEALTH, lambda answer: answer.body == "OKAY")

    postgresql.kill()
    shop.until(HEALTH, lambda answer: answer.body.startswith("FAILED: database (failed)"))
    postgresql.start()
    shop.until(HEALTH, lambda answer: answer.body == "OKAY")
    assert shop.ask("/orders", data={"item": "tea"}).status == 201

    shop.server.stop()
    assert PASSWORD not in shop.server.log.read_text()
