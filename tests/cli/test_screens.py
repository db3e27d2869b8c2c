"""docs/screens.py, which makes the pictures of the command line, still works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.programs import program

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"


def test_a_picture_of_a_wait_can_be_made_anew(tmp_path: Path) -> None:
    program("tmux", package="tmux")
    source = (
        "import sys; from pathlib import Path; import screens; screens.main(Path(sys.argv.pop()))"
    )
    subprocess.run(
        [sys.executable, "-c", source, "wait", tmp_path],
        cwd=ROOT / "docs",
        check=True,
        timeout=150,
    )
    shown = words(tmp_path / "wait.svg")
    assert "all 2 targets are well after" in shown
    assert "the worker works" in shown
    assert "200 OKAY, but from release v42, not v43" in shown


def test_the_pictures_need_nothing_from_outside() -> None:
    for name, word in {"smoke": "PASSED", "wait": "OKAY", "watch": "breaker"}.items():
        picture = IMAGES / f"{name}.svg"
        assert word in words(picture)
        assert not re.search(r"url\((?!#)|href|@import", picture.read_text(encoding="utf-8"))


def words(picture: Path) -> str:
    """Return the text that a picture shows."""
    found = ET.parse(picture).getroot().itertext()  # noqa: S314 - our own file
    return "".join(found).replace("\N{NO-BREAK SPACE}", " ")
