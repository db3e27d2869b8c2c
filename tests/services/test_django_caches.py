"""CacheProbe on Django's caches: Redis, Memcached, the database, and those that keep nothing."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import django.test.signals  # noqa: F401 - lets caches follow changed settings
import pytest
import redis
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from healthmw.django.probes import CacheProbe
from healthmw.exceptions import ProbeFailedError
from tests import django_project  # noqa: F401 - configures Django
from tests.probes.running import in_thread
from tests.services.redis_servers import connected
from tests.services.servers import PASSWORD, Redis
from tests.services.store_servers import Memcached
from tests.services.test_store_servers import stats
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKENDS = "django.core.cache.backends"


@pytest.fixture
def redis_cache(redis_server: Redis) -> Iterator[CacheProbe]:
    here = {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": redis_server.dsn()}
    with override_settings(CACHES={"default": here}):
        probe = CacheProbe()
        yield probe
        probe.close()


@pytest.fixture
def memcached(lend: Any) -> Memcached:
    server: Memcached = lend(Memcached)
    return server


@pytest.fixture
def memcached_cache(memcached: Memcached) -> Iterator[CacheProbe]:
    here = {
        "BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache",
        "LOCATION": memcached.address,
        "OPTIONS": {"timeout": 1, "connect_timeout": 1},
    }
    with override_settings(CACHES={"default": here}):
        probe = CacheProbe()
        yield probe
        probe.close()


def test_redis(redis_cache: CacheProbe, redis_server: Redis) -> None:
    for _ in range(20):
        in_thread(redis_cache)  # each in a thread of its own
    with connected(redis_server) as client:
        assert len(client.client_list()) == 2  # the probe's, and this one
        assert client.dbsize() == 0
    redis_server.restart()
    in_thread(redis_cache)  # goes unnoticed
    redis_server.kill()
    with pytest.raises(redis.ConnectionError) as info:
        in_thread(redis_cache)
    assert PASSWORD not in str(info.value)
    redis_server.start()
    in_thread(redis_cache)


def test_redis_is_left_when_the_probe_is_closed(
    redis_cache: CacheProbe, redis_server: Redis
) -> None:
    with connected(redis_server) as client:
        gc.disable()  # Django's backend has no way to close, and leaves it to that
        try:
            in_thread(redis_cache)
            redis_cache.close()
            until_sync(lambda: len(client.client_list()) == 1)
            in_thread(redis_cache)
        finally:
            gc.enable()


def test_memcached(memcached_cache: CacheProbe, memcached: Memcached) -> None:
    before = stats(memcached)
    for _ in range(20):
        in_thread(memcached_cache)
    after = stats(memcached)
    assert after[b"total_connections"] - before[b"total_connections"] == 2  # and one for stats()
    assert after[b"cmd_set"] - before[b"cmd_set"] == 20
    memcached.restart()
    in_thread(memcached_cache)  # goes unnoticed
    memcached.kill()
    with pytest.raises(OSError, match="refused"):
        in_thread(memcached_cache)
    memcached.start()
    in_thread(memcached_cache)


def test_the_database(tmp_path: Path) -> None:
    here = {"BACKEND": f"{BACKENDS}.db.DatabaseCache", "LOCATION": "cache"}
    databases = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.db")}
    }
    old = connections.settings
    connections.settings = connections.configure_settings(databases)
    try:
        with override_settings(CACHES={"default": here}):
            call_command("createcachetable", verbosity=0)
            connections.close_all()

            def run() -> list[Any]:
                CacheProbe()()
                return [one.connection for one in connections.all(initialized_only=True)]

            assert set(in_thread(run)) == {None}  # it leaves none open in that thread
    finally:
        connections.close_all()
        connections.settings = old
        del connections["default"]


def test_a_cache_that_keeps_nothing_fails() -> None:
    caching = {
        "default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"},
        "dummy": {"BACKEND": f"{BACKENDS}.dummy.DummyCache"},
    }
    with override_settings(CACHES=caching):
        in_thread(CacheProbe())
        assert not caches["default"]._cache  # type: ignore[attr-defined] # white-box: it's empty
        with pytest.raises(ProbeFailedError, match="could not be read back"):
            in_thread(CacheProbe("dummy"))


class Lagging(LocMemCache):
    """Shows what was written from the third look on, as a replica does."""

    looks = 0

    def set(self, *args: Any, **options: Any) -> None:
        self.looks = 0
        super().set(*args, **options)

    def get(self, *args: Any, **options: Any) -> Any:
        self.looks += 1
        return super().get(*args, **options) if self.looks > 2 else None


def test_a_replica_may_be_a_moment_behind() -> None:
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Lagging"}}):
        in_thread(CacheProbe())


class Bound(LocMemCache):
    """Leads to the server that was the primary one when it was made."""

    primary = "a"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.server = self.primary

    def set(self, *args: Any, **options: Any) -> None:
        if self.server != self.primary:
            raise redis.ReadOnlyError
        super().set(*args, **options)


def test_a_backend_is_replaced_that_leads_to_a_server_no_longer_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with override_settings(CACHES={"default": {"BACKEND": f"{__name__}.Bound"}}):
        probe = CacheProbe()
        in_thread(probe)
        monkeypatch.setattr(Bound, "primary", "b")
        in_thread(probe)
        in_thread(probe)


def test_an_alias_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="alias='other' is not in CACHES, which has default"):
        CacheProbe("other")
