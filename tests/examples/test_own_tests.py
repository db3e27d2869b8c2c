"""The tests that the examples bring along, run as their READMEs say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.examples.shops import DJANGO, FASTAPI, FLASK, Kind, Shop

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = [
    (DJANGO, "python -W error manage.py test"),
    (FLASK, "python -W error -m pytest -q -p no:cacheprovider"),
    (FASTAPI, "python -W error -m pytest -q -p no:cacheprovider"),
]


@pytest.mark.parametrize(("kind", "command"), COMMANDS, ids=["django", "flask", "fastapi"])
def test_an_example_passes_its_own_tests(kind: Kind, command: str, tmp_path: Path) -> None:
    done = Shop(kind, tmp_path).run(command)
    assert done.returncode == 0, done.stdout
    assert "no tests ran" not in done.stdout.lower()
