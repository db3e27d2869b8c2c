"""AlembicProbe: code and database compared, on SQLite."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy as sa
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from healthmw import Health
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import AlembicProbe
from healthmw.probes._alembic_lineage import compare
from tests.alembic_project import Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probes.running import Runner


@pytest.fixture
def url(tmp_path: Path) -> str:
    sqlite3.connect(tmp_path / "app.db").execute(
        "CREATE TABLE things (id INTEGER)"
    ).connection.close()
    return f"sqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
def release(tmp_path: Path, url: str) -> Callable[..., Release]:
    """Return what makes a release with the revisions a1, a2, ... in a line."""

    def make(name: str, *, length: int, **options: object) -> Release:
        made = Release(tmp_path / name, url, **options)
        for number in range(1, length + 1):
            made.revision(f"a{number}", f"a{number - 1}" if number > 1 else None)
        return made

    return make


def probe_of(release: Release, url: str, **options: Any) -> AlembicProbe:
    return AlembicProbe(url, script_location=release.folder, **options)


def tables(url: str) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    return set(sa.inspect(engine).get_table_names())


def test_behind_fails_until_the_database_is_upgraded(
    release: Callable[..., Release], url: str, run: Runner
) -> None:
    code = release("code", length=7)
    probe = probe_of(code, url)
    with pytest.raises(ProbeFailedError) as info:
        run(probe)
    assert str(info.value) == (
        "the database is behind the code by 7 revisions: a1, a2, a3, a4, a5 and 2 more;"
        " run alembic upgrade head"
    )
    assert tables(url) == {"things"}  # no version table has been made
    code.upgrade("a6")
    with pytest.raises(ProbeFailedError, match=r"behind the code by 1 revision: a7; run"):
        run(probe)
    code.upgrade()
    found = dict(run(probe))
    assert float(found.pop("latency_seconds")) > 0
    assert found == {"ahead": 0}


def test_ahead_passes_and_is_shown(release: Callable[..., Release], url: str, run: Runner) -> None:
    old, new = release("old", length=2), release("new", length=4)
    probe = probe_of(old, url)
    new.upgrade()
    assert {**run(probe), "latency_seconds": 0} == {
        "latency_seconds": 0,
        "ahead": 1,  # Alembic records the latest of a line only
        "ahead_revisions": "a4",
    }
    assert run(probe_of(new, url))["ahead"] == 0


def test_a_release_admits_code_that_the_database_is_ahead_of(
    release: Callable[..., Release], url: str
) -> None:
    old, new = release("old", length=1), release("new", length=2)
    new.upgrade()
    health = Health(max_age=0)
    health.add("migrations", probe_of(old, url), groups=["release"])
    assert health.run_sync("release").status == "okay"
    (new.folder / "versions/a2.py").unlink()  # the code is what it was when the probe was made
    Path(url.removeprefix("sqlite:///")).write_bytes(b"")
    assert health.run_sync("release").status == "failed"


def test_the_files_are_read_once(release: Callable[..., Release], url: str, run: Runner) -> None:
    code = release("code", length=2)
    probe = probe_of(code, url)
    code.upgrade()
    code.revision("a3", "a2")  # a newer release is put in the place of this one
    assert run(probe)["ahead"] == 0
    code.upgrade()
    assert run(probe)["ahead_revisions"] == "a3"


def test_branches_labels_and_dependencies(
    release: Callable[..., Release], url: str, run: Runner
) -> None:
    code = release("code", length=3)
    code.revision("b1", None, label="billing", depends_on="a2")
    code.revision("b2", "b1")
    code.revision("c1", "b1", depends_on="billing")  # by a label
    probe = probe_of(code, url)
    assert probe.needs == ("a3", "b2", "c1")
    code.upgrade("b1")
    with pytest.raises(ProbeFailedError, match=r"by 3 revisions: .*; run alembic upgrade heads$"):
        run(probe)
    code.upgrade("b2")
    with pytest.raises(ProbeFailedError, match="by 2 revisions: ") as info:
        run(probe)
    assert "a3" in str(info.value)
    assert "c1" in str(info.value)
    code.upgrade()
    run(probe)
    code.revision("m1", ("b2", "c1"))
    with pytest.raises(ProbeFailedError, match="by 1 revision: m1;"):
        run(probe_of(code, url))
    code.upgrade()
    assert run(probe)["ahead_revisions"] == "m1"
    assert run(probe_of(code, url))["ahead"] == 0


def test_a_line_that_is_behind_is_seen_beside_one_that_is_ahead(
    release: Callable[..., Release], url: str, run: Runner
) -> None:
    old = release("old", length=3)
    old.revision("b1", None)
    new = release("new", length=3)
    new.revision("b1", None).revision("b2", "b1")
    new.upgrade("a2")
    new.upgrade("b2")
    with pytest.raises(ProbeFailedError, match="by 1 revision: a3;"):
        run(probe_of(old, url))
    new.upgrade()
    assert run(probe_of(old, url))["ahead_revisions"] == "b2"


def test_those_that_a_pyproject_file_names(tmp_path: Path, url: str, run: Runner) -> None:
    Release(tmp_path / "migrations", url).revision("a1", None)
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\ndependencies = [\n  "alembic",\n]\n')
    with pytest.raises(ValueError, match=r"pyproject.toml': No 'script_location' key"):
        AlembicProbe(url, config=file)
    file.write_text(file.read_text() + '[tool.alembic]\nscript_location = "%(here)s/migrations"\n')
    for config in (file, str(file)):
        with pytest.raises(ProbeFailedError, match="by 1 revision: a1;"):
            run(AlembicProbe(url, config=config))


def test_version_locations_of_an_ini_file(tmp_path: Path, url: str, run: Runner) -> None:
    release = Release(tmp_path / "100%", url)
    other = tmp_path / "100%/more"
    other.mkdir()
    release.revision("a1", None).revision("b1", None, folder=other)
    ini = tmp_path / "alembic.ini"
    ini.write_text(
        "[alembic]\nscript_location = %(here)s/100%%\npath_separator = os\n"
        f"prepend_sys_path = {tmp_path}\n"
        f"version_locations = %(here)s/100%%/versions{os.pathsep}%(here)s/100%%/more\n"
    )
    before = sys.path[:]
    for config in (ini, str(ini), Config(ini)):
        with pytest.raises(ProbeFailedError, match="by 2 revisions: "):
            run(AlembicProbe(url, config=config))
    with pytest.raises(ProbeFailedError, match="by 1 revision: "):
        run(AlembicProbe(url, script_location=release.folder))
    assert sys.path == before


def test_a_version_table_of_another_name(
    release: Callable[..., Release], url: str, run: Runner
) -> None:
    code = release("code", length=1, version_table="shop_version", version_table_schema="main")
    code.upgrade()
    options = {"version_table": "shop_version", "version_table_schema": "main"}
    run(probe_of(code, url, **options))
    with pytest.raises(ProbeFailedError, match="behind"):
        run(probe_of(code, url))


def test_by_an_async_engine(release: Callable[..., Release], url: str, run: Runner) -> None:
    code = release("code", length=1)
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
    run.finally_close(engine)
    probe = AlembicProbe(engine, script_location=code.folder)
    assert probe.is_async
    with pytest.raises(ProbeFailedError, match="behind"):
        run(probe)
    code.upgrade()
    run(probe)
    assert len(run.together(probe, 5)) == 5


def test_in_memory_by_the_apps_own_connection(release: Callable[..., Release], run: Runner) -> None:
    code = release("code", length=1)
    engine = sa.create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    run.finally_close(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('a1')"))
    assert run(AlembicProbe(engine, script_location=code.folder))["ahead"] == 0


def test_a_missing_file_is_not_made(
    release: Callable[..., Release], tmp_path: Path, run: Runner
) -> None:
    code = release("code", length=1)
    with pytest.raises(ProbeFailedError, match="the database file does not exist"):
        run(probe_of(code, f"sqlite:///{tmp_path / 'none.db'}"))
    assert not (tmp_path / "none.db").exists()


def test_a_database_that_is_locked(release: Callable[..., Release], url: str, run: Runner) -> None:
    code = release("code", length=1)
    writer = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ProbeFailedError, match=r"database is locked|no answer within 0\.2 s"):
        run(probe_of(code, url, timeout=0.2))
    writer.close()


def test_who_waits_for_another_run_gives_up_in_time(
    release: Callable[..., Release], url: str, run: Runner
) -> None:
    code = release("code", length=1)
    engine = sa.create_engine(url)
    probe = AlembicProbe(engine, script_location=code.folder, timeout=0.2)
    with probe._errand._sync.get().held(1), pytest.raises(ProbeTimeoutError):  # a run, stuck
        run(probe)


def test_trio_takes_an_engine_and_no_async_one(release: Callable[..., Release], url: str) -> None:
    code = release("code", length=1)
    code.upgrade()
    health = Health()
    health.add("sync", probe_of(code, url))
    asynchronous = AlembicProbe(
        create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:")),
        script_location=code.folder,
    )
    health.add("async", asynchronous)

    async def main() -> dict[str, str]:
        async with health:
            report = await health.run()
        return {name: result.status + result.detail for name, result in report.results.items()}

    found = anyio.run(main, backend="trio")
    assert found["sync"] == "okay"
    assert "pass a sync Engine on trio" in found["async"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "config or script_location must say where"),
        ({"config": "a.ini", "script_location": "a"}, "config or script_location must say where"),
        ({"config": "no_such.ini"}, "^config='no_such.ini' is no file"),
        ({"script_location": "no_such"}, "^script_location='no_such': Path doesn't exist"),
        ({"script_location": "no_such_module:a"}, "^script_location='no_such_module:a': "),
        ({"config": Config()}, "^config=None: No 'script_location' key"),
        ({"script_location": ".", "timeout": 0}, "^timeout=.* must be"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AlembicProbe("sqlite://", **options)


def test_a_folder_without_revisions_would_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no revisions in"):
        AlembicProbe("sqlite://", script_location=tmp_path)


def test_an_engine_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be an Engine, an AsyncEngine or a URL, not "):
        AlembicProbe(tmp_path, script_location=tmp_path)  # type: ignore[arg-type]


def test_the_repr_shows_no_password(release: Callable[..., Release]) -> None:
    code = release("code", length=1)
    probe = probe_of(code, "postgresql+psycopg://ann:swordfish@db:5432/shop")
    assert repr(probe) == "<AlembicProbe postgresql+psycopg db:5432/shop>"
    assert repr(probe_of(code, "sqlite://")) == "<AlembicProbe sqlite>"


# The comparison itself


@st.composite
def histories(draw: st.DrawFn) -> dict[str, set[str]]:
    """Draw revisions, each built on some of those before it."""
    history: dict[str, set[str]] = {}
    for number in range(draw(st.integers(1, 8))):
        history[f"r{number}"] = (
            draw(st.sets(st.sampled_from([*history]), max_size=3)) if history else set()
        )
    return history


def recorded_by_alembic(history: dict[str, set[str]], applied: set[str]) -> set[str]:
    """Return what the version table has: what is applied and has nothing applied on top."""
    return applied - {below for one in applied for below in history[one]}


def closed(history: dict[str, set[str]], chosen: set[str]) -> set[str]:
    """Return `chosen` and all that it builds on."""
    found = set(chosen)
    for one in reversed(history):
        if one in found:
            found |= history[one]
    return found


@given(histories(), st.data())
def test_what_is_not_applied_is_missing(history: dict[str, set[str]], data: st.DataObject) -> None:
    applied = closed(history, data.draw(st.sets(st.sampled_from([*history]))))
    standing = compare(history, recorded_by_alembic(history, applied))
    assert standing.missing == tuple(one for one in history if one not in applied)
    assert standing.unknown == ()


@given(histories(), st.data())
def test_older_code_never_fails_on_a_newer_database(
    history: dict[str, set[str]], data: st.DataObject
) -> None:
    old = dict([*history.items()][: data.draw(st.integers(1, len(history)))])
    standing = compare(old, recorded_by_alembic(history, set(history)))
    assert standing.missing == ()
    assert set(standing.unknown) == recorded_by_alembic(history, set(history)) - set(old)


@given(histories(), st.data())
def test_what_older_code_misses_is_truly_missing(
    history: dict[str, set[str]], data: st.DataObject
) -> None:
    old = dict([*history.items()][: data.draw(st.integers(1, len(history)))])
    applied = closed(history, data.draw(st.sets(st.sampled_from([*history]))))
    standing = compare(old, recorded_by_alembic(history, applied))
    assert applied.isdisjoint(standing.missing)


def test_a_circle_is_no_endless_walk() -> None:
    assert compare({"a": {"b"}, "b": {"a"}}, ["a"]).missing == ()


def test_runs_that_are_given_up_end_undisturbed_and_in_silence(
    release: Callable[..., Release], url: str
) -> None:
    """aiosqlite can't be cancelled: such a run must not meddle with the next one's connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        probe: Any = probe_of(code, url.replace("sqlite:", "sqlite+aiosqlite:"), timeout=20)
        for number in range(60):
            with (
                anyio.move_on_after(number / 2000),
                pytest.raises(ProbeFailedError, match="behind"),
            ):
                await probe()
        with pytest.raises(ProbeFailedError, match="behind"):
            await probe()
        await probe.aclose()

    complaints: list[str] = []
    code = release("code", length=1)
    asyncio.run(main())
    gc.collect()  # any warning is an error
    assert complaints == []
