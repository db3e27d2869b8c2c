"""The release check in plain shell, around each example as its Procfile has it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.examples.shops import Shop


@pytest.fixture(autouse=True)
def tools() -> None:
    program("nc", package="netcat-openbsd")
    program("curl", package="curl")


def test_the_shell_script_passes_an_example_and_fails_it_with_a_broken_database(
    idle_shop: Shop, free_port: Callable[[], int]
) -> None:
    check = f"../release_check.sh sh -c {shlex.quote(f'exec {idle_shop.kind.command}')}"
    idle_shop.create_tables()

    well = idle_shop.run(check, PORT=str(free_port()))
    assert well.returncode == 0, well.stdout
    assert "PASSED: /health_check says OKAY" in well.stdout

    idle_shop.break_database()
    broken = idle_shop.run(check, PORT=str(free_port()))
    assert broken.returncode == 1, broken.stdout
    assert "FAILED: /health_check says: FAILED: database (failed)" in broken.stdout
