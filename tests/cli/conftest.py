from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.servers import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.delenv("HEALTHMW_SMOKE", raising=False)
    monkeypatch.chdir(tmp_path)
    bench = Bench(folder=tmp_path, capsys=capsys)
    yield bench
    # Whatever a test is about: no server and no child of one outlives it.
    assert bench.processes() == []
