"""The text bodies, from the words of the model alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmw import Reason, Report, Result, Status
from healthmw.render.text import render, render_verbose

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
OKAY = Result(
    name="cache",
    status=Status.OKAY,
    reason=Reason.OKAY,
    raw=Status.OKAY,
    duration=0.0004,
    when=WHEN,
)
FAILED = Result(
    name="database",
    status=Status.FAILED,
    reason=Reason.TIMEOUT,
    raw=Status.FAILED,
    detail="password=hunter2",
    duration=2.0,
    when=WHEN,
)


def report(*results: Result, status: Status, code: int, group: str = "ready") -> Report:
    return Report(group=group, status=status, code=code, results={r.name: r for r in results})


def test_a_pass_is_four_bytes() -> None:
    passed = report(OKAY, replace(FAILED, critical=False), status=Status.DEGRADED, code=200)

    assert render(passed).encode() == b"OKAY"


def test_a_failure_names_who_made_it_fail_and_nobody_else() -> None:
    results = (
        OKAY,
        replace(OKAY, name="disk", status=Status.DEGRADED, reason=Reason.DEGRADED),
        replace(OKAY, name="jobs", status=Status.UNKNOWN, reason=Reason.STALE),
        replace(FAILED, name="mail", critical=False),
        FAILED,
        replace(FAILED, name="search", reason=Reason.STUCK),
    )
    failed = report(*results, status=Status.FAILED, code=503)

    assert render(failed) == "FAILED: database (timeout), search (stuck)"
    unknown = report(*results[:4], status=Status.UNKNOWN, code=503)
    assert render(unknown) == "FAILED: jobs (stale)"
    degraded = report(results[1], results[3], status=Status.DEGRADED, code=503, group="release")
    assert render(degraded) == "FAILED: disk (degraded), mail (timeout)"


def test_the_report_of_one_check_speaks_of_it_at_its_own_severity() -> None:
    mail = replace(FAILED, name="mail", critical=False)

    alone = report(mail, status=Status.FAILED, code=503, group="mail")
    assert render(alone) == "FAILED: mail (timeout)"
    member = report(mail, status=Status.DEGRADED, code=503, group="release")
    assert render(member) == "FAILED: mail (timeout)"


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        (Reason.DRAINING, "FAILED: draining"),
        (Reason.NO_CHECKS, "FAILED: no check is registered"),
    ],
)
def test_a_reason_of_the_whole_report_stands_alone(reason: Reason, body: str) -> None:
    assert render(replace(report(FAILED, status=Status.FAILED, code=503), reason=reason)) == body


def test_verbose_says_how_long_it_took_and_what_it_means() -> None:
    results = (
        OKAY,
        replace(OKAY, name="flapping", raw=Status.FAILED, reason=Reason.FAILED, duration=0.012),
        replace(FAILED, name="mail", critical=False),
        replace(FAILED, name="pay", reason=Reason.CIRCUIT_OPEN, duration=0.1, retry_after=29.6),
        Result(name="jobs", status=Status.UNKNOWN, reason=Reason.NEVER_RUN),
    )

    body = render_verbose(report(*results, status=Status.FAILED, code=503))

    assert body == (
        "FAILED: pay (circuit_open)\n"
        "[+] cache okay (0 ms)\n"
        "[+] flapping okay (failed, 12 ms)\n"
        "[-] mail failed (timeout, 2000 ms, not critical)\n"
        "[-] pay failed (circuit_open, 100 ms, next trial in 30 s)\n"
        "[?] jobs unknown (never_run)\n"
    )


def test_verbose_of_nothing_is_one_line() -> None:
    assert render_verbose(report(status=Status.OKAY, code=200, group="live")) == "OKAY\n"


results = st.builds(
    Result,
    name=st.sampled_from(["a", "b", "c", "d"]),
    status=st.sampled_from(Status),
    reason=st.sampled_from(Reason),
    raw=st.sampled_from(Status),
    critical=st.booleans(),
    detail=st.just("hunter2"),
    duration=st.floats(0, 1e6),
    when=st.just(WHEN),
    retry_after=st.none() | st.floats(0, 1e6),
)


@given(st.lists(results, min_size=1, max_size=6), st.sampled_from([200, 503]))
def test_whatever_the_results_the_body_is_of_a_kind_with_the_code(
    members: list[Result], code: int
) -> None:
    status = max(member.counted for member in {m.name: m for m in members}.values())
    any_report = report(*members, status=status, code=code)

    for body in (render(any_report), render_verbose(any_report)):
        first = body.partition("\n")[0]
        assert (first == "OKAY") is (code == 200)
        assert first == "OKAY" or first.startswith("FAILED: ")
        assert not first.endswith("FAILED: "), "a failure names who is at fault"
        assert "hunter2" not in body
        assert "()" not in body
    assert render_verbose(any_report).count("\n") == 1 + len(any_report.results)
