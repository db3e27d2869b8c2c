"""The page of the mutants says what was found, and each that was not noticed has its reason."""

from __future__ import annotations

import ast

from tests.abuse.mutants import MODULES, Maker, mutants
from tests.abuse.mutants_page import PAGE, page, reasons, results

_SOURCE = """\
LIMIT = 5

class Door:
    def opens(self, key, twice=False):
        if not key or key < LIMIT:
            return None
        self.turned += 1
        return self.turned > 1
"""


def test_the_page_is_what_was_found() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(results(), reasons())


def test_all_was_tried_and_each_that_was_not_noticed_has_its_reason() -> None:
    assert results().keys() == MODULES.keys()
    found = {name for result in results().values() for name in result["survivors"]}
    assert found == reasons().keys()


def test_what_has_a_reason_is_still_there() -> None:
    # Who changes such a line has to ask again.
    made = {mutant.name for module in MODULES for mutant in mutants(module)}
    assert reasons().keys() <= made


def test_what_is_changed() -> None:
    assert [mutant.name for mutant in Maker("_door", _SOURCE).mutants] == [
        "_door |  | LIMIT = 5 → LIMIT = 6",
        "_door | Door.opens | twice=False → twice=True",
        "_door | Door.opens | if not key or key < LIMIT: → if not (not key or key < LIMIT):",
        "_door | Door.opens | if not key or key < LIMIT: → if not key and key < LIMIT:",
        "_door | Door.opens | if not key or key < LIMIT: → if not not key or key < LIMIT:",
        "_door | Door.opens | if not key or key < LIMIT: → if not key or key <= LIMIT:",
        "_door | Door.opens | self.turned += 1 → pass",
        "_door | Door.opens | self.turned += 1 → self.turned += 2",
        "_door | Door.opens | return self.turned > 1 → return None",
        "_door | Door.opens | return self.turned > 1 → return self.turned >= 1",
        "_door | Door.opens | return self.turned > 1 → return self.turned > 2",
    ]


def test_a_change_is_taken_back() -> None:
    (mutant, *_) = Maker("_door", _SOURCE).mutants
    with mutant.made() as tree:
        assert ast.unparse(tree).startswith("LIMIT = 6")
    assert ast.unparse(mutant.tree).startswith("LIMIT = 5")
