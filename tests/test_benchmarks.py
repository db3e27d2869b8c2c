"""The page of the benchmarks says what was measured: its figures are not typed in."""

from __future__ import annotations

from benchmarks.page import GOALS, PAGE, SECTIONS, committed, page


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(committed())


def test_every_benchmark_with_a_goal_has_results_and_words() -> None:
    results = committed()
    assert {goal.of for goal in GOALS} <= results.keys()
    assert {goal.of for goal in GOALS} <= SECTIONS.keys()
    assert not any(result["quick"] for result in results.values())
