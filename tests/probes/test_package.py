"""The package of probes: loaded on first use, and clear about what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from healthmw import probes
from healthmw.exceptions import MissingExtraError


def test_every_probe_is_there_under_its_public_name() -> None:
    assert isinstance(probes.__all__, tuple)
    for name in probes.__all__:
        probe = getattr(probes, name)
        assert (probe.__module__, probe.__qualname__) == ("healthmw.probes", name)
        assert name in dir(probes)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match=r"healthmw\.probes.*Nonesuch"):
        probes.Nonesuch  # type: ignore[attr-defined]  # noqa: B018 - looking the name up is the test


def test_no_driver_is_loaded_before_a_probe_is_made() -> None:
    code = (
        "import sys\n"
        "from healthmw.probes import HTTPProbe, MemcachedProbe, MongoProbe, RedisProbe, S3Probe\n"
        "from healthmw.probes import SQLAlchemyProbe, TCPProbe\n"
        "TCPProbe('127.0.0.1:1')\n"
        "drivers = {'boto3', 'httpx2', 'pymemcache', 'pymongo', 'redis', 'sqlalchemy'}\n"
        "print(*(drivers & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("AlembicProbe", "alembic", "alembic"),
        ("AlembicProbe", "sqlalchemy", "alembic"),
        ("AsyncmyProbe", "asyncmy", "asyncmy"),
        ("AsyncpgProbe", "asyncpg", "asyncpg"),
        ("ElasticsearchProbe", "httpx2", "httpx2"),
        ("HTTPProbe", "httpx2", "httpx2"),
        ("MemcachedProbe", "pymemcache", "pymemcache"),
        ("MongoProbe", "pymongo", "pymongo"),
        ("PsycopgPoolProbe", "psycopg_pool", "psycopg"),
        ("PsycopgProbe", "psycopg", "psycopg"),
        ("PyMySQLProbe", "pymysql", "pymysql"),
        ("RedisProbe", "redis", "redis"),
        ("S3Probe", "boto3", "boto3"),
        ("SQLAlchemyPoolProbe", "sqlalchemy", "sqlalchemy"),
        ("SQLAlchemyProbe", "sqlalchemy", "sqlalchemy"),
    ],
)
def test_a_missing_driver_is_an_error_that_names_the_extra(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{name}.*healthmw\[{extra}\]"):
        getattr(probes, name)("http://127.0.0.1/")
