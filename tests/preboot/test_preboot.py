"""Ten deploys, on four platforms each: what came of them, and what the page in the docs says."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.faults.proxy import LoopThread
from tests.leaks import WATCH
from tests.preboot import page
from tests.preboot.deploy import NO, NONE, YES, Deploy, Finding
from tests.preboot.scenarios import SCENARIOS, SETTINGS
from tests.preboot.stage import Stage
from tests.programs import do_without
from tests.services.servers import MissingServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.preboot.page import Key

SIDE_BY_SIDE = 10  # most of a deploy is waiting


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Key, Future[Finding]]]:
    """The deploys that this run asks for, all begun."""
    chosen: list[Key] = [
        (str(item.callspec.params["scenario"]), str(item.callspec.params["setting"]))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test_a_deploy_goes_as_the_page_says.__name__
    ]
    # Those that wait the longest first.
    chosen.sort(key=lambda key: "BOOT" not in SCENARIOS[key[0]].fault)
    folder = tmp_path_factory.mktemp("preboot")
    with ExitStack() as stack:
        try:
            stage = Stage(stack, folder)
        except MissingServerError as exc:
            do_without(exc)
        loop = LoopThread()
        stack.callback(loop.close)

        def deploy(number: int) -> Finding:
            scenario, setting = chosen[number]
            own = folder / f"deploy{number}"
            own.mkdir()
            return Deploy(SCENARIOS[scenario], SETTINGS[setting], stage, loop, own).run()

        pool = stack.enter_context(ThreadPoolExecutor(SIDE_BY_SIDE))
        coming = {key: pool.submit(deploy, number) for number, key in enumerate(chosen)}
        yield coming
        pool.shutdown(cancel_futures=True)
        WATCH.see_files(folder)
        page.write({key: one.result() for key, one in coming.items() if not one.cancelled()})


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_deploy_goes_as_the_page_says(
    scenario: str, setting: str, found: dict[Key, Future[Finding]]
) -> None:
    finding = found[scenario, setting].result()
    assert not finding.error, finding.error
    if SETTINGS[setting].healthmw:
        assert finding.failed == 0, finding
        assert finding.bad_traffic == (NO if SCENARIOS[scenario].bad else NONE)
        assert (finding.halted != NO) == SCENARIOS[scenario].halts, finding
    else:
        assert finding.halted == NO
        assert finding.bad_traffic == (YES if SCENARIOS[scenario].bad else NONE)
        assert finding.failed or not SCENARIOS[scenario].bad, finding
    if finding.halted != NO:
        assert SCENARIOS[scenario].culprit in finding.operator
    shown = page.verdicts(page.read_page())[scenario, setting]
    assert page.verdict(finding) == shown, "python -m tests.preboot.page writes the page anew"


def test_the_page_has_these_deploys_and_no_others() -> None:
    assert [*page.verdicts(page.read_page())] == page.keys()
    assert page.scenarios() in page.read_page()
