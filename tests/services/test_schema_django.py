"""Two releases and one PostgreSQL schema, by Django: deploy, failed deploy, rollback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

from tests.programs import ROOT
from tests.services.servers import PASSWORD, PostgreSQL
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import LiteralString

SETTINGS = """
SECRET_KEY = "not a secret"
INSTALLED_APPS = ["healthmw.django", "shop"]
HEALTHMW = {"checks": ["migrations"], "deadline": 30}
USE_TZ = True

def database(name):
    return {
        "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "NAME": name,
        "PORT": %(port)d, "USER": "app", "PASSWORD": "%(password)s",
    }

DATABASES = {"default": database("shop")}
"""

# The app `audit` lives in the database of that name, and nothing else does.
AUDIT = """
INSTALLED_APPS.append("audit")
DATABASES["audit"] = database("audit")
DATABASE_ROUTERS = ["settings.Router"]

class Router:
    def allow_migrate(self, db, app_label, **hints):
        return (app_label == "audit") == (db == "audit")
"""

MODELS = """
from django.db import models

class Thing(models.Model):
    name = models.TextField()
"""

MIGRATION = """
from django.db import migrations, models

class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = {after!r}
    replaces = {replaces!r}
    operations = [
        {operations}
    ]
"""

TABLE = (
    "migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True)),"
    " ('name', models.TextField())]),"
)
EXPAND = "migrations.AddField('Thing', 'full_name', models.TextField(null=True)),"
BREAKS = "migrations.RunSQL('ALTER TABLE shop_thing ADD CHECK (no_such_column > 0)'),"
MENDED = "migrations.RunSQL('ALTER TABLE shop_thing ADD CHECK (length(full_name) > 0)'),"
EXTEND = "migrations.AddField('Thing', 'note', models.TextField(null=True)),"

# A process of the release, which goes on while others change the schema under it.
PROCESS = """
import json, sys
import django
django.setup()
from django.core.management import call_command
from healthmw.django import health

def state(check):
    report = health.run_sync("release", fresh=True)
    result = report.results[check]
    ahead = result.measurements.get("ahead_migrations")
    return [result.detail or (f"ahead: {ahead}" if ahead else "fits"), report.ok]

def migrate(*options):
    try:
        call_command("migrate", *options, verbosity=0)
    except Exception as exc:
        return str(exc)

