"""Which checks and groups there are, by name, and which check is in which group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from healthmw._check import BUILTIN_GROUPS
from healthmw._groups import DEFAULT_CODES, Group, merged_codes
from healthmw._model import Reason, Status, worst
from healthmw._options import name_of, names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from healthmw._check import Check
    from healthmw._model import Result
    from healthmw._runner import Runner

_BUILTIN_CODES: Mapping[str, Mapping[Status, int]] = {"release": {Status.DEGRADED: 503}}


class Registry:
    """The runners of the checks, and the groups. Who changes it holds a lock of its own."""

    def __init__(self) -> None:
        self.runners: dict[str, Runner] = {}
        """By the check's name, in the order of registration."""
        self.groups: dict[str, Group] = {
            name: Group(name=name, codes=merged_codes(DEFAULT_CODES, _BUILTIN_CODES.get(name)))
            for name in BUILTIN_GROUPS
        }

    def admit(self, check: Check) -> None:
        """Raise `ValueError` if the name of `check` is taken, or a group of its is unknown."""
        self._check_unused(check.name)
        for group in sorted(check.groups - self.groups.keys()):
            known = ", ".join(self.groups)
            raise ValueError(
                f"groups: there is no group {group!r}, only {known}; "
                f"define your own first: health.group({group!r})"
            )

    def define(
        self,
        name: str,
        checks: Iterable[str],
        codes: Mapping[Status, int] | Mapping[str, int] | None,
    ) -> None:
        """Add a group, or lay `checks` and `codes` over those of one that there is."""
        members = names("checks", checks)
        if name in BUILTIN_GROUPS:
            if members and name != "live":
                raise ValueError(f"checks: the members of {name!r} are given; leave it out")
        else:
            name_of("name", name)
            self._check_unused(name)
        old = self.groups.get(name, Group(name=name, codes=DEFAULT_CODES))
        group = replace(old, codes=merged_codes(old.codes, codes), checks=old.checks | members)
        # Other threads may be looking at those there are.
        self.groups = {**self.groups, name: group}

    def _check_unused(self, name: str) -> None:
        if name in BUILTIN_GROUPS:
            raise ValueError(f"name={name!r} is reserved: it is a built-in group; choose another")
        if name in self.groups:
            raise ValueError(f"name={name!r} is taken by a group; choose another")
        if name in self.runners:
            raise ValueError(f"name={name!r} is taken: a check of that name is registered already")

    def validate(self) -> None:
        """Raise `ValueError` for a group of the user's own that names nothing."""
        for group in self.groups.values():
            unknown = sorted(group.checks - self.runners.keys())
            if unknown:
                raise ValueError(f"group {group.name!r} names {unknown[0]!r}, which is no check")
            if group.name not in BUILTIN_GROUPS and not self.members(group.name):
                raise ValueError(
                    f"group {group.name!r} has no checks, so it could never pass: "
                    f"name some (checks=), or put some in it (groups=[{group.name!r}])"
                )

    def members(self, group: str) -> list[Runner]:
        """Return the runners of `group`, or the one of the check of that name."""
        defined = self.groups.get(group)
        if defined is not None:
            return [r for r in self.runners.values() if defined.has(r.check)]
        if group in self.runners:
            return [self.runners[group]]
        known = ", ".join([*self.groups, *self.runners])
        raise ValueError(f"there is no group or check {group!r}, only {known}")

    def chosen(self, group: str, only: Collection[str] | None) -> list[Runner]:
        """Return those of the members that `only` names; all of them if it is None."""
        members = self.members(group)
        if only is None:
            return members
        wanted = names("only", only)
        chosen = [runner for runner in members if runner.check.name in wanted]
        if not chosen or len(chosen) < len(wanted):
            known = ", ".join(runner.check.name for runner in members)
            raise ValueError(f"only={sorted(wanted)!r} must name checks of {group!r}: {known}")
        return chosen

    def verdict(
        self, group: str, results: Mapping[str, Result]
    ) -> tuple[Status, Reason | None, Mapping[Status, int]]:
        """Return the status of `group` by its `results`, why if they don't tell, and its codes."""
        defined = self.groups.get(group)
        if defined is None:
            return results[group].status, None, DEFAULT_CODES
        if not results and group == "live" and not defined.checks:
            return Status.OKAY, None, defined.codes
        if not results or not defined.checks <= self.runners.keys():
            return Status.UNKNOWN, Reason.NO_CHECKS, defined.codes
        return (
            worst((r.counted for r in results.values()), empty=Status.UNKNOWN),
            None,
            defined.codes,
        )
