"""A probe of a database's schema, by its Alembic migrations."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw.exceptions import MissingExtraError, ProbeFailedError
from healthmw.probes._alembic_lineage import compare
from healthmw.probes._sqlalchemy_once import Errand

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Iterator, Mapping

    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from healthmw._model import Measurement
    from healthmw._probe import Outcome

_NAMED = 5  # revisions that a message names; of more, it gives the number


class AlembicProbe:
    """Compare the revisions of the code with those that the database has recorded.

    A pass proves that each of the code's revisions is applied, as far as Alembic's table tells: not
    what the tables look like, nor that nobody has changed them by hand.

    - The database is *behind*: a revision of the code is missing, or nothing is recorded at all.
      The run fails and names what is missing. The next run after `alembic upgrade` passes.
    - The database is *ahead*: it has a revision that the code doesn't know, for a newer release has
      migrated while this one still runs, or was rolled back to. The run passes: `ahead` counts
      these revisions and `ahead_revisions` names them. What this code has that they may have come
      by way of counts as applied, as no one can tell any more.

    `engine` is the app's own `Engine` or `AsyncEngine`, or a URL. The migrations are found by one
    of

    - `config`: the path of `alembic.ini`, or of `pyproject.toml` where that has them, or an
      `alembic.config.Config`; `version_locations` and the rest are understood as Alembic does,
      relative paths too;
    - `script_location`: the folder with the folder `versions` in it, or `package:folder`.

    They are the code, so they are read once, at construction. `version_table` and
    `version_table_schema` are to be given where `env.py`, which is not run, passes them to
    `context.configure`. `timeout` is in seconds, for all of a run.

    The database is asked on each run, on one connection of the probe's own that is closed after it,
    and is only read: a version table that is missing is not created. An `AsyncEngine` needs
    asyncio; an `Engine` is asked in a thread. Measures `latency_seconds`, `ahead` and
    `ahead_revisions`. Raises `ProbeFailedError`, and `ValueError` at construction for migrations
    that can't be found.

    It tells about a deploy rather than about the app's health, so it belongs in the group that
    admits one: `health.add("migrations", AlembicProbe(...), groups=["release"])`.
    """

    def __init__(
        self,
        engine: Engine | AsyncEngine | str,
        *,
        config: str | os.PathLike[str] | Config | None = None,
        script_location: str | os.PathLike[str] | None = None,
        version_table: str = "alembic_version",
        version_table_schema: str | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import alembic  # noqa: F401 - to say which extra is missing
            import sqlalchemy as _  # noqa: F401 - which comes with it
        except ImportError as exc:
            raise MissingExtraError("AlembicProbe", extra="alembic") from exc
        self._errand = Errand("AlembicProbe", engine, self._compare, timeout=timeout)
        self.is_async: bool = self._errand.is_async
        self._needed = _read(config, script_location)
        inner = {one for some in self._needed.values() for one in some}
        self._heads = tuple(sorted(self._needed.keys() - inner))
        self._table = version_table
        self._schema = version_table_schema

    def __repr__(self) -> str:
        return f"<AlembicProbe {self._errand}>"

    @property
    def needs(self) -> tuple[str, ...]:
        """The heads of the code's revisions: part of the release's fingerprint."""
        return self._heads

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Compare once: at once for an `Engine`, else by a coroutine."""
        return self._errand.run()

    async def aclose(self) -> None:
        """Leave no connection open."""
        await self._errand.aclose()

    def _compare(self, connection: Connection) -> Mapping[str, Measurement]:
        standing = compare(self._needed, self._recorded(connection))
        missing = standing.missing
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            raise ProbeFailedError(
                f"the database is behind the code by {len(missing)}"
                f" revision{'s' * (len(missing) > 1)}: {', '.join(missing[:_NAMED])}{more};"
                f" run alembic upgrade head{'s' * (len(self._heads) > 1)}"
            )
        found: dict[str, Measurement] = {"ahead": len(standing.unknown)}
        if standing.unknown:
            found["ahead_revisions"] = ", ".join(standing.unknown)
        return found

    def _recorded(self, connection: Connection) -> list[str]:
        """Return what the version table has; nothing where there is no such table."""
        import sqlalchemy as sa

        if not sa.inspect(connection).has_table(self._table, schema=self._schema):
            return []
        number: sa.ColumnClause[str] = sa.column("version_num")
        table = sa.table(self._table, number, schema=self._schema)
        return [*connection.scalars(sa.select(table.c.version_num))]


def _read(
    config: str | os.PathLike[str] | Config | None, location: str | os.PathLike[str] | None
) -> dict[str, frozenset[str]]:
    """Return each revision of the code with those that it needs, the earliest first."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    if (config is None) == (location is None):
        raise ValueError("config or script_location must say where the migrations are: one of them")
    if location is not None:
        given = f"script_location={str(location)!r}"
        config = Config()
        config.set_main_option("script_location", str(location).replace("%", "%%"))
    elif isinstance(config, Config):
        given = f"config={config.config_file_name!r}"
    else:
        given = f"config={str(config)!r}"
        if not Path(str(config)).is_file():
            raise ValueError(f"{given} is no file")
        path = Path(str(config))
        config = Config(toml_file=path) if path.suffix == ".toml" else Config(path)
    with _path_kept():
        try:
            scripts = ScriptDirectory.from_config(config)
            revisions = [*scripts.walk_revisions()]
        except (CommandError, ImportError) as exc:
            raise ValueError(f"{given}: {exc}") from exc
    if not revisions:
        raise ValueError(f"{given}: there are no revisions in {scripts.dir}")
    return {one.revision: _needs(scripts, one) for one in reversed(revisions)}


def _needs(scripts: ScriptDirectory, one: Script) -> frozenset[str]:
    names = [*_as_tuple(one.down_revision), *_as_tuple(one.dependencies)]
    return frozenset(needed.revision for needed in scripts.get_revisions(names))


def _as_tuple(names: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


@contextmanager
def _path_kept() -> Iterator[None]:
    """Undo what `prepend_sys_path` does: Alembic's commands want it, the app need not."""
    before = sys.path[:]
    try:
        yield
    finally:
        sys.path[:] = before