for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps({"state": state, "migrate": migrate}[name](*arguments)), flush=True)
"""


class Release:
    """The code of one release."""

    def __init__(self, folder: Path, port: int, *, audit: bool = False) -> None:
        self._folder = folder
        self._last = ""
        settings = SETTINGS % {"port": port, "password": PASSWORD}
        for app in ("shop", "audit") if audit else ("shop",):
            (folder / app / "migrations").mkdir(parents=True)
            (folder / app / "migrations/__init__.py").touch()
            (folder / app / "models.py").write_text(MODELS)
        if audit:
            settings += AUDIT
            self.migration("0001_initial", TABLE, app="audit")
            self._last = ""
        (folder / "settings.py").write_text(settings)

    def migration(
        self,
        name: str,
        *operations: str,
        app: str = "shop",
        atomic: bool = True,
        replaces: tuple[str, ...] = (),
    ) -> Self:
        """Write a migration that comes after the one written last."""
        text = MIGRATION.format(
            atomic=atomic,
            after=[(app, self._last)] if self._last else [],
            replaces=[(app, one) for one in replaces],
            operations="\n        ".join(operations),
        )
        (self._folder / app / "migrations" / f"{name}.py").write_text(text)
        self._last = name
        return self

    def run(self) -> Running:
        """Start a process of this release, to be used as a context manager."""
        return Running(self._folder)


class Running:
    """A process of a release, until the end of the block."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROCESS)],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTHONPATH": f"{folder}:{ROOT}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=60)
        finally:
            self._process.kill()

    def state(self, check: str = "migrations") -> tuple[str, bool]:
        """Return how the schema fits, and whether a deploy of this release is admitted."""
        detail, admitted = self._ask("state", check)
        return detail, admitted

    def migrate(self, *options: str) -> str | None:
        """Return the error that `migrate` ended with, if one."""
        found: str | None = self._ask("migrate", *options)
        return found

    def _ask(self, *words: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture
def release(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Callable[..., Release]]:
    """Return what makes a release, in a folder of this name; the databases are this test's own."""
    made: set[LiteralString] = set()

    def execute(statement: LiteralString) -> None:
        with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
            admin.execute(statement)

    def make(name: str, *, audit: bool = False) -> Release:
        for database in ("shop", "audit") if audit else ("shop",):
            if database not in made:
                execute(f"CREATE DATABASE {database}")
                made.add(database)
        return Release(tmp_path / name, postgresql.port, audit=audit)

    yield make
    for database in made:
        execute(f"DROP DATABASE {database} WITH (FORCE)")


def behind(missing: str) -> str:
    return f"the database is behind the code by {missing}; run manage.py migrate"


def test_a_deploy_and_its_rollback(release: Callable[..., Release]) -> None:
    with ExitStack() as running:
        v1 = release("v1", audit=True).migration("0001_initial", TABLE)
        v2 = release("v2", audit=True).migration("0001_initial", TABLE)
        v2.migration("0002_expand", EXPAND)
        old, new = running.enter_context(v1.run()), running.enter_context(v2.run())

        # Nothing is there yet. Each database wants its own apps' migrations, and no others'.
        assert old.state() == (behind("1 migration: shop.0001_initial"), False)
        assert old.state("migrations.audit") == (
            behind("1 migration: audit.0001_initial") + " --database=audit",
            False,
        )
        assert old.migrate() is None
        assert old.state() == ("fits", False)
        assert old.migrate("--database=audit") is None
        assert old.state("migrations.audit") == ("fits", True)

        # New code against the older schema: refused. Old code against the newer: admitted.
        assert new.state() == (behind("1 migration: shop.0002_expand"), False)
        assert new.migrate() is None
        assert new.state() == ("fits", True)
        assert old.state() == ("ahead: shop.0002_expand", True)
        rolled_back = running.enter_context(v1.run())
        assert rolled_back.state() == ("ahead: shop.0002_expand", True)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_deploy_whose_migration_breaks_half_way(
    release: Callable[..., Release], *, atomic: bool
) -> None:
    with ExitStack() as running:
        old = running.enter_context(release("v1").migration("0001_initial", TABLE).run())
        assert old.migrate() is None
        code = release("v2").migration("0001_initial", TABLE).migration("0002_expand", EXPAND)
        code.migration("0003_check", EXTEND, BREAKS, atomic=atomic)
        broken = running.enter_context(code.run())
        assert "no_such_column" in str(broken.migrate())
        assert broken.state() == (behind("1 migration: shop.0003_check"), False)
        assert old.state() == ("ahead: shop.0002_expand", True)

        mended = release("v3").migration("0001_initial", TABLE).migration("0002_expand", EXPAND)
        if atomic:  # else its first half has happened, and must not again
            mended.migration("0003_check", EXTEND, MENDED)
        else:
            mended.migration("0003_check", MENDED)
        assert running.enter_context(mended.run()).migrate() is None
        assert broken.state() == ("fits", True)
        assert old.state() == ("ahead: shop.0002_expand, shop.0003_check", True)


def test_squashed_migrations(release: Callable[..., Release]) -> None:
    with ExitStack() as running:
        plain = release("v1").migration("0001_initial", TABLE).migration("0002_expand", EXPAND)
        code = release("v2").migration("0001_initial", TABLE).migration("0002_expand", EXPAND)
        code._last = ""
        code.migration("0001_all", TABLE, EXPAND, replaces=("0001_initial", "0002_expand"))
        old, new = running.enter_context(plain.run()), running.enter_context(code.run())
        assert new.state()[0] == behind("1 migration: shop.0001_all")
        assert old.migrate("shop", "0001") is None
        assert new.state()[0] == behind("1 migration: shop.0002_expand")
        assert old.migrate() is None
        assert new.state() == ("fits", True)  # those that it replaces are applied: so is it
        assert new.migrate() is None
        assert old.state() == ("ahead: shop.0001_all", True)
        # Later the replaced ones are deleted. Their records stay, until `migrate --prune`.
        later = running.enter_context(release("v3").migration("0001_all", TABLE, EXPAND).run())
        assert later.state() == ("ahead: shop.0001_initial, shop.0002_expand", True)
        assert later.migrate("shop", "--prune") is None
        assert later.state() == ("fits", True)


def test_the_files_are_read_once_and_no_connection_is_kept(
    release: Callable[..., Release], postgresql: PostgreSQL
) -> None:
    code = release("v1").migration("0001_initial", TABLE)
    with code.run() as running:
        assert running.migrate() is None
        assert running.state() == ("fits", True)
        code.migration("0002_expand", EXPAND)  # a newer release is put in the place of this one
        assert running.state() == ("fits", True)
        with psycopg.connect(postgresql.dsn(), autocommit=True) as admin:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'"
            # That of `migrate` stays; the probe's has been closed.
            until_sync(lambda: admin.execute(query).fetchone() == (1,))
