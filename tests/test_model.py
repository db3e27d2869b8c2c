from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import operator
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthmw import Health, Reason, Report, Result, Status
from healthmw._model import worst

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = [Status.OKAY, Status.DEGRADED, Status.UNKNOWN, Status.FAILED]


def test_severity_is_total_and_no_alphabet() -> None:
    assert list(Status) == ORDER
    assert [status.severity for status in ORDER] == [0, 1, 2, 3]
    for less, more in itertools.combinations(ORDER, 2):
        assert less < more
        assert less <= more
        assert more > less
        assert more >= less
        assert not less > more
        assert not less >= more
        assert not more < less
        assert not more <= less
    for status in Status:
        same = Status(status.value)
        assert status <= same
        assert status >= same
        assert not status < same
        assert not status > same
    assert sorted(ORDER, reverse=True) == ORDER[::-1]
    assert max(ORDER) is Status.FAILED


def test_a_status_is_its_word() -> None:
    assert [str(status) for status in Status] == ["okay", "degraded", "unknown", "failed"]
    # Against plain words, as read from a header: by severity too, on either side.
    okay: str = "okay"
    assert okay == Status.OKAY
    assert Status.OKAY < "degraded"
    assert "okay" < Status.DEGRADED  # noqa: SIM300 - the other order is another method
    by_word: dict[str, int] = {Status.FAILED: 1}
    assert by_word["failed"] == 1


def test_comparing_with_another_word_is_an_error() -> None:
    with pytest.raises(ValueError, match="down"):
        _ = Status.OKAY < "down"


@given(st.lists(st.sampled_from(ORDER)), st.sampled_from(ORDER))
def test_the_worst_decides(statuses: list[Status], empty: Status) -> None:
    verdict = worst(statuses, empty=empty)
    if statuses:
        assert verdict in statuses
        assert all(status <= verdict for status in statuses)
    else:
        assert verdict is empty


def test_the_worst_of_nothing_is_unknown() -> None:
    assert worst([]) is Status.UNKNOWN


def result(**changes: Any) -> Result:
    return Result(**{"name": "db", "status": Status.OKAY, "reason": Reason.OKAY} | changes)


@pytest.mark.parametrize(
    ("status", "ok", "counted"),
    [
        (Status.OKAY, True, Status.OKAY),
        (Status.DEGRADED, True, Status.DEGRADED),
        (Status.UNKNOWN, False, Status.DEGRADED),
        (Status.FAILED, False, Status.DEGRADED),
    ],
)
def test_a_check_that_is_not_critical_counts_as_degraded_at_most(
    status: Status, ok: bool, counted: Status
) -> None:
    critical = result(status=status)
    assert critical.ok is ok
    assert critical.counted is status
    lesser = result(status=status, critical=False)
    assert lesser.ok is ok
    assert lesser.counted is counted


@pytest.mark.parametrize(
    ("code", "ok"), [(200, True), (299, True), (300, False), (400, False), (503, False)]
)
def test_a_report_passes_when_its_code_says_so(code: int, ok: bool) -> None:
    report = Report(group="ready", status=Status.DEGRADED, code=code, results={})
    assert report.ok is ok


def test_a_result_claims_nothing_that_it_was_not_told() -> None:
    plain = result()
    assert (plain.raw, plain.duration, plain.when) == (Status.UNKNOWN, 0.0, None)
    assert plain.critical
    assert not plain.measurements


def test_results_and_reports_never_change() -> None:
    one = result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.status = Status.FAILED  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.measurements["x"] = 1  # type: ignore[index]


def test_the_private_detail_stays_out_of_the_repr() -> None:
    report = Report(
        group="ready",
        status=Status.FAILED,
        code=503,
        results={"db": result(detail="hunter2 refused")},
    )
    assert "hunter2" not in repr(report)


@pytest.fixture
def measured() -> Report:
    health = Health()
    health.add("disk", lambda: {"free_bytes": 7})
    return health.run_sync()


def test_a_report_goes_to_json_and_to_another_process(measured: Report) -> None:
    plain = json.loads(json.dumps(dataclasses.asdict(measured), default=str))
    assert plain["results"]["disk"]["measurements"] == {"free_bytes": 7}
    assert pickle.loads(pickle.dumps(measured)) == measured  # noqa: S301 - its own
    assert copy.deepcopy(measured) == measured


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("disk"),
        lambda found: found.clear(),
        lambda found: found.update(disk=None),
        lambda found: found.setdefault("more"),
        lambda found: found.popitem(),
        lambda found: operator.setitem(found, "more", None),
        lambda found: operator.delitem(found, "disk"),
        lambda found: found.__ior__({"more": None}),
    ],
)
def test_what_one_reader_does_to_a_report_no_other_sees(
    measured: Report, change: Callable[[object], object]
) -> None:
    for found in (measured.results, copy.copy(measured.results)):
        with pytest.raises(TypeError, match="copy it"):
            change(found)
    assert [*measured.results] == ["disk"]
