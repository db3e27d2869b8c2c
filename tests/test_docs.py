from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs_page import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
RUNNER = Path(__file__).with_name("docs_page.py")
PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if "_build" not in path.parts
)


# Its import of setuptools' pkg_resources, which newer versions of that warn of.
_PYRAMIDS = "ignore:pkg_resources is deprecated:UserWarning"


def pages_with(language: str) -> pytest.MarkDecorator:
    chosen = [page for page in PAGES if any(block.language == language for block in blocks(page))]
    return each(chosen)


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "page", pages, ids=[str(page.relative_to(ROOT)) for page in pages]
    )


@pages_with("python")
def test_the_python_of_a_page_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-W", _PYRAMIDS, RUNNER, page],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_python_of_all_pages_passes_the_type_checker(tmp_path: Path) -> None:
    for page in PAGES:
        shown = [block for block in blocks(page) if block.language == "python"]
        # A block that isn't run stands for itself: it may lean on names that it doesn't show.
        lines: list[str] = []
        for block in shown:
            if block.run:
                lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
        tmp_path.joinpath(f"{name}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--config-file=",
            f"--cache-dir={ROOT / '.mypy_cache/docs'}",
            "--check-untyped-defs", "--ignore-missing-imports",
            # Blocks build upon one another; `await` at the top level stands for the reader's code.
            "--allow-redefinition", "--disable-error-code=no-redef",
            "--disable-error-code=top-level-await", ".",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_data_on_the_pages_can_be_read() -> None:
    readers = {"json": json.loads, "toml": tomllib.loads}
    for page in PAGES:
        for block in blocks(page):
            if block.run and block.language in readers:
                readers[block.language](block.code)


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command on a page: what stands after a `$ `, up to the end of the line."""
    for block in blocks(page):
        if block.language == "console":
            code = block.code.replace("\\\n", " ")
            for line in re.findall(r"^\$ (.*)$", code, flags=re.MULTILINE):
                yield shlex.split(line, comments=True)


def help_of(*words: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "healthmw", *words, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"healthmw {' '.join(words)} --help: {run.stderr}"
    return run.stdout


@pages_with("console")
def test_commands_on_a_page_exist_and_so_do_their_options(page: Path) -> None:
    makefile = ROOT.joinpath("Makefile").read_text(encoding="utf-8")
    for words in commands(page):
        if words[0] == "make":
            for target in words[1:]:
                assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), target
        if words[0] == "healthmw" and not words[1].startswith("-"):
            ours = words[2 : words.index("--")] if "--" in words else words[2:]
            described = help_of(words[1])
            for option in ours:
                if option.startswith("--"):
                    assert option.partition("=")[0] in described, f"{words}: {option}"


@pages_with("console")
def test_what_a_shell_would_read_as_a_pattern_is_quoted(page: Path) -> None:
    # zsh refuses a line with a pattern that no file matches: `curl http://localhost/?verbose`.
    for block in blocks(page):
        if block.language == "console":
            bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "", block.code)
            assert not re.search(r"^\$ .*://\S*[?&]", bare, re.MULTILINE), block.code


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what `#...` may name on a page: its headings, as GitHub and MyST do it, and labels."""
    text = without_code(page)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).lower() for one in headings)
    named = {re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain}
    return named | set(re.findall(r"^\(([\w-]+)\)=$", text, flags=re.MULTILINE))


@each(PAGES)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        there = page.parent.joinpath(target) if target else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            # Sphinx knows labels from all pages: `[](#label)` is checked by `make docs`.
            elsewhere = not target and page.is_relative_to(ROOT / "docs")
            assert elsewhere or anchor[1:] in anchors(there), target + anchor


def test_links_of_the_changelog_lead_somewhere_from_both_its_places() -> None:
    # `towncrier build` moves the fragments into CHANGELOG.md, which a page of the docs includes.
    page = ROOT.joinpath("docs/reference/changelog.md").read_text(encoding="utf-8")
    rewritten = re.search(r"^:relative-docs: (\S+)$", page, re.MULTILINE)
    assert rewritten, "Sphinx looks for the links where the page is"
    found = 0
    for text in [ROOT / "CHANGELOG.md", *ROOT.glob("changelog.d/*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(text)):
            if not re.match(r"[a-z]+:", target):
                found += 1
                assert target.startswith(rewritten[1]), f"{text.name}: {target}"
                assert ROOT.joinpath(target).exists(), f"{text.name}: {target}"
    assert found


def test_anchors_are_found_as_they_are_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# What `it` does, [here](x.md)\n\n(label)=\n## A/B\n\n```sh\n# no\n```\n")
    assert anchors(page) == {"what-it-does-here", "label", "ab"}
    page.write_text("# One\n\n[x](#two)\n")
    with pytest.raises(AssertionError, match="#two"):
        test_links_between_files_lead_somewhere(page)


def test_a_page_is_read_as_the_runner_says(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- run first:\nx = 1\n-->\n\n1. text\n\n   ```python\n   y = x\n   ```\n\n"
        "<!-- no-run: it would fail -->\n\n```python\n1 / 0\n```\n\n```text\nx\n```\n",
        encoding="utf-8",
    )
    read = blocks(page)
    assert [(one.language, one.code, one.run) for one in read] == [
        ("python", "x = 1\n", True),
        ("python", "y = x\n", True),
        ("python", "1 / 0\n", False),
        ("text", "x\n", True),
    ]
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [lines[one.line - 1].strip() for one in read[1:]] == ["y = x", "1 / 0", "x"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```python\n\nassert False\n```\n", 'page.md", line 3'),
        ("<!-- no-run: why -->\n```python\ndef (\n```\n", "SyntaxError"),
        ("```python\nimport asyncio\nawait asyncio.sleep(0)\n1 / 0\n```\n", 'page.md", line 4'),
        ("```python\n# lib/app.py\nx = 1\n```\n```python\nfrom lib.app import y\n```", "'lib.app'"),
        ("```python\nimport warnings; warnings.warn('old', DeprecationWarning)\n```", "old"),
    ],
)
def test_a_page_that_says_what_is_not_so_fails(tmp_path: Path, text: str, told: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError, match=re.escape(told)):
        test_the_python_of_a_page_does_what_the_page_says(page, tmp_path)
