"""Each row of the fault table, as it is found and as the page has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from healthmw import probes
from tests.faults import table
from tests.faults.subject import Fault, subjects
from tests.programs import do_without
from tests.services.servers import MissingServerError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tests.faults.table import Row


@pytest.mark.parametrize("name", subjects())
def test_a_row_is_well_and_is_what_the_page_says(name: str, rows: dict[str, Future[Row]]) -> None:
    try:
        row = rows[name].result()
    except MissingServerError as exc:
        do_without(exc)
    found = row.found
    assert not found["amiss"], f"{found['amiss']}\n{row.said}"
    assert found["secrets"] == []
    assert found["complaints"] == []
    assert list(found["cells"]) == [*Fault]
    lines, reasons = table.committed()
    hint = "the page differs from what was found; `make fault-table` writes it anew"
    assert row.line == lines.get(name), f"{hint}\n{row.said}"
    assert row.reasons == reasons[name], hint


def test_the_page_is_written_from_the_rows_and_nothing_else(
    rows: dict[str, Future[Row]],
) -> None:
    lines, reasons = table.committed()
    assert list(lines) == list(subjects())
    assert table.PAGE.read_text(encoding="utf-8") == table.page(lines, reasons)
    found = [row.result() for row in rows.values() if row.exception() is None]
    table.write_result(found)


def test_every_probe_has_a_row_or_a_reason_why_it_has_none() -> None:
    in_the_table = {name.split("`")[1] for name in subjects()}
    known = {name for name in probes.__all__ if name.endswith("Probe")}
    known |= {"CacheProbe", "DatabaseProbe"}  # of Django
    assert in_the_table | table.NO_ROW.keys() == known
    assert not in_the_table & table.NO_ROW.keys()
