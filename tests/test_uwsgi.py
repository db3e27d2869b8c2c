"""uWSGI's peculiarities; tests/servers/matrix.py has the server itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from healthmw import Health, wsgi


def test_a_uwsgi_that_runs_no_threads_is_refused_and_told_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(has_threads=0))
    with pytest.raises(RuntimeError, match="start it with --enable-threads"):
        wsgi.HealthMiddleware(lambda *_: [], Health())
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(has_threads=1))
    wsgi.HealthMiddleware(lambda *_: [], Health())
