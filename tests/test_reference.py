"""Pages of the reference that list what the code or the package has: they list all of it."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from healthmw import Health, Reason, Status
from healthmw._release import VARIABLES

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return REFERENCE.joinpath(name).read_text(encoding="utf-8")


def extras() -> dict[str, list[str]]:
    project: dict[str, Any] = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found


def test_compatibility_lists_each_extra_and_what_it_installs() -> None:
    rows = [
        f"| `{name}` | {', '.join(f'`{one}`' for one in needs)} |"
        for name, needs in extras().items()
        if name != "all"
    ]
    assert set(rows) <= set(page("compatibility.md").splitlines())


def test_compatibility_says_what_is_installed_without_an_extra() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
    (needed,) = project["dependencies"]
    assert f"`pip install healthmw` brings {needed.replace('>=', ' ')} or newer" in page(
        "compatibility.md"
    )


def test_the_extra_all_is_all_of_them() -> None:
    found = extras()
    every = found.pop("all")
    assert sorted(every) == sorted(f"healthmw[{name}]" for name in found)


def test_settings_list_the_variables_that_name_a_release() -> None:
    _, _, told = page("settings.md").partition("The release is the first of these")
    assert tuple(re.findall(r"`([A-Z_]+)`", told.partition("\n\n")[0])) == VARIABLES


def test_settings_list_the_options_that_a_health_takes() -> None:
    options = inspect.signature(Health).parameters.keys() - {"clock", "random"}
    text = page("settings.md")
    assert {name for name in options if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("words", [Status, Reason])
def test_verdicts_list_each_status_and_reason(words: type[Status | Reason]) -> None:
    text = page("verdicts.md")
    assert {word for word in words if f"`{word}`" not in text} == set()
