"""Drives the endpoint's fuzz test by coverage: `make fuzz`, or `make fuzz RUNS=1000`.

What is sent grows out of what has taken a new way through healthmw's code before (atheris, which is
libFuzzer). Usage: `python -m tests.fuzz_by_coverage asgi|wsgi RUNS`.
"""

from __future__ import annotations

import sys
from typing import Any

import atheris
from hypothesis import given

with atheris.instrument_imports(include=["healthmw"]):
    from tests import test_fuzz

TRANSPORT, RUNS = sys.argv[1:]
TESTED: Any = test_fuzz.test_nothing_that_is_sent_does_harm


@given(**test_fuzz.SENT)
def no_harm(**sent: Any) -> None:
    TESTED.hypothesis.inner_test(TRANSPORT, **sent)


if __name__ == "__main__":
    test_fuzz.run_everything()
    fuzzed: Any = no_harm
    atheris.Setup(
        [sys.argv[0], f"-runs={RUNS}", "-max_len=8192", "-len_control=0"],
        fuzzed.hypothesis.fuzz_one_input,
    )
    atheris.Fuzz()
