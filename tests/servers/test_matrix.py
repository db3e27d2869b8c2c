"""Every server that the docs name, and what the table in the docs says of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.servers import matrix
from tests.servers.matrix import PAGE, ROWS, Findings

if TYPE_CHECKING:
    from pathlib import Path

AT_ONCE = 2  # rows side by side: one mostly waits while the other works


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Findings]:
    """Return what was found under each server that this run asks for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    chosen = [
        str(item.callspec.params["name"])
        for item in items
        if item.originalname == test_a_server_does_what_the_table_says.__name__
    ]
    folder = tmp_path_factory.mktemp("matrix")

    def live(name: str) -> Findings:
        return matrix.live(name, folder / str(chosen.index(name)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        everything = dict(zip(chosen, pool.map(live, chosen), strict=True))
    matrix.write(everything)
    return everything


@pytest.mark.parametrize("name", ROWS)
def test_a_server_does_what_the_table_says(name: str, found: dict[str, Findings]) -> None:
    findings = found[name]
    assert not findings.error, findings.error
    assert findings.line(name) in PAGE.read_text(encoding="utf-8").splitlines(), (
        "python -m tests.servers.matrix writes the page anew"
    )


def test_the_page_has_these_servers_and_no_others() -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == list(ROWS)
    assert text == matrix.page(lines), "python -m tests.servers.matrix writes the page anew"


@pytest.fixture
def quiet_folder(tmp_path: Path) -> Path:
    return tmp_path / "row"


def test_what_goes_wrong_is_found(quiet_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_at_once = matrix.Row(command="timeit pass", interface="wsgi")
    monkeypatch.setitem(ROWS, "a broken one", ends_at_once)
    findings = matrix.live("a broken one", quiet_folder)
    assert (findings.boots, findings.ends) == (matrix.NO, matrix.NO)
    assert "the server ended" in findings.error
