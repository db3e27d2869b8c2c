"""Packages of others, as pip would install them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, scheme: str, source: str) -> None:
    """Put a package with a class `Probe` into `folder`, registered for URLs of `scheme`."""
    module = f"plugin_{scheme}"
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    entry = f"[healthmw.probes]\n{scheme} = {module}:Probe\n"
    (about / "entry_points.txt").write_text(entry)
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
