"""Changes engine and breaker in small ways, one at a time, and sees whether a test notices.

    make mutants                                 all of them, and the page of them is rendered
    make mutants ARGS="_breaker _flight"         these modules only
    make mutants ARGS="--again --own"            those that survived and have no reason yet
    make mutants ARGS="_runner --only _join"     to look closer: those with this in their names

In a copy of the tree pytest collects the tests once. A child runs them all under coverage: which
test reaches which line, and how long it takes. From then on each mutant has a child of its own,
forked from the process that has everything loaded, in which the changed function gets its new code;
it runs the tests that reach the changed line, the module's own before others and the quick before
the slow, until one fails. What is no function's body (a constant of a module, a default) takes
effect when it is imported: it is tried by a process that begins anew.
The mutant lies in the copy as well, for tests that start programs.

A survivor is a line that no test holds in its place, or a change that makes no difference; which of
the two, a human has to say: `mutants_equal.toml` has those that make none, and why. A mutant is
known by module, function and the two versions of its line, so that this outlives other changes.

Decorators, strings and annotations are left as they are. A test that fails by chance passes for one
that has noticed something: run it on a quiet machine.

mutmut (3.8) has the same plan, but not the reach: it leaves out properties, most of what is
decorated and all that is no function's; its mutants are numbered, so that a list of equal ones is
void with the next change; and it puts a function of its own around each of ours, which tests of
signatures and of costs see. cosmic-ray starts pytest anew for each mutant: here that is a night.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.abuse import mutants_page
from tests.abuse.mutants_page import RESULT, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

ROOT = Path(__file__).parents[2]

_BREAKER = ("breaker", "breaker_model", "breaker_defects", "guard")
_RUNNING = ("running", "sharing", "background", "fork")
_RESULTS = ("cost", "driver", "listeners", "log_lines", "memory", "passive", "probe")
MODULES: dict[str, tuple[str, ...]] = {
    "_breaker": _BREAKER,
    "_breaker_events": _BREAKER,
    "_breaker_judge": _BREAKER,
    "_breaker_phase": _BREAKER,
    "_breaker_rules": _BREAKER,
    "_window": _BREAKER,
    "_guard_gate": ("guard", "running"),
    "_model": ("model", "health"),
    "_groups": ("health", "http"),
    "_check": ("check", "guard", "background"),
    "_options": ("check", "guard", "breaker", "webhooks"),
    "_steps": ("running",),
    "_background": ("background", "cost", "fork", "side"),
    "_circuit": ("background", "listeners", "memory", "fork"),
    "_flight": (*_RUNNING, "wsgi"),
    "_crowd": (*_RUNNING, "http"),
    "_reports": (*_RUNNING, "drain", "health", "http", "startup", "wsgi"),
    "_runner": (*_RUNNING, *_RESULTS),
    "_told": _RESULTS,
    "_damper": (*_RUNNING, "memory"),
    "_witness": ("passive",),
    "_in_order": (*_BREAKER, "listeners"),
}
"""What is changed, and the tests of each that are asked first."""
OTHER_TESTS = (
    "access", "asgi", "drain", "history", "http", "jitter", "listeners", "log_lines", "logs",
    "metrics", "passive", "portal", "probe", "startup", "testing", "text", "threads", "timings",
)  # fmt: skip
ABUSE = ("test_broken_probes", "test_options_fuzz", "test_races")

_OF_OWN = 60.0
_OF_OTHERS = 10.0
"""So many seconds' worth are asked of the module's own tests, and so many of the others."""

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_CALCULATED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(slots=True)
class Change:
    """Something else in the place of what stands in a field of a node, or in a list of them."""

    at: Any
    key: str | int
    new: object

    def swap(self) -> None:
        """Make the change; and take it back, the second time."""
        if isinstance(self.key, int):
            self.at[self.key], self.new = self.new, self.at[self.key]
        else:
            old = getattr(self.at, self.key)
            setattr(self.at, self.key, self.new)
            self.new = old


@dataclass(slots=True, kw_only=True)
class Mutant:
    """One change of one module."""

    module: str
    scope: str
    """The function or class that it is in, and empty for the module."""
    what: str
    lines: Collection[int]
    function: tuple[str, int] | None
    """The outermost function around it, by qualified name and first line; None if none runs it."""
    tree: ast.Module
    change: Change

    @property
    def name(self) -> str:
        """What it is known by."""
        return f"{self.module} | {self.scope} | {self.what}"

    @contextlib.contextmanager
    def made(self) -> Iterator[ast.Module]:
        """Have the tree changed for as long as this takes."""
        self.change.swap()
        try:
            yield ast.fix_missing_locations(self.tree)
        finally:
            self.change.swap()


class Maker:
    """Makes the mutants of one module."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._tree = ast.parse(source)
        self._seen: dict[tuple[str, str], int] = {}
        self.mutants: list[Mutant] = []
        self._block(self._tree.body, "", None)

    def _block(self, block: list[ast.stmt], scope: str, function: tuple[str, int] | None) -> None:
        for index, line in enumerate(block):
            if isinstance(line, ast.ClassDef):
                self._block(line.body, f"{scope}{line.name}.", function)
            elif isinstance(line, _FUNCTION):
                self._function(line, scope, function)
            elif not (isinstance(line, ast.If) and ast.unparse(line.test) == "TYPE_CHECKING"):
                self._statement(block, index, scope, function)

    def _function(
        self,
        node: ast.FunctionDef | ast.AsyncFunctionDef,
        scope: str,
        function: tuple[str, int] | None,
    ) -> None:
        if any(ast.unparse(one) == "overload" for one in node.decorator_list):
            return
        inside = f"{scope}{node.name}"
        every = [*node.args.posonlyargs, *node.args.args]
        given = [*zip(every[::-1], node.args.defaults[::-1], strict=False)]
        given += [
            (arg, default)
            for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if default is not None
        ]
        body = range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
        for arg, default in given:
            text = functools.partial(_as_given, arg, default)
            for change in _in_expression(default, node.args, ""):
                self._add(inside, function, body, change, text)
        begins = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        self._block(node.body, f"{inside}.<locals>.", function or (inside, begins))

    def _statement(
        self, block: list[ast.stmt], index: int, scope: str, function: tuple[str, int] | None
    ) -> None:
        line = block[index]
        inner = [
            found
            for name in ("body", "orelse", "finalbody")
            if isinstance(found := getattr(line, name, None), list) and found
        ]
        inner += [handler.body for handler in getattr(line, "handlers", ())]
        inner += [case.body for case in getattr(line, "cases", ())]
        last = (inner[0][0].lineno - 1 if inner else line.end_lineno) or line.lineno
        reached: Collection[int] = range(line.lineno, max(last, line.lineno) + 1)
        if function is None:
            reached = self._uses(line)
        name = scope.removesuffix(".").removesuffix(".<locals>")
        changes = [*_of_line(block, index, in_function=function is not None)]
        for field, value in ast.iter_fields(line):
            if field not in {"body", "orelse", "finalbody", "handlers", "cases", "annotation"}:
                for part in value if isinstance(value, list) else [value]:
                    if isinstance(part, ast.AST):
                        changes += _in_expression(part, line, field)
        text = functools.partial(_first_line, block, index)
        for change in changes:
            self._add(name, function, reached, change, text)
        for part in inner:
            self._block(part, scope, function)

    def _uses(self, line: ast.stmt) -> Collection[int]:
        """Return the lines with names that `line` sets; where it sets none, all there are."""
        nodes = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
        names = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
        uses = {
            node.lineno
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load)
        }
        return uses or range(1, (self._tree.body[-1].end_lineno or 0) + 1)

    def _add(
        self,
        scope: str,
        function: tuple[str, int] | None,
        lines: Collection[int],
        change: Change,
        text: Callable[[], str],
    ) -> None:
        before = text()
        change.swap()
        after = text()
        change.swap()
        what = _shown(before, after)
        times = self._seen[scope, what] = self._seen.get((scope, what), 0) + 1
        self.mutants.append(
            Mutant(
                module=self._module,
                scope=scope,
                what=what if times == 1 else f"{what} (no. {times})",
                lines=lines,
                function=function,
                tree=self._tree,
                change=change,
            )
        )


