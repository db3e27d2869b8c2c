"""What importing healthmw brings along. Modules are counted: that is the same everywhere."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import healthmw

OTHERS = {
    "aiohttp",
    "asgiref",
    "django",
    "fastapi",
    "flask",
    "gevent",
    "granian",
    "gunicorn",
    "httpx2",
    "hypercorn",
    "prometheus_client",
    "pydantic",
    "redis",
    "rich",
    "sqlalchemy",
    "starlette",
    "trio",
    "uvicorn",
    "uvloop",
    "werkzeug",
}

# What a module may bring along: its framework, and what that itself imports. No other may any.
GLUE = {
    "healthmw.aiohttp": {"aiohttp"},
    "healthmw.django": {"asgiref", "django"},
    "healthmw.fastapi": {"fastapi", "pydantic", "starlette"},
    "healthmw.flask": {"flask", "werkzeug"},
    "healthmw.prometheus": {"prometheus_client"},
    "healthmw.sentry": {"gevent", "trio"},  # its SDK looks at what is installed
    "healthmw.starlette": {"starlette"},
    "healthmw.webhooks": {"httpx2"},
}
PUBLIC = [
    f"healthmw.{module.name}"
    for module in pkgutil.iter_modules(healthmw.__path__)
    if not module.name.startswith("_")
]


def brought_along(code: str, before: str = "pass") -> set[str]:
    """Return the modules that `code` has loaded, in an interpreter that has run `before`."""
    program = (
        f"import json, sys\n{before}\nbefore = set(sys.modules)\n{code}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def test_healthmw_itself_is_two_small_modules_over_anyio() -> None:
    assert brought_along("import healthmw", "import anyio") == {"healthmw", "healthmw._lazy"}


def test_health_brings_only_what_is_python_s_own_over_anyio() -> None:
    brought = brought_along("from healthmw import Health", "import anyio, asyncio")
    strangers = {name.partition(".")[0] for name in brought} - set(sys.stdlib_module_names)
    assert strangers == {"healthmw"}
    # Nothing that answers is needed to have checks; and the number is kept in view.
    assert len([name for name in brought if name.startswith("healthmw.")]) <= 37


def test_breakers_and_guards_come_with_the_first_breaker_all_at_once() -> None:
    without = "from healthmw import Health\nhealth = Health()\nhealth.add('a', lambda: None)"
    rooms = {"healthmw._breaker", "healthmw._guard", "healthmw._guard_wrappers", "healthmw._window"}
    assert not rooms & brought_along(without)
    more = "import healthmw\nhealth.add('b', lambda: 0, breaker=healthmw.CircuitBreaker())"
    assert rooms <= brought_along(more, before=without)
    # For the first guard may be made when there is no file to be had.
    before = f"{without}\n{more}"
    assert not brought_along("health.check('b').guard(fallback=None)(len)([])", before=before)


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_the_status_page_is_loaded_when_somebody_looks_at_it(interface: str) -> None:
    brought = brought_along(f"import healthmw.{interface}", "import anyio, asyncio")
    assert not brought & {"healthmw.render.html", "importlib.resources", "statistics"}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_imports_its_own_framework_alone(module: str) -> None:
    brought = {name.partition(".")[0] for name in brought_along(f"import {module}")}
    allowed = GLUE.get(module, set())
    assert brought & OTHERS <= allowed, brought & OTHERS
