"""Probes of what a Django project leans on, by its own settings."""

from __future__ import annotations

import math
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.core import mail
from django.core.cache import caches
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader

from healthmw._driver import check_timeout, shut_down_after, watch_connection, with_latency
from healthmw._held import PerProcess
from healthmw._kept import FOR_EACH_USE, KeptConnection
from healthmw._sql import Wishes, talk
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from django.core.cache import BaseCache
    from django.db.backends.base.base import BaseDatabaseWrapper

    from healthmw._probe import Outcome
    from healthmw._sql import Rows, Seen

__all__ = ("CacheProbe", "DatabaseProbe", "MigrationsProbe")

_T = TypeVar("_T")

_REPLICA_LAG = 0.2  # seconds
# The options by which a driver bounds the opening of a connection, in whole seconds. PyMySQL, which
# may stand in for MySQLdb, counts a login as reading.
_DRIVER_LIMITS = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "mysql.connector": ("connect_timeout",),
    "MySQLdb": ("connect_timeout", "read_timeout", "write_timeout"),
    "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
}
_NAMED = 5  # migrations that a message names; of more, it gives the number


class DatabaseProbe:
    """Run `SELECT 1` on the database `alias` of DATABASES.

    A pass proves a round trip on a connection of the probe's own, opened as the settings say. It is
    kept for the next run (not while a project's tests run, whose database is dropped in the end),
    and replaced when it does not answer, so that a restart of the server is no failure; and after
    `CONN_MAX_AGE`, or a minute where that is 0. Django's connections, which belong to the threads
    of requests, are not touched.

    - `writable=True`: the run fails on a replica, and where transactions are read-only.
    - `max_replica_lag` (seconds): a replica that is further behind its primary is `Degraded`. Both
      are for PostgreSQL, MySQL and MariaDB; `PsycopgProbe` and `PyMySQLProbe` of `healthmw.probes`
      say how it is found out, and what privilege it takes.
    - `timeout` (seconds) bounds a run: a server that hangs is hung up on, also by a connection that
      is kept. To connect takes as long as the driver lets it, which is told the limit in whole
      seconds (PostgreSQL, MySQL).

    SQLite's file is opened anew for each run and its table of contents read, so that a file that is
    missing or is no database is noticed; none is created. Measures `latency_seconds` and, of a
    replica that is asked for it, `replica_lag_seconds`.
    """

    def __init__(
        self,
        alias: str = "default",
        *,
        writable: bool = False,
        max_replica_lag: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        self._own = _OwnConnection(alias, timeout=timeout)
        self._wishes = Wishes(writable=writable, max_replica_lag=max_replica_lag)
        if self._wishes and self._own.vendor not in {"postgresql", "mysql"}:
            raise ValueError(
                "writable and max_replica_lag are for PostgreSQL, MySQL and MariaDB,"
                f" not for {self._own.vendor}"
            )

    def __call__(self) -> Outcome:
        """Ask once."""
        started = time.perf_counter()
        seen = self._own.run(self._ask)
        return with_latency(seen, time.perf_counter() - started)

    def close(self) -> None:
        """Close the connection; the next run opens another."""
        self._own.close()

    def _ask(self, connection: BaseDatabaseWrapper) -> Seen:
        return talk(self._wishes.examine(connection.vendor), partial(_rows, connection))


class MigrationsProbe:
    """Compare the migrations of the code with those recorded in the database `alias`.

    A pass proves that each migration of the code is recorded as applied there, not what the tables
    look like. Only apps count that the DATABASE_ROUTERS let migrate there.

    - The database is *behind*: some of the code's migrations are missing. The run fails and names
      them. The next run after `migrate` passes.
    - The database is *ahead*: it has migrations that the code doesn't know, for a newer release has
      migrated while this one still runs, or was rolled back to. The run passes: `ahead` counts them
      and `ahead_migrations` names some. Records of migrations that were squashed and deleted count
      as well, until `migrate --prune`; those of apps that aren't installed don't.

    Where a squashed migration has replaced others, either serves. The code's migrations are read on
    the first run and kept; the database is read on each run, on a connection of the probe's own
    that is closed after it. No table is created. `timeout` is as for `DatabaseProbe`.
    """

    def __init__(self, alias: str = "default", *, timeout: float = 2.0) -> None:
        self._alias = alias
        self._own = _OwnConnection(alias, timeout=timeout, keep=False)
        self._loader: _Loader | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The last migration of each app, once it has run: part of the release's fingerprint."""
        loader = self._loader
        return () if loader is None else tuple(".".join(key) for key in loader.graph.leaf_nodes())

    def __call__(self) -> Mapping[str, int | str]:
        """Compare once; return how many migrations the database is ahead."""
        loader = self._own.run(self._load)
        here = {app for app in loader.migrated_apps if _is_migrated_in(self._alias, app)}
        known = {key for key in loader.graph.nodes if key[0] in here}
        missing = known - set(loader.applied_migrations)
        if missing:
            option = "" if self._alias == "default" else f" --database={self._alias}"
            raise ProbeFailedError(
                f"the database is behind the code by {len(missing)}"
                f" migration{'s' * (len(missing) > 1)}: {_names(missing)};"
                f" run manage.py migrate{option}"
            )
        replaced = {key for one in loader.replacements.values() for key in one.replaces}
        unknown = set(loader.applied_migrations) - set(loader.disk_migrations) - replaced
        ahead = {key for key in unknown if key[0] in here}
        found: dict[str, int | str] = {"ahead": len(ahead)}
        if ahead:
            found["ahead_migrations"] = _names(ahead)
        return found

    def close(self) -> None:
        """Close the connection; the next run opens another."""
        self._own.close()

    def _load(self, connection: BaseDatabaseWrapper) -> _Loader:
        loader = self._loader or _Loader(connection, load=False)
        loader.connection = connection
        with _used_by_the_orm(connection):
            loader.build_graph()
        self._loader = loader
        return loader


class CacheProbe:
    """Write to the cache `alias` of CACHES, read it back, and compare.

    A pass proves that what is written is there a moment later (0.2 s, for it may be read from a
    replica): what a cache that has lost its server, and swallows that, does not.

    It is asked over a backend of the probe's own, made as the settings say and kept for the next
    run, so that connections don't add up; after a failure it is replaced. How long it may take is
    up to the backend's options: set its timeouts there (`socket_timeout` for Redis, `timeout` for
    pymemcache), or a server that hangs keeps a thread. Measures `latency_seconds`.
    """

    def __init__(self, alias: str = "default") -> None:
        if alias not in caches.settings:
            known = ", ".join(sorted(caches.settings))
            raise ValueError(f"alias={alias!r} is not in CACHES, which has {known}")
        self._own = PerProcess(lambda: _OwnCache(alias))

    def __call__(self) -> Mapping[str, float]:
        """Write, read, compare, delete."""
        started = time.perf_counter()
        own = self._own.get()
        with own.lock, _no_new_connections():
            while True:
                kept, own.kept = own.kept, False
                try:
                    own.compare()
                except Exception:
                    own.renew()
                    # A kept connection may have died with its server, or lead to one that has been
                    # replaced: a new one tells.
                    if not kept:
                        raise
                else:
                    own.kept = True
                    break
        return {"latency_seconds": time.perf_counter() - started}

    def close(self) -> None:
        """Close the backend's connections; the next run opens others."""
        own = self._own.pop()
        if own is not None:
            own.close()


class _OwnCache:
    """A backend beside those that Django keeps for threads. The lock lends it to one run."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._backend: BaseCache = caches.create_connection(alias)
        self.lock = threading.Lock()
        self.kept = False

    def compare(self) -> None:
        key, value = f"healthmw:{secrets.token_hex(8)}", secrets.token_hex(8)
        self._backend.set(key, value, timeout=60)
        until = time.monotonic() + _REPLICA_LAG
        while (found := self._backend.get(key)) is None and time.monotonic() < until:
            time.sleep(_REPLICA_LAG / 10)
        self._backend.delete(key)
        if found != value:
            raise ProbeFailedError("what was written could not be read back")

    def renew(self) -> None:
        with suppress(Exception):
            self.close()
        self._backend = caches.create_connection(self._alias)

    def close(self) -> None:
        self._backend.close()
        # Django's own backend for Redis does nothing then, and shows its connections nowhere else.
        pools = getattr(vars(self._backend).get("_cache"), "_pools", {})
        for pool in pools.values():
            pool.disconnect()


@contextmanager
def _no_new_connections() -> Iterator[None]:
    """Close the database connections that a cache in the database opens for this thread."""
    before = [one for one in connections.all(initialized_only=True) if one.connection is not None]
    try:
        yield
    finally:
        for one in connections.all(initialized_only=True):
            if one not in before:
                one.close()


class _Loader(MigrationLoader):
    """Reads the files once: they are the code of this process, whatever lies there later."""

    def load_disk(self) -> None:
        if self.disk_migrations is None:
            super().load_disk()


@contextmanager
def _used_by_the_orm(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Have this thread's queries go over `connection`: the table of migrations is read by alias."""
    threads_own = connections[connection.alias]
    connections[connection.alias] = connection
    try:
        yield
    finally:
        connections[connection.alias] = threads_own


def _is_migrated_in(alias: str, app: str) -> bool:
    """Tell whether the routers let any of the app's models be migrated there, as Django asks it."""
    models = [*apps.get_app_config(app).get_models()]
    if not models:
        return router.allow_migrate(alias, app)
    return any(router.allow_migrate_model(alias, model) for model in models)


def _names(migrations: Iterable[tuple[str, str]]) -> str:
    names = [".".join(key) for key in sorted(migrations)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


class _OwnConnection:
    """A connection beside those that Django keeps for threads. One run uses it at a time."""

    def __init__(self, alias: str, *, timeout: float, keep: bool = True) -> None:
        if alias not in connections.settings:
            known = ", ".join(sorted(connections.settings))
            raise ValueError(f"alias={alias!r} is not in DATABASES, which has {known}")
        self._alias = alias
        self._timeout = check_timeout(timeout)
        self._keep = keep
        self._opened: Callable[[Any], None]
        """Is told of what a run opens, to bound it."""
        self._kept: KeptConnection[BaseDatabaseWrapper]
        self._kept = KeptConnection(
            connect=self._connect, close=lambda one: one.close(), timeout=self._timeout
        )
        self.close = self._kept.close

    @property
    def vendor(self) -> str:
        """Django's word for the kind of database."""
        found: str = connections.create_connection(self._alias).vendor
        return found

    def run(self, work: Callable[[BaseDatabaseWrapper], _T]) -> _T:
        """Return what `work` makes of the connection, which has answered then."""
        return self._kept.run(partial(self._run, work))

    def _connect(self, _seconds: float) -> BaseDatabaseWrapper:
        """Return one that opens at its first query."""
        connection = connections.create_connection(self._alias)
        connection.inc_thread_sharing()  # runs are in different threads, one at a time
        connection.settings_dict = _own_settings(connection, self._timeout)
        connect = connection.get_new_connection

        def connect_watched(conn_params: Any) -> Any:
            driver = connect(conn_params)
            self._opened(driver)  # which may be late already
            return driver

        connection.get_new_connection = connect_watched  # type: ignore[method-assign] # of this one alone
        return connection

    def _run(
        self,
        work: Callable[[BaseDatabaseWrapper], _T],
        connection: BaseDatabaseWrapper,
        seconds: float,
    ) -> _T:
        with shut_down_after(seconds) as watch:
            watch_connection(watch, connection.connection)
            self._opened = partial(watch_connection, watch)
            connection.close_if_unusable_or_obsolete()
            _select_one(connection)
            found = work(connection)
        # A file that is kept open is not seen to be replaced. And the database of a project's tests
        # is dropped in the end, which PostgreSQL refuses while a connection is open.
        in_tests = hasattr(mail, "outbox")
        if connection.vendor == "sqlite" or in_tests or not self._keep:
            connection.close()
        return found


def _select_one(connection: BaseDatabaseWrapper) -> None:
    query = f"SELECT 1{connection.features.bare_select_suffix}"
    if connection.vendor == "sqlite":
        file = str(connection.settings_dict["NAME"])
        if not (file.startswith("file:") or file == ":memory:" or Path(file).is_file()):
            raise ProbeFailedError("the database file does not exist")
        query = "SELECT count(*) FROM sqlite_master"
    with connection.cursor() as cursor:
        cursor.execute(query)
        cursor.fetchone()


def _rows(connection: BaseDatabaseWrapper, statement: str) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _own_settings(connection: BaseDatabaseWrapper, timeout: float) -> dict[str, Any]:
    """Return the settings for a connection that is kept, with a limit for connecting.

    The app's connections keep theirs: they may come from a pool, by default each is over with its
    request, and they may leave a transaction open. Where the settings say for how long one is kept,
    this one isn't kept any longer.
    """
    settings, limit = connection.settings_dict, math.ceil(timeout)
    options = dict(settings.get("OPTIONS") or {})
    options.pop("pool", None)
    driver: object = getattr(connection, "Database", None)  # its module
    for name in _DRIVER_LIMITS.get(getattr(driver, "__name__", ""), ()):
        if not 0 < float(options.get(name) or 0) <= limit:
            options[name] = limit
    age = settings.get("CONN_MAX_AGE")
    age = FOR_EACH_USE if age == 0 else age
    return {**settings, "OPTIONS": options, "AUTOCOMMIT": True, "CONN_MAX_AGE": age}