def _as_given(arg: ast.arg, default: ast.expr) -> str:
    return f"{arg.arg}={ast.unparse(default)}"


def _first_line(block: list[ast.stmt], index: int) -> str:
    return ast.unparse(block[index]).partition("\n")[0]


def _of_line(block: list[ast.stmt], index: int, *, in_function: bool) -> Iterator[Change]:
    """Yield what can be done to a line as a whole."""
    match block[index]:
        case ast.Return(ast.Constant(None)):
            return
        case ast.Return(ast.expr()) as line:
            yield Change(line, "value", ast.Constant(None))
        case ast.Expr(ast.Call() | ast.Await()) | ast.Raise() | ast.Break() | ast.Continue():
            yield Change(block, index, ast.Pass())
        case ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Delete() if in_function:
            yield Change(block, index, ast.Pass())


def _in_expression(node: ast.AST, parent: ast.AST, field: str) -> Iterator[Change]:
    """Yield the changes of an expression and of all that it is made of."""
    asked = field == "test" and isinstance(parent, ast.If | ast.While | ast.IfExp)
    if asked and isinstance(node, ast.expr):
        match node:
            case ast.UnaryOp(ast.Not()):
                yield Change(parent, "test", node.operand)
            case _:
                yield Change(parent, "test", ast.UnaryOp(ast.Not(), node))
    yield from _of_node(node, asked=asked)
    for name, value in ast.iter_fields(node):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST) and name != "annotation":
                yield from _in_expression(part, node, name)


