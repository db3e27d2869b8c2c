"""A probe's own connection: opened as the app's engine opens its own, and bounded in time."""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from healthmw._addresses import look_up_any
from healthmw._driver import Undisturbed, let_go_when_cancelled, shut_down_after, watch_connection
from healthmw._kept import FOR_EACH_USE
from healthmw._sockets import connect_pg8000, connect_pymysql
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import URL, Connection, Dialect, Engine, Pool
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import ConnectionPoolEntry

# The connect options by which a driver bounds its own waiting, in seconds; for a server's in whole
# ones. Async drivers of servers need none: they are cancelled.
_DRIVER_LIMITS = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "pg8000": ("timeout",),
    "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "mysqldb": ("connect_timeout", "read_timeout", "write_timeout"),
    "pysqlite": ("timeout",),
    "aiosqlite": ("timeout",),
}

# The drivers that are given a socket to connect over, with what of theirs takes one.
_OVER_A_SOCKET = {
    "pg8000": (connect_pg8000, "Connection"),
    "pymysql": (connect_pymysql, "connect"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """What bounds the opening of a connection."""

    limits: Mapping[str, float]  # the driver's options
    seconds: float
    watch: Callable[[int], None]  # is told the sockets that are to be shut down in the end


# Set while the probe asks for a connection, and only there: what the app opens keeps its options.
_bounds: ContextVar[_Bounds | None] = ContextVar("healthmw_connect_bounds", default=None)


class OwnConnection:
    """One connection at most, kept between runs unless `once`.

    A lock guards it: `held` among threads, `async_lock` among the tasks of a loop.
    """

    def __init__(self, app: Engine, *, timeout: float, once: bool) -> None:
        from sqlalchemy import Engine

        # A pool like the app's and beside it, so that connections are opened just as the app's are.
        # Not a second engine from the URL: that would lack the app's creator and connect_args.
        self._engine = Engine(
            app.pool.recreate(),
            app.dialect,
            app.url,
            execution_options={"isolation_level": "AUTOCOMMIT"},
        )
        limit = timeout if app.dialect.name == "sqlite" else math.ceil(timeout)
        self._limits = dict.fromkeys(_DRIVER_LIMITS.get(app.dialect.driver, ()), limit)
        _listen(app.dialect)
        self._once = once
        self.retired = False
        """Once True, the run that uses the connection closes it at its end."""
        self._connection: Connection | None = None
        self._opened = 0.0
        self._max_age = _max_age(app.pool)
        self._lock = threading.Lock()
        self.async_lock = anyio.Lock()
        self.undisturbed: Undisturbed[Any] = Undisturbed()
        """For SQLite's async driver, which can't be cancelled."""

    @property
    def is_open(self) -> bool:
        """True when the next `use` opens no connection."""
        age = time.monotonic() - self._opened
        return self._connection is not None and age <= self._max_age

    @contextmanager
    def held(self, patience: float) -> Iterator[None]:
        """Take turns among threads; raises `TimeoutError` after `patience` seconds."""
        if not self._lock.acquire(timeout=patience):
            raise TimeoutError
        try:
            yield
        finally:
            self._lock.release()
            if self.retired:  # after the release: `retire` leaves alone what is held
                self._drop_unless_held()

    @contextmanager
    def use(self, until: float) -> Iterator[Connection]:
        """Lend the connection, a new one if need be; after a failure it is not kept.

        Opening one in a thread ends at `until`, with a `TimeoutError`, where the driver lets it.
        """
        connection = self._connection if self.is_open else None
        if connection is None:
            self._drop()
            connection = self._connection = self._open(max(0.0, until - time.monotonic()))
            self._opened = time.monotonic()
        try:
            yield connection
        except BaseException:
            self._drop()
            raise
        if self._once or self.retired:
            self._drop()

    def _open(self, seconds: float) -> Connection:
        return _connect_within(self._engine, seconds, self._limits)

    def leave(self) -> None:
        """Let go of a connection that a fork has brought here: it is the parent's."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.detach()  # from its pool, which would say goodbye when it is collected

    def retire(self) -> None:
        """Close the connection now, or else when the run that uses it ends."""
        self.retired = True
        self._drop_unless_held()

    def _drop_unless_held(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be in any state; why the run failed is known already
                connection.invalidate()  # closes it, where close() would keep it in the pool
                connection.close()


def _max_age(pool: Pool) -> float:
    """Return the seconds after which the app's pool has a new connection in an old one's place."""
    from sqlalchemy import NullPool

    if isinstance(pool, NullPool):
        return FOR_EACH_USE
    seconds: float = pool._recycle  # noqa: SLF001 - SQLAlchemy shows it nowhere else
    return math.inf if seconds < 0 else seconds


def connect_in_pool(app: Engine, until: float) -> Connection:
    """Return a connection of the app's pool, in a thread; opening one for it ends at `until`.

    It is the app's, which may take longer over a query: so it gets no limit that would stay on.
    """
    _listen(app.dialect)
    seconds = max(0.0, until - time.monotonic())
    names = {"connect_timeout"}.intersection(_DRIVER_LIMITS.get(app.dialect.driver, ()))
    return _connect_within(app, seconds, dict.fromkeys(names, math.ceil(seconds) or 1))


def _listen(dialect: Dialect) -> None:
    from sqlalchemy import event

    # On the dialect, which an engine shares with its copies by execution_options().
    if not event.contains(dialect, "do_connect", _connect_in_time):
        event.listen(dialect, "do_connect", _connect_in_time)


def _connect_within(engine: Engine, seconds: float, limits: Mapping[str, float]) -> Connection:
    async_driver = engine.dialect.is_async  # is cancelled
    with nullcontext(_no_watch) if async_driver else shut_down_after(seconds) as watch:
        token = _bounds.set(_Bounds(limits=limits, seconds=seconds, watch=watch))
        try:
            return engine.connect()
        finally:
            _bounds.reset(token)


@contextmanager
def within(seconds: float, connection: Connection) -> Iterator[None]:
    """Bound a wait in a thread by shutting the socket down, where the driver shows its socket."""
    with shut_down_after(seconds) as watch:
        watch_connection(watch, connection.connection.driver_connection)
        yield


def plain(exc: DBAPIError, url: URL) -> ProbeFailedError:
    """Say it in the driver's words, on one line, without SQLAlchemy's frame around them."""
    text = " ".join(f"{type(exc.orig).__name__}: {exc.orig}".split())
    password = str(url.password or "")
    return ProbeFailedError(text.replace(password, "***") if password else text)


def _connect_in_time(
    dialect: Dialect, record: ConnectionPoolEntry, cargs: Any, cparams: Any
) -> DBAPIConnection | None:
    """Add the probe's limits to the options of the connection that is opened for it.

    This listens on the app's dialect. What the app's listeners before it did is in `cparams`; those
    after it are called from here, with a copy: before SQLAlchemy 2.1 all connections share one.
    """
    bounds = _bounds.get()
    if bounds is None:
        return None
    options = dict(cparams)
    for name, limit in bounds.limits.items():
        if not 0 < float(options.get(name) or 0) <= limit:
            options[name] = limit
    listeners = list(dialect.dispatch.do_connect)
    connection: DBAPIConnection | None
    for listener in listeners[listeners.index(_connect_in_time) + 1 :]:
        connection = listener(dialect, record, cargs, options)
        if connection is not None:
            break
    else:
        connection = _connect(dialect, cargs, options, bounds)
    if not dialect.is_async:
        watch_connection(bounds.watch, connection)
    elif dialect.driver == "psycopg":
        let_go_when_cancelled(dialect.get_driver_connection(connection))
    return connection


def _connect(dialect: Dialect, cargs: Any, options: Any, bounds: _Bounds) -> DBAPIConnection:
    if dialect.is_async:
        from sqlalchemy.util import await_only

        await_only(look_up_any(_hosts(options)))
    if dialect.driver not in _OVER_A_SOCKET:
        return dialect.connect(*cargs, **options)
    over_a_socket, name = _OVER_A_SOCKET[dialect.driver]
    connect = partial(getattr(dialect.loaded_dbapi, name), *cargs)
    connection: DBAPIConnection = over_a_socket(connect, options, bounds.seconds, bounds.watch)
    return connection


def _hosts(options: Mapping[str, Any]) -> Sequence[str]:
    """Return the names that an async driver resolves for connecting."""
    if options.get("hostaddr") or options.get("unix_socket"):
        return []  # these come first
    host = options.get("host") or []
    return host.split(",") if isinstance(host, str) else host


def _no_watch(_descriptor: int) -> None:
    """Watch nothing."""
