"""Options: what is refused, and with which words. And what a check tells of itself."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from healthmw import Check, CircuitBreaker, DependencyUnavailable, Health, Status
from healthmw.testing import ManualClock, ScriptedProbe


def well() -> None: ...


NUMBERS = [
    # (value, exception, what the message says beside the option's name)
    (-1, ValueError, "finite number of seconds"),
    (math.inf, ValueError, "finite number of seconds"),
    (math.nan, ValueError, "finite number of seconds"),
    ("1", TypeError, "must be a number of seconds, not str"),
    (True, TypeError, "must be a number of seconds, not bool"),
    ([], TypeError, "must be a number of seconds, not list"),
    # integers that no float can hold
    pytest.param(10**400, ValueError, "=inf must be a finite number", id="huge"),
    pytest.param(-(10**400), ValueError, "=-inf must be a finite number", id="minus huge"),
]


@pytest.mark.parametrize(
    "option", ["timeout", "max_age", "failure_max_age", "interval", "stale_after"]
)
@pytest.mark.parametrize(("value", "exception", "message"), NUMBERS)
def test_a_span_of_time_is_a_finite_number_of_seconds(
    option: str, value: Any, exception: type[Exception], message: str
) -> None:
    options: dict[str, Any] = {option: value}
    if option == "stale_after":
        options["interval"] = 1.0
    with pytest.raises(exception, match=rf"^{option}\b.*{message}"):
        Health().add("it", well, **options)


@pytest.mark.parametrize("option", ["max_age", "deadline"])
@pytest.mark.parametrize(("value", "exception", "message"), NUMBERS)
def test_so_are_those_of_health_itself(
    option: str, value: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=rf"^{option}\b.*{message}"):
        Health(**{option: value})


@pytest.mark.parametrize("option", ["timeout", "interval"])
def test_a_timeout_or_an_interval_of_nothing_makes_no_sense(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=rf"^{option}=0 must be .* above 0"):
        Health().add("it", well, **options)
    with pytest.raises(ValueError, match=r"^deadline=0 must be .* above 0"):
        Health(deadline=0)


@pytest.mark.parametrize("option", ["timeout", "interval", "max_age"])
def test_less_than_a_nanosecond_is_no_time(option: str) -> None:
    options: dict[str, Any] = {option: 5e-324}
    with pytest.raises(ValueError, match=rf"^{option}=5e-324 is less than a nanosecond"):
        Health().add("it", well, **options)


def test_nor_is_it_a_window() -> None:
    with pytest.raises(ValueError, match=r"^window_seconds=5e-324 is less than a nanosecond"):
        CircuitBreaker(window_seconds=5e-324)
    check = Health().add("it", well, breaker=CircuitBreaker(window_seconds=1e-9, minimum_calls=1))
    with pytest.raises(OSError, match="gone"), check.guard():
        raise OSError("gone")
    assert check.refusing


def test_a_count_may_be_as_large_as_a_container_of_pythons_own() -> None:
    CircuitBreaker(window_calls=sys.maxsize)
    with pytest.raises(ValueError, match=rf"^window_calls={sys.maxsize + 1} must be {sys.maxsize}"):
        CircuitBreaker(window_calls=sys.maxsize + 1)


def test_an_age_of_nothing_makes_sense() -> None:
    health = Health(max_age=0)
    assert health.add("it", well).max_age == 0
    assert health.add("other", well, max_age=3).max_age == 3
    assert Health().add("it", well, max_age=0).max_age == 0
    assert Health().add("it", well, failure_max_age=0).failure_max_age == 0


@pytest.mark.parametrize(
    ("value", "exception", "message"),
    [
        (0, ValueError, "=0 must be a finite number above 0"),
        (-1, ValueError, "=-1 must be a finite number above 0"),
        (math.inf, ValueError, "=inf must be a finite number above 0"),
        (math.nan, ValueError, "=nan must be a finite number above 0"),
        ("4", TypeError, " must be a number, not str"),
        (True, TypeError, " must be a number, not bool"),
        pytest.param(10**400, ValueError, "=inf must be a finite number above 0", id="huge"),
    ],
)
def test_a_rate_is_a_finite_number_above_0(
    value: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=f"^per_hour{message}"):
        Health().add("it", well, per_hour=value)


def test_a_rate_may_be_below_one_an_hour() -> None:
    assert Health().add("it", well, per_hour=0.5).per_hour == 0.5


def test_an_interval_may_be_as_short_as_the_rate_allows() -> None:
    assert Health().add("it", well, per_hour=4, interval=900).per_hour == 4.0


@pytest.mark.parametrize("option", ["failure_threshold", "success_threshold"])
@pytest.mark.parametrize(
    ("value", "exception", "message"),
    [
        (0, ValueError, "=0 must be 1 or more"),
        (-2, ValueError, "=-2 must be 1 or more"),
        (1.5, TypeError, " must be a whole number, not float"),
        (True, TypeError, " must be a whole number, not bool"),
        (None, TypeError, " must be a whole number, not NoneType"),
    ],
)
def test_a_threshold_is_a_whole_number(
    option: str, value: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=f"^{option}{message}"):
        Health().add("it", well, **{option: value})


@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [
        ({"critical": "no"}, TypeError, "critical must be True or False, not str"),
        ({"critical": 0}, TypeError, "critical must be True or False, not int"),
        ({"passive": 1}, TypeError, "passive must be True or False, not int"),
        ({"passive": True}, ValueError, "passive=True needs breaker="),
        ({"breaker": 5}, TypeError, "breaker must be a CircuitBreaker, not int"),
        (
            {"breaker": CircuitBreaker},
            TypeError,
            r"breaker must be a CircuitBreaker, not type",
        ),
        ({"description": 5}, TypeError, "description must be a str, not int"),
        ({"stale_after": 9}, ValueError, "stale_after= needs interval="),
        (
            {"stale_after": 11.9, "interval": 10, "timeout": 2},
            ValueError,
            r"stale_after=11.9 is less than interval \+ timeout \(12 s\)",
        ),
        (
            {"failure_max_age": 9, "interval": 10},
            ValueError,
            "failure_max_age= is for checks that run on request, without interval=",
        ),
        (
            {"per_hour": 4, "interval": 899},
            ValueError,
            r"interval=899 is more often than per_hour=4 allows: every 900 s",
        ),
        ({"groups": "live"}, TypeError, r"groups must be .* names: write groups=\['live'\]"),
        ({"groups": None}, TypeError, "groups must be a collection of names, not NoneType"),
        ({"groups": 5}, TypeError, "groups must be a collection of names, not int"),
        ({"groups": [5]}, TypeError, "groups must be .* names, and 5 is none"),
        ({"groups": [["live"]]}, TypeError, r"groups must be .* names, and \['live'\] is none"),
        (
            {"groups": ["nightly"]},
            ValueError,
            r"^groups: .* no group 'nightly', only ready, .* first: health.group\('nightly'\)",
        ),
        ({"critcal": False}, TypeError, "critcal"),
    ],
)
def test_options_that_make_no_sense(options: Any, exception: type[Exception], message: str) -> None:
    health = Health()
    with pytest.raises(exception, match=message):
        health.add("it", well, **options)
    assert "it" not in health
    with pytest.raises(exception, match=message):
        health.probe("it", **options)(well)


NAMES = [
    ("", ValueError, "can't be part of a path: use up to 64 letters"),
    ("a b", ValueError, "can't be part of a path"),
    ("a/b", ValueError, "can't be part of a path"),
    ("../etc", ValueError, "can't be part of a path"),
    ("-a", ValueError, "can't be part of a path"),
    ("a\n", ValueError, "can't be part of a path"),
    ("café", ValueError, "can't be part of a path"),
    ("x" * 65, ValueError, "can't be part of a path"),
    (None, TypeError, "must be a str, not NoneType"),
    (b"a", TypeError, "must be a str, not bytes"),
    ("ready", ValueError, "is reserved"),
    ("live", ValueError, "is reserved"),
    ("startup", ValueError, "is reserved"),
    ("release", ValueError, "is reserved"),
    ("there", ValueError, "is taken: a check of that name is registered already"),
    ("nightly", ValueError, "is taken by a group"),
]


@pytest.mark.parametrize(("name", "exception", "message"), NAMES)
def test_names_that_make_no_sense(name: Any, exception: type[Exception], message: str) -> None:
    health = Health()
    health.add("there", well)
    health.group("nightly", checks=["there"])
    with pytest.raises(exception, match=rf"^name\b.*{message}"):
        health.add(name, well)
    if message != "is reserved":
        with pytest.raises(exception, match=rf"^name\b.*{message}"):
            health.group(name)
    assert list(health.checks) == ["there"]


@pytest.mark.parametrize("name", ["a", "9", "orders-db_2.replica", "x" * 64, "Ready"])
def test_names_that_do(name: str) -> None:
    health = Health()
    health.add(name, well)
    assert name in health
    assert health.checks[name].name == name


@pytest.mark.parametrize(
    ("options", "exception", "message"),
    [
        ({"checks": "db"}, TypeError, r"checks must be .* names: write checks=\['db'\]"),
        ({"checks": 5}, TypeError, "checks must be a collection of names, not int"),
        ({"checks": [5]}, TypeError, "checks must be .* names, and 5 is none"),
        ({"codes": {"down": 503}}, ValueError, "codes: 'down' is no status; there are 'okay'"),
        ({"codes": {5: 503}}, ValueError, "codes: 5 is no status"),
        ({"codes": [503]}, TypeError, r"codes must map statuses to HTTP status codes"),
        ({"codes": {"failed": "503"}}, TypeError, r"codes\[failed\] must be an HTTP status code"),
        ({"codes": {"failed": True}}, TypeError, r"codes\[failed\] must be an HTTP status code"),
        ({"codes": {"okay": 503}}, ValueError, r"codes\[okay\]=503: a pass needs a code from 200"),
        ({"codes": {"okay": 302}}, ValueError, r"codes\[okay\]=302: a pass needs"),
        ({"codes": {"okay": 300}}, ValueError, r"codes\[okay\]=300: a pass needs"),
        ({"codes": {"okay": 199}}, ValueError, r"codes\[okay\]=199: a pass needs"),
        ({"codes": {"okay": 204}}, ValueError, r"codes\[okay\]=204.* has no body"),
        ({"codes": {"degraded": 205}}, ValueError, r"codes\[degraded\]=205.* has no body"),
        ({"codes": {"failed": 200}}, ValueError, r"codes\[failed\]=200: a failure needs a code"),
        ({"codes": {"failed": 399}}, ValueError, r"codes\[failed\]=399: a failure needs a code"),
        ({"codes": {"failed": 600}}, ValueError, r"codes\[failed\]=600: a failure needs a code"),
        ({"codes": {"unknown": 200}}, ValueError, r"codes\[unknown\]=200: a failure needs"),
        ({"codes": {"degraded": 302}}, ValueError, r"codes\[degraded\]=302 must be from 200"),
    ],
)
def test_groups_that_make_no_sense(options: Any, exception: type[Exception], message: str) -> None:
    health = Health()
    with pytest.raises(exception, match=message):
        health.group("nightly", **options)
    assert "nightly" not in health


@pytest.mark.parametrize("group", ["ready", "startup", "release"])
def test_the_members_of_a_built_in_group_are_given(group: str) -> None:
    health = Health()
    health.add("it", well)
    with pytest.raises(ValueError, match=f"checks: the members of '{group}' are given"):
        health.group(group, checks=["it"])


@pytest.mark.parametrize("release", ["a b", "v1\r\nX: y", "ü", "x" * 129, 42, b"v1"])
def test_a_release_has_to_fit_into_a_header(release: Any) -> None:
    with pytest.raises(ValueError, match=r"^release=.* up to 128 printable ASCII characters"):
        Health(release=release)


@pytest.mark.parametrize("option", ["clock", "random"])
def test_clock_and_random_are_functions(option: str) -> None:
    options: dict[str, Any] = {option: 5.0}
    with pytest.raises(TypeError, match=f"^{option} must be a function, not float"):
        Health(**options)


def test_everything_but_name_and_probe_goes_by_its_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Health().add("it", well, False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Health("v1")  # type: ignore[call-arg]


def test_a_check_tells_its_policy() -> None:
    health = Health()
    breaker = CircuitBreaker()
    check = health.add(
        "payments",
        well,
        critical=False,
        timeout=3,
        interval=10,
        failure_threshold=2,
        success_threshold=4,
        groups=["live"],
        breaker=breaker,
        description="what we charge with",
    )
    assert isinstance(check, Check)
    assert health.checks["payments"] is check
    assert check.probe is well
    assert check.critical is False
    assert (check.timeout, check.interval, check.stale_after) == (3.0, 10.0, 23.0)
    assert (check.failure_threshold, check.success_threshold) == (2, 4)
    assert check.groups == {"live"}
    assert check.breaker is breaker
    assert check.description == "what we charge with"
    assert health.add("it", well).stale_after == math.inf
    exact = health.add("exact", well, interval=10, timeout=2, stale_after=12)
    assert exact.stale_after == 12.0


class SecretProbe:
    dsn = "postgresql://bob:hunter2@db/app"

    def __repr__(self) -> str:
        return f"SecretProbe({self.dsn})"

    def __call__(self) -> None: ...


def test_the_repr_of_a_check_shows_no_secret() -> None:
    check = Health().add("database", SecretProbe())
    assert repr(check) == "<Check 'database' unknown>"


@pytest.mark.anyio
async def test_a_check_tells_its_last_verdict() -> None:
    probe = ScriptedProbe(None, OSError("gone"))
    health = Health(max_age=0)
    check = health.add("database", probe)
    # Nothing is known yet, which is no reason to switch a feature off.
    assert (check.status, check.available) == (Status.UNKNOWN, True)
    assert probe.calls == 0
    await health.run()
    assert (check.status, check.available) == (Status.OKAY, True)
    await health.run()
    assert (check.status, check.available) == (Status.FAILED, False)
    assert repr(check) == "<Check 'database' failed>"
    assert probe.calls == 2


def test_an_open_breaker_is_the_verdict_of_its_check() -> None:
    breaker = CircuitBreaker()
    check = Health().add("payments", well, breaker=breaker)
    assert not check.refusing
    breaker.force_open()
    assert check.refusing
    assert (check.status, check.available) == (Status.FAILED, False)
    breaker.reset()
    assert (check.status, check.available) == (Status.UNKNOWN, True)
    assert Health().add("it", well).refusing is False


def test_no_call_of_a_users_is_the_trial() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10, jitter=0, clock=clock)
    check = Health().add("payments", well, breaker=breaker)
    calls: list[int] = []

    @check.guard()
    def charge() -> None:
        calls.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        charge()
    clock.advance(10)
    with pytest.raises(DependencyUnavailable):
        charge()
    assert (len(calls), str(breaker.state)) == (1, "open")


def test_a_decorated_probe_stays_the_function_it_was() -> None:
    health = Health()

    @health.probe("disk", critical=False)
    def disk() -> int:
        return 5

    assert disk() == 5
    assert health.checks["disk"].probe is disk
    assert health.checks["disk"].critical is False


def test_a_decorator_without_a_name_is_refused_and_not_forgotten() -> None:
    health: Any = Health()
    with pytest.raises(TypeError, match=r"^name must be a str, not function$"):
        health.probe(well)  # what `@health.probe` does
    assert not health.checks
