from __future__ import annotations

import ast
import importlib
import inspect
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

import healthmw
import tests.django_project  # noqa: F401 - the Django modules want settings
from healthmw import DependencyUnavailable, probes
from healthmw.exceptions import HealthError, MissingExtraError, ProbeTimeoutError

ROOT = Path(healthmw.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_public(dotted: str) -> bool:
    return not any(part.startswith("_") for part in dotted.split("."))


PUBLIC = sorted((name, path) for path in ROOT.rglob("*.py") if is_public(name := module_name(path)))
public_modules = pytest.mark.parametrize(("name", "path"), PUBLIC, ids=[name for name, _ in PUBLIC])


def defined_names(path: Path) -> set[str]:
    """Names that a module defines at its top level, which its imports are not."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Assign():
                found = [leaf for target in node.targets for leaf in ast.walk(target)]
                names.update(leaf.id for leaf in found if isinstance(leaf, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names - {"TYPE_CHECKING"}


@public_modules
def test_a_public_module_says_all_that_it_offers_in_a_tuple(name: str, path: Path) -> None:
    # That it is sorted, ruff sees to (RUF022).
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", None)
    assert isinstance(offered, tuple), f"{name} needs a tuple __all__"
    assert len(set(offered)) == len(offered)
    assert {one for one in offered if not hasattr(module, one)} == set()
    assert {one for one in defined_names(path) if is_public(one)} <= set(offered)


@public_modules
def test_what_is_offered_says_that_it_lives_in_a_public_module(name: str, path: Path) -> None:
    module = importlib.import_module(name)
    for one in module.__all__:
        value = getattr(module, one)
        if inspect.isclass(value) or inspect.isroutine(value):
            home = value.__module__
            assert is_public(home), f"{name}.{one} says that it lives in {home}"
            assert home.split(".")[0] == "healthmw"


def test_the_package_lists_what_it_loads_on_first_use() -> None:
    assert set(healthmw.__all__) <= set(dir(healthmw))
    with pytest.raises(AttributeError, match=r"'healthmw' has no attribute 'Helth'"):
        healthmw.Helth  # type: ignore[attr-defined]  # noqa: B018 - what is tested is that this fails


IMPORT = """
import json, sys, threading
before = set(sys.modules)
{statement}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([sorted(new - set(sys.stdlib_module_names)), threading.active_count()]))
"""
ANYIO = {"anyio", "idna", "sniffio", "typing_extensions"}


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import healthmw", set()),
        ("import healthmw.exceptions", set()),
        ("import healthmw; healthmw.Status", set()),
        ("import healthmw; healthmw.Health()", ANYIO),
        ("import healthmw.asgi", ANYIO),
        ("import healthmw.wsgi", ANYIO),
        ("import healthmw.probes", ANYIO),
        ("import healthmw.cli", ANYIO),
    ],
)
def test_an_import_starts_no_thread_and_loads_no_driver(statement: str, allowed: set[str]) -> None:
    code = IMPORT.format(statement=statement)
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded, threads = json.loads(run.stdout)
    assert set(loaded) - allowed == {"healthmw"}
    assert threads == 1


def test_every_probe_has_its_row_on_the_page_of_all_probes() -> None:
    page = ROOT.parent.joinpath("docs", "reference", "probes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`(?: of `(healthmw[\w.]+)`)? \|", page, flags=re.MULTILINE)
    django = importlib.import_module("healthmw.django.probes")
    there = {(name, "") for name in {*probes.__all__} - {"beat", "probe_from_dsn"}}
    there |= {(name, "healthmw.django.probes") for name in django.__all__}
    assert sorted(rows) == sorted(there)
    for scheme in re.findall(r"`([a-z+]+)://", inspect.getdoc(probes.probe_from_dsn) or ""):
        assert f"`{scheme.partition('+')[0]}" in page


@pytest.mark.parametrize(
    "error",
    [
        DependencyUnavailable("payments", 3.0),
        MissingExtraError("RedisProbe", extra="redis"),
        ProbeTimeoutError("not back"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_to_another_process(error: HealthError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
