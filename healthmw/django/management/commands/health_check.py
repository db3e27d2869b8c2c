"""`manage.py health_check`: run the checks once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from django.core.management.base import BaseCommand

from healthmw._answers import answer
from healthmw._facts import view
from healthmw._negotiate import Format
from healthmw._view import Level
from healthmw.django._settings import project_health

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ("Command",)


class Command(BaseCommand):
    """Exits with 0 when all is well, 1 when it is not, and 2 when nothing has the name given."""

    help = "Run the health checks once: exit 0 when well, 1 when not, 2 for a name that is unknown."
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take `--group` and `--format`."""
        parser.add_argument("--group", default="ready", help="a group or check (default: ready)")
        parser.add_argument("--format", choices=["text", "json"], default="text")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run and print."""
        health = project_health()
        try:
            report = health.run_sync(options["group"], fresh=True)
        except ValueError as exc:
            self.stderr.write(str(exc))
            sys.exit(2)
        form = Format.JSON if options["format"] == "json" else Format.VERBOSE
        if form is Format.VERBOSE and options["verbosity"] == 0:
            form = Format.TEXT
        body = answer(view(health, report, Level.FULL), form)[2]
        self.stdout.write(body.decode().rstrip("\n"))
        sys.exit(0 if report.ok else 1)
