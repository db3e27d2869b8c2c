"""Changes the engine in small ways, and sees whether a test notices.

`make mutants ARGS="--sample 50"`. Each mutant is made in a copy of the tree, one at a time, and
tried by the quick tests of its module, which end with the first that fails. A survivor is a line
that no test holds in its place, or a change that makes no difference; which of the two, a human has
to say.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "build" / "mutants.json"
_LIMIT = 240.0  # seconds; a mutant that hangs is one that was noticed

_BREAKER = ["tests/test_breaker.py", "tests/test_breaker_model.py", "tests/test_breaker_defects.py"]
_RUNNING = [
    "tests/test_running.py",
    "tests/test_sharing.py",
    "tests/test_fork.py",
    "tests/test_background.py",
]
TESTS = {
    "_breaker": _BREAKER,
    "_flight": [*_RUNNING, "tests/test_wsgi.py"],
    "_runner": [*_RUNNING, "tests/test_passive.py", "tests/test_logs.py", "tests/test_driver.py"],
    "_model": ["tests/test_model.py", "tests/test_health.py"],
    "_check": ["tests/test_check.py", "tests/test_guard.py", "tests/test_background.py"],
}
"""What tries each module: the quickest first, and the abuse suite's own after them."""
_ALWAYS = ["tests/abuse/test_broken_probes.py", "tests/abuse/test_races.py"]

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_CALCULATED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, ast.Module]]:
    """Yield the line of each change, what it is, and the changed module."""
    for number, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node):
            changed = copy.deepcopy(tree)
            twin = next(one for at, one in enumerate(ast.walk(changed)) if at == number)
            change(twin)
            yield getattr(node, "lineno", 0), what, ast.fix_missing_locations(changed)


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], object]]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
        other = _COMPARED[type(node.ops[0])]
        yield (
            f"{ast.unparse(node)}: {other.__name__}",
            lambda twin: twin.ops.__setitem__(0, other()),
        )
    elif isinstance(node, ast.BoolOp):
        swapped = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{ast.unparse(node)}: {swapped.__name__}", lambda twin: _set(twin, "op", swapped())
    elif isinstance(node, ast.BinOp) and type(node.op) in _CALCULATED:
        opposite = _CALCULATED[type(node.op)]
        yield (
            f"{ast.unparse(node)}: {opposite.__name__}",
            lambda twin: _set(twin, "op", opposite()),
        )
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} -> {value}", lambda twin: _set(twin, "value", value)
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        test = ast.unparse(node.test)
        yield f"not ({test})", lambda twin: _set(twin, "test", _negated(twin.test))
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        for index, line in enumerate(block if isinstance(block, list) else ()):
            if (isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)) or (
                isinstance(line, ast.Assign | ast.AugAssign)
                and isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.With | ast.Try
                )
            ):
                yield f"without {ast.unparse(line)}", _replacing(name, index, ast.Pass())
            elif isinstance(line, ast.Return) and line.value is not None:
                yield (
                    f"{ast.unparse(line)}: None",
                    _replacing(name, index, ast.Return(ast.Constant(None))),
                )


def _set(node: ast.AST, name: str, value: object) -> None:
    setattr(node, name, value)


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _replacing(name: str, index: int, line: ast.stmt) -> Callable[[Any], object]:
    return lambda twin: getattr(twin, name).__setitem__(index, line)


def tried(folder: Path, module: str, tree: ast.Module) -> str:
    """Return "killed", or how else it ended."""
    path = folder / "healthmw" / f"{module}.py"
    original = path.read_text(encoding="utf-8")
    path.write_text(ast.unparse(tree), encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header",
        "-o", "faulthandler_timeout=60", *TESTS[module], *_ALWAYS,
    ]  # fmt: skip
    try:
        run = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed (it hung)"
    finally:
        path.write_text(original, encoding="utf-8")
    return "survived" if run.returncode == 0 else "killed"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    options.add_argument("modules", nargs="*", default=[*TESTS], help="which modules to change")
    options.add_argument("--sample", type=int, help="try so many, drawn at random")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--minutes", type=float, default=1e9, help="begin none after this time")
    chosen = options.parse_args()
    made = []
    for module in chosen.modules:
        source = (ROOT / "healthmw" / f"{module}.py").read_text(encoding="utf-8")
        made += [(module, *mutant) for mutant in mutants(ast.parse(source))]
    print(f"{len(made)} mutants", flush=True)
    random.Random(chosen.seed).shuffle(made)
    results: list[dict[str, object]] = []
    until = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory(prefix="healthmw-mutants-") as name:
        folder = Path(name)
        for part in ("healthmw", "tests", "pyproject.toml"):
            source_path = ROOT / part
            if source_path.is_dir():
                shutil.copytree(
                    source_path, folder / part, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy(source_path, folder / part)
        for module, line, what, tree in made[: chosen.sample]:
            if time.monotonic() > until:
                break
            end = tried(folder, module, tree)
            results.append({"module": module, "line": line, "what": what, "end": end})
            print(f"{end:9} {module}:{line} {what}", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1), encoding="utf-8")
    survivors = [one for one in results if one["end"] == "survived"]
    print(f"{len(results) - len(survivors)} of {len(results)} killed")


if __name__ == "__main__":
    main()
