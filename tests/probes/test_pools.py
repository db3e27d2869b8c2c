"""The probes of the room in the app's pools."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg_pool
import pytest
import sqlalchemy as sa
import trio
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import PsycopgPoolProbe, SQLAlchemyPoolProbe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.probes.running import Runner


def test_a_sqlalchemy_pool_fills_up(tmp_path: Path, run: Runner) -> None:
    opened: list[object] = []
    engine = sa.create_engine(f"sqlite:///{tmp_path}/db", pool_size=2, max_overflow=2)
    sa.event.listen(engine, "connect", lambda *_: opened.append(1))
    probe = SQLAlchemyPoolProbe(engine, degraded_at=0.75)
    assert dict(run(probe)) == {
        "pool_size": 2,
        "pool_in_use": 0,
        "pool_overflow": 0,
        "pool_limit": 4,
    }
    assert not opened  # it has taken none to find that out
    taken = [engine.connect() for _ in range(2)]
    assert run(probe)["pool_in_use"] == 2
    taken.append(engine.connect())
    degraded, found = run.outcome(probe)
    assert degraded == "the app's pool is nearly exhausted: 3 of 4 in use"
    assert (found["pool_in_use"], found["pool_overflow"], found["pool_limit"]) == (3, 1, 4)
    taken.append(engine.connect())
    assert run.outcome(probe)[0] == "the app's pool is exhausted: 4 of 4 in use"
    assert len(opened) == 4
    for connection in taken:
        connection.close()
    assert run(probe)["pool_in_use"] == 0
    engine.dispose()


def test_a_sqlalchemy_pool_without_a_limit_has_room(tmp_path: Path, run: Runner) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/db", poolclass=sa.NullPool)
    with engine.connect():
        assert run(SQLAlchemyPoolProbe(engine)) == {}


def test_an_async_engine_and_trio(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/db"
    engine = create_async_engine(url, poolclass=sa.AsyncAdaptedQueuePool, pool_size=3)
    probe = SQLAlchemyPoolProbe(engine)
    assert trio.run(probe) == asyncio.run(probe())
    assert repr(probe) == f"<SQLAlchemyPoolProbe sqlite+aiosqlite {tmp_path}/db>"


def test_the_repr_shows_no_credentials() -> None:
    engine = sa.create_engine("postgresql+psycopg://app:s3cr3t@db.internal:5432/shop")
    assert repr(SQLAlchemyPoolProbe(engine)) == (
        "<SQLAlchemyPoolProbe postgresql+psycopg db.internal:5432/shop>"
    )


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        (SQLAlchemyPoolProbe, sa.create_engine("sqlite://")),
        (PsycopgPoolProbe, psycopg_pool.ConnectionPool("", open=False)),
    ],
)
def test_a_share_is_a_share(kind: Any, pool: Any, share: float) -> None:
    with pytest.raises(ValueError, match="degraded_at must be a share above 0 and up to 1"):
        kind(pool, degraded_at=share)


@pytest.mark.parametrize("kind", [SQLAlchemyPoolProbe, PsycopgPoolProbe])
def test_what_is_no_pool(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"must be an? .* not str"):
        kind("postgresql://db/shop")


def test_a_psycopg_pool_that_is_not_open(run: Runner) -> None:
    pool: Any = psycopg_pool.ConnectionPool("host=nowhere.invalid", open=False, name="shop")
    probe = PsycopgPoolProbe(pool)
    assert repr(probe) == "<PsycopgPoolProbe shop>"
    with pytest.raises(ProbeFailedError, match="the app's pool is closed"):
        run(probe)
