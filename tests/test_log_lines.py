from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from healthmw import Degraded, Health
from healthmw.exceptions import ProbeFailedError
from healthmw.testing import ScriptedProbe

if TYPE_CHECKING:
    import pytest


def _logged(caplog: pytest.LogCaptureFixture, error: Exception) -> str:
    def probe() -> None:
        try:
            raise OSError("no route to host")
        except OSError as exc:
            raise error from exc

    health = Health()
    health.add("search", probe)
    with caplog.at_level(logging.INFO, "healthmw"):
        health.run_sync()
    (record,) = caplog.records
    return record.getMessage()


def test_a_probe_that_says_what_is_wrong_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = _logged(caplog, ProbeFailedError("the index is 3 hours old"))
    assert said == "check search: unknown -> failed: the index is 3 hours old"


def test_what_is_degraded_is_one_line_that_no_reader_obeys(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another service may have written it."""
    health = Health()
    said = "slow\r\nERROR healthmw check mail: okay -> failed \x1b[2J \udce9"
    health.add("search", ScriptedProbe(Degraded(said)))
    with caplog.at_level(logging.INFO, "healthmw"):
        health.run_sync()
    (record,) = caplog.records
    told = "slow ERROR healthmw check mail: okay -> failed [2J"
    assert record.getMessage() == f"check search: unknown -> degraded: {told}"


def test_what_a_probe_did_not_expect_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = _logged(caplog, KeyError("hits"))
    first, _, rest = said.partition("\n")
    assert first == "check search: unknown -> failed: KeyError: 'hits'"
    assert "in probe\n" in rest
    assert "OSError: no route to host" in rest


def test_a_change_is_one_line_and_a_poll_is_none(caplog: pytest.LogCaptureFixture) -> None:
    gone = OSError("gone")
    health = Health()
    health.add("database", ScriptedProbe(None, None, gone, gone, gone, None, None))
    with caplog.at_level(logging.DEBUG, "healthmw"):
        for _ in range(7):
            health.run_sync(fresh=True)
    lines = [record.getMessage().partition("\n")[0] for record in caplog.records]
    assert lines == [
        "check database: unknown -> okay",
        "check database: okay -> failed: OSError: gone",
        "check database: failed -> okay",
    ]