def _of_node(node: ast.AST, *, asked: bool) -> Iterator[Change]:
    """Yield the changes of one node. Where it is `asked`, its opposite is known already."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                if not asked or isinstance(operator, _ORDERED):
                    yield Change(node.ops, place, _COMPARED[type(operator)]())
        case ast.BoolOp():
            yield Change(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.BinOp() if type(node.op) in _CALCULATED:
            yield Change(node, "op", _CALCULATED[type(node.op)]())
        case ast.UnaryOp(ast.Not()) if not asked:
            yield Change(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
        case ast.Constant(bool()):
            yield Change(node, "value", not node.value)
        case ast.Constant(int() | float() as number):
            yield Change(node, "value", number + 1)


def _shown(before: str, after: str) -> str:
    """Return both, without what is the same at both ends of a long line."""
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    left = max(start - 40, 0) if start > 60 else 0
    right = max(end - 30, 0) if end > 50 else 0
    shown = [
        ("…" if left else "") + text[left : len(text) - right] + ("…" if right else "")
        for text in (before, after)
    ]
    return " → ".join(text if len(text) <= 140 else f"{text[:100]}…" for text in shown)


def _alike(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def mutants(module: str) -> list[Mutant]:
    """Return all mutants of a module."""
    path = Path("healthmw", f"{module}.py")
    return Maker(module, path.read_text(encoding="utf-8")).mutants


class Trials:
    """A plugin of pytest that, in place of the tests, tries mutants by them."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._items: dict[str, pytest.Item] = {}
        self._took: dict[str, float] = {}
        self._elsewhere: set[str] = set()
        self._reach: dict[str, dict[int, list[str]]] = {}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = {}
        self.noticed: dict[str, bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure the tests, and then try the mutants."""
        self._items = {item.nodeid: item for item in session.items}
        assert threading.active_count() == 1, "a process with threads is not forked"
        began = time.monotonic()
        self._measure()
        print(f"{len(self._took)} tests measured in {time.monotonic() - began:.0f} s", flush=True)
        for one in gc.get_objects():
            if type(one) is FunctionType:  # what a proxy says that it is, it has to find out first
                code = one.__code__
                key = (Path(code.co_filename).stem, code.co_qualname, code.co_firstlineno)
                if Path(code.co_filename).parent.name == "healthmw":
                    self._functions.setdefault(key, []).append(one)
        gc.collect()
        gc.freeze()  # so that a child's collector leaves alone what it shares with us
        for module in self._chosen.modules:
            self._try_all(module)
        print(f"{sum(self.noticed.values())} of {len(self.noticed)} noticed")
        return True

    def _try_all(self, module: str) -> None:
        made = [mutant for mutant in mutants(module) if self._chosen.only in mutant.name]
        stored = json.loads(self._chosen.result.read_text(encoding="utf-8"))
        known = stored.get(module, {"survivors": []})["survivors"] if self._chosen.again else []
        for mutant in made:
            if self._chosen.again and (mutant.name not in known or mutant.name in reasons()):
                self.noticed[mutant.name] = mutant.name not in known  # as it was
                continue
            began = time.monotonic()
            end = self._tried(mutant)
            took = time.monotonic() - began
            self.noticed[mutant.name] = end in {"killed", "hung"}
            print(f"{end:9} {took:5.1f} s {mutant.name}", flush=True)
        if _in_part(self._chosen):
            return
        stored[module] = {
            "date": datetime.now(UTC).date().isoformat(),
            "made": len(made),
            "survivors": [mutant.name for mutant in made if not self.noticed[mutant.name]],
        }
        text = json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True)
        self._chosen.result.write_text(text + "\n", encoding="utf-8")

    def _measure(self) -> None:
        folder = Path(tempfile.mkdtemp(dir="."))
        include = [str(Path("healthmw").resolve() / "*")]
        pid = os.fork()
        if not pid:
            _quiet()
            measuring = coverage.Coverage(
                data_file=folder / "data", data_suffix=True, config_file=False, include=include
            )
            measuring.set_option("run:patch", ["_exit"])
            took = {}
            measuring.start()
            items = [*self._items.values()]
            for item, following in zip(items, [*items[1:], None], strict=True):
                measuring.switch_context(item.nodeid)
                began = time.monotonic()
                if not _failed(item, following):
                    took[item.nodeid] = time.monotonic() - began
            measuring.stop()
            measuring.save()
            (folder / "took.json").write_text(json.dumps(took), encoding="utf-8")
            os._exit(0)
        os.waitpid(pid, 0)
        self._took = json.loads((folder / "took.json").read_text(encoding="utf-8"))
        for name in self._items.keys() - self._took.keys():
            print(f"fails without any change, and is left out: {name}")
        measured = coverage.Coverage(data_file=folder / "data", config_file=False)
        measured.combine()
        data = measured.get_data()
        for path in data.measured_files():
            self._reach[Path(path).stem] = data.contexts_by_lineno(path)
        reached = [names for lines in self._reach.values() for names in lines.values()]
        self._elsewhere = self._took.keys() - {name for names in reached for name in names}

    def _tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach it: the module's own first, and the quick before the slow."""
        reach = self._reach.get(mutant.module, {})
        names = {name for line in mutant.lines for name in reach.get(line, ())} & self._took.keys()
        files = tuple(f"tests/test_{name}.py" for name in MODULES[mutant.module])
        # What reaches no line at all here starts programs, and nobody knows what they reach.
        own = {name for name in names | self._elsewhere if name.startswith(files)}
        return [*self._quickest(own, _OF_OWN), *self._quickest(names - own, _OF_OTHERS)]

    def _quickest(self, names: set[str], at_most: float) -> Iterator[str]:
        spent = 0.0
        for name in sorted(names, key=self._took.__getitem__):
            spent += self._took[name]
            if spent > at_most:
                return
            yield name

    def _tried(self, mutant: Mutant) -> str:
        path = Path("healthmw", f"{mutant.module}.py")
        original = path.read_text(encoding="utf-8")
        with mutant.made() as tree:
            path.write_text(ast.unparse(tree), encoding="utf-8")
            code = compile(tree, str(path.resolve()), "exec")
        tests = self._tests(mutant)
        try:
            new = None if mutant.function is None else _find(code, *mutant.function)
            functions = self._functions.get((mutant.module, *(mutant.function or ("", 0))), [])
            if new is None or any(one.__code__.co_freevars != new.co_freevars for one in functions):
                return self._tried_anew(tests)
            if not tests or not functions:
                return "unreached"
            pid = os.fork()
            if not pid:
                _quiet()
                for function in functions:
                    function.__code__ = new
                self._run(tests)
            _, status = os.waitpid(pid, 0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            if os.WIFSIGNALED(status):
                return "hung" if os.WTERMSIG(status) == signal.SIGALRM else "killed"
            return "killed" if os.WEXITSTATUS(status) else "survived"
        finally:
            path.write_text(original, encoding="utf-8")

    def _run(self, tests: list[str]) -> None:
        """Run `tests` in this process, which ends with the first that fails or hangs."""
        ended = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            items = [self._items[name] for name in tests]
            for item, following in zip(items, [*items[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_REAL, 5 + 5 * self._took[item.nodeid])
                if _failed(item, following):
                    return
            ended = 0
        finally:
            os._exit(ended)

    def _tried_anew(self, tests: list[str]) -> str:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        limit = 120 + 10 * sum(self._took[name] for name in tests)
        for _ in range(2):  # on a busy machine one in so many tests may fail by chance
            try:
                run = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=limit,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return "hung"
            if run.returncode == 0:
                return "survived"
        return "killed"


def _quiet() -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _failed(item: pytest.Item, following: pytest.Item | None) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _find(code: CodeType, name: str, line: int) -> CodeType | None:
    """Return the code of a function in a module's."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_qualname == name and part.co_firstlineno == line:
                return part
            if name.startswith(f"{part.co_qualname}.") and (found := _find(part, name, line)):
                return found
    return None


def _in_copy(chosen: argparse.Namespace) -> None:
    own = {name for module in chosen.modules for name in MODULES[module]}
    files = [
        f"tests/test_{name}.py" for name in sorted(own if chosen.own else own.union(OTHER_TESTS))
    ]
    if not chosen.own:
        files += [f"tests/abuse/{name}.py" for name in ABUSE]
    trials = Trials(chosen)
    ended = pytest.main(["-s", "-q", "-p", "no:cacheprovider", *files], plugins=[trials])
    if ended != pytest.ExitCode.OK:
        sys.exit(int(ended))


def _in_part(chosen: argparse.Namespace) -> bool:
    """Tell whether it is for a look only, and nothing to be kept."""
    return bool(chosen.only or (chosen.own and not chosen.again))


def main() -> None:
    """Make a copy, and try the mutants in it."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    options.add_argument("modules", nargs="*", default=[*MODULES], help="which modules to change")
    options.add_argument("--only", default="", help="those with this in their names")
    options.add_argument("--own", action="store_true", help="ask the modules' own tests only")
    options.add_argument(
        "--again", action="store_true", help="only what survived and has no reason yet"
    )
    options.add_argument("--result", type=Path, help=argparse.SUPPRESS)  # for the one in the copy
    chosen = options.parse_args()
    if chosen.result:
        _in_copy(chosen)
        return
    with tempfile.TemporaryDirectory(prefix="healthmw-mutants-") as name:
        folder = Path(name)
        for part in ("healthmw", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        command = [sys.executable, "-m", "tests.abuse.mutants", *sys.argv[1:]]
        # Hypothesis's examples are the same each time, as in CI; bytecode of a mutant is not kept.
        environment = os.environ | {"CI": "true", "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            [*command, "--result", str(RESULT)], cwd=folder, env=environment, check=False
        )
    if run.returncode:
        sys.exit(run.returncode)
    if not _in_part(chosen):
        mutants_page.main()


if __name__ == "__main__":
    main()
