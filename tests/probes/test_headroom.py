"""HeadroomProbe's arithmetic and options; the servers are in tests/services."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import redis
import redis.asyncio
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError
from healthmw.probes import HeadroomProbe
from healthmw.probes._headroom_forecast import Demand, Limit, forecast, headroom, judge

URL = "postgresql+psycopg://ann:swordfish@db/shop"
few = st.integers(0, 40)
some = st.integers(1, 6)
demands = st.builds(
    Demand, processes=some, per_process=few, instances=some, generations=some, beside_pool=few,
    reserve=few,
)  # fmt: skip


def a_limit(*, allows: int = 100, others: int = 0, ours: int = 0, scope: str = "server") -> Limit:
    return Limit(
        scope=scope,
        name="max_connections",
        allows=allows,
        in_use=others + ours,
        ours=ours,
        way_out="raise max_connections",
    )


# What happens later: the app holds anything up to its demand, and others what they hold now and
# what was reserved for them.


@given(demand=demands, others=few, data=st.data())
def test_what_comes_is_never_more_than_was_forecast(
    demand: Demand, others: int, data: st.DataObject
) -> None:
    now = a_limit(others=others, ours=data.draw(st.integers(0, demand.total)))
    ours_later = data.draw(st.integers(0, demand.total))
    others_later = others + data.draw(st.integers(0, demand.reserve))
    assert ours_later + others_later <= forecast(now, demand)


@given(demand=demands, others=few, data=st.data())
def test_at_its_worst_it_is_just_what_was_forecast(
    demand: Demand, others: int, data: st.DataObject
) -> None:
    now = a_limit(others=others, ours=data.draw(st.integers(0, demand.total)))
    assert forecast(now, demand) == others + demand.total + demand.reserve


@given(demand=demands, others=few, ours=few, more=few)
def test_others_are_never_overlooked(demand: Demand, others: int, ours: int, more: int) -> None:
    now, then = a_limit(others=others, ours=ours), a_limit(others=others + more, ours=ours)
    assert forecast(then, demand) == forecast(now, demand) + more


@given(demand=demands, others=few, ours=st.integers(0, 400))
def test_what_is_in_use_is_the_least(demand: Demand, others: int, ours: int) -> None:
    # Also where the app holds more than its numbers say.
    assert forecast(a_limit(others=others, ours=ours), demand) >= others + ours


@given(st.lists(st.builds(a_limit, allows=few, others=few, ours=few), min_size=1), demands)
def test_it_passes_when_every_limit_has_room(limits: list[Limit], demand: Demand) -> None:
    tightest = min(headroom(limit, demand) for limit in limits)
    if tightest < 0:
        with pytest.raises(ProbeFailedError, match=f", {-tightest} too many: "):
            judge(limits, demand)
    else:
        found = judge(limits, demand)
        assert not isinstance(found, Degraded)
        assert found["headroom"] == tightest


def test_a_pass_gives_the_numbers_of_the_limit_that_binds() -> None:
    demand = Demand(processes=2, per_process=3, instances=2, reserve=1)
    limits = [
        a_limit(allows=97, others=40, ours=5),
        Limit(
            scope="role", name="that of the role", allows=40, in_use=5, ours=5, way_out="raise it"
        ),
    ]
    assert judge(limits, demand) == {
        "binding_limit": "that of the role",
        "limit": 40,
        "in_use": 5,
        "in_use_by_others": 0,
        "demand": 32,  # 2 generations, 2 instances, 2 processes of 3 and 1 for a probe
        "forecast": 33,
        "headroom": 7,
        "server_headroom": 24,
        "role_headroom": 7,
    }


def test_a_failure_names_the_limit_the_numbers_and_what_to_change() -> None:
    demand = Demand(processes=1, per_process=15, instances=3, generations=2, reserve=2)
    with pytest.raises(ProbeFailedError) as info:
        judge([a_limit(allows=97, others=4, ours=20)], demand)
    assert str(info.value) == (
        "max_connections allows 97 connections, and the forecast is 102: 96 of this app"
        " (2 generations x 3 instances x 1 process x 16) + 4 of others now + 2 in reserve,"
        " 5 too many: lower pool sizes, processes or instances, put a pooler in between,"
        " or raise max_connections"
    )


def test_an_app_that_holds_more_than_its_numbers_say_is_told() -> None:
    demand = Demand(processes=1, per_process=1, instances=1, generations=1)
    with pytest.raises(ProbeFailedError, match="9 in use now, which is more than 2 of this app"):
        judge([a_limit(allows=8, ours=9)], demand)


def test_little_to_spare_is_degraded() -> None:
    demand = Demand(processes=1, per_process=4, spare=3)
    found = judge([a_limit(allows=12)], demand)
    assert isinstance(found, Degraded)
    assert found.detail.endswith(": 2 to spare, not 3")
    assert found.measurements["headroom"] == 2
    assert not isinstance(judge([a_limit(allows=13)], demand), Degraded)


# Options


@pytest.mark.parametrize(
    ("engine", "connections"),
    [
        (sa.create_engine(URL), 2 * 16),
        (sa.create_engine(URL, pool_size=2, max_overflow=1), 2 * 4),
        (create_async_engine(URL, pool_size=4, max_overflow=0), 2 * 5),
        (redis.Redis(max_connections=7), 2 * 8),
        (redis.asyncio.Redis(max_connections=7), 2 * 8),
    ],
)
def test_the_pool_says_how_many_a_process_opens(engine: Any, connections: int) -> None:
    assert repr(HeadroomProbe(engine, processes=1)).endswith(f", {connections} connections>")
    given = HeadroomProbe(engine, processes=3, per_process=1, beside_pool=0, generations=1)
    assert repr(given).endswith(", 3 connections>")


@pytest.mark.parametrize(
    "target",
    [
        URL,
        "redis://:swordfish@cache",
        sa.create_engine(URL, pool_size=0),
        sa.create_engine(URL, max_overflow=-1),
        sa.create_engine(URL, poolclass=sa.NullPool),
        redis.Redis(connection_pool=redis.ConnectionPool(max_connections=2**31)),
    ],
)
def test_without_a_limit_in_the_pool_the_number_must_be_given(target: Any) -> None:
    with pytest.raises(ValueError, match=r"^per_process must be given"):
        HeadroomProbe(target, processes=1)
    assert "swordfish" not in repr(HeadroomProbe(target, processes=1, per_process=1))


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (URL, {"processes": 0}, "^processes must be a whole number, at least 1, not 0"),
        (URL, {"instances": 1.5}, "^instances must be"),
        (URL, {"generations": True}, "^generations must be"),
        (URL, {"reserve": -1}, "^reserve must be a whole number, at least 0, not -1"),
        (URL, {"timeout": 0}, "^timeout=.* must be"),
        ("redis://cache", {"timeout": 0}, "^timeout=.* must be"),
        ("redis://cache", {"application_name": "web"}, "^application_name= is for PostgreSQL"),
        ("redis+cluster://:swordfish@cache", {}, "^target must be a URL like redis://"),
        ("redis+sentinel://:swordfish@cache/shop", {}, "^target must be a URL like redis://"),
        ("mysql+pymysql://db/a", {"application_name": "web"}, "^application_name= is for Post"),
        (
            "amqp://ann:swordfish@mq",
            {},
            "^no SQL database is known by amqp://; known are postgresql",
        ),
        ("sqlite://", {}, "^target must be of PostgreSQL, MySQL, MariaDB or Redis, not sqlite"),
    ],
)
def test_wrong_options(target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HeadroomProbe(target, **{"processes": 1, "per_process": 1, **options})


def test_another_kind_of_target() -> None:
    with pytest.raises(TypeError, match="must be an Engine, an AsyncEngine or a URL"):
        HeadroomProbe(object(), processes=1)  # type: ignore[arg-type]
    wrong: Any = redis.asyncio.RedisCluster(host="cache")
    with pytest.raises(TypeError, match=r"must be a redis\.Redis, .* not RedisCluster"):
        HeadroomProbe(wrong, processes=1)


def test_reprs() -> None:
    shown = {
        URL: "postgresql+psycopg db/shop",
        "redis://cache:6380/2": "redis cache:6380/2",
        "unix:///run/redis.sock": "redis /run/redis.sock",
    }
    for url, place in shown.items():
        probe = HeadroomProbe(url, processes=1, per_process=1)
        assert repr(probe) == f"<HeadroomProbe {place}, 4 connections>"


@pytest.mark.parametrize(
    ("target", "module", "extra"),
    [(URL, "sqlalchemy", "postgresql"), ("redis://cache", "redis", "redis")],
)
def test_a_missing_driver_is_an_error_that_names_the_extra(
    target: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"needs .*healthmw\[{extra}\]"):
        HeadroomProbe(target, processes=1, per_process=1)
