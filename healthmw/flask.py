"""Flask: an extension that mounts the endpoint, finds the database and adds a command."""

from __future__ import annotations

import functools
import weakref
from inspect import signature
from typing import TYPE_CHECKING, Any

from healthmw._check import Check
from healthmw._health import Health
from healthmw._options import WrongTypeError, name_of
from healthmw._response import unavailable
from healthmw.exceptions import DependencyUnavailable, MissingExtraError
from healthmw.render import text
from healthmw.wsgi import HealthMiddleware

try:
    import click
    from flask import Response, current_app, request
except ImportError as _exc:
    raise MissingExtraError("healthmw.flask", extra="flask") from _exc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ParamSpec, TypeVar

    from flask import Flask
    from sqlalchemy import URL, Engine

    P = TypeVar("P", bound=Callable[[], Any])
    V = ParamSpec("V")
    R = TypeVar("R")

__all__ = ("HealthMW", "require")

_MIDDLEWARE_OPTIONS = ("path", "show", "authorize", "drain_delay")

_FOUND: weakref.WeakKeyDictionary[Health, dict[str, URL]] = weakref.WeakKeyDictionary()
"""The databases of Flask-SQLAlchemy's that a `Health` has checks of, by the checks' names."""


class HealthMW:
    """The extension: `HealthMW(app)`, or `init_app(app)` in an application factory.

    Each app gets a `Health` of its own, `app.extensions["healthmw"]`, unless `health` is given.
    `options` are those of `Health` and of `HealthMiddleware`; those in `app.config["HEALTHMW"]`, a
    dict, come before them.

    What `add` and `probe` register is part of every app, be it initialised before or after. Where
    Flask-SQLAlchemy was initialised before, its engine becomes the check `database`, and those of
    its binds `database.<bind>`, unless checks have these names already. Apps with databases of
    their own want a `Health` each.

    A `DependencyUnavailable` is answered by 503, with `Retry-After` where it is known when to try
    again, unless the app has an error handler of its own for it. Adds the command
    `flask health-check`.
    """

    def __init__(
        self, app: Flask | None = None, *, health: Health | None = None, **options: Any
    ) -> None:
        self._health = health
        self._options = options
        self._registered: list[tuple[str, Callable[[], Any], dict[str, Any]]] = []
        self._given: weakref.WeakSet[Health] = weakref.WeakSet()
        if app is not None:
            self.init_app(app)

    def add(self, name: str, probe: Callable[[], Any], **policy: Any) -> None:
        """Register `probe` for every app of this extension. The policy is that of `Health.add`."""
        for health in self._given:
            health.add(name, probe, **policy)
        self._registered.append((name, probe, policy))

    def probe(self, name: str, **policy: Any) -> Callable[[P], P]:
        """Register the decorated function as `add` does, and return it unchanged."""
        name_of("name", name)  # here: without it, `@extension.probe` would register nothing

        def register(probe: P) -> P:
            self.add(name, probe, **policy)
            return probe

        return register

    def init_app(self, app: Flask) -> Health:
        """Make `app` answer, and return its `Health`.

        Raises `ValueError` for an app that has one already, and for options that make no sense.
        """
        if "healthmw" in app.extensions:
            raise ValueError("this app has its Health already: app.extensions['healthmw']")
        options = self._options_of(app)
        mounting = {name: options.pop(name) for name in _MIDDLEWARE_OPTIONS if name in options}
        if self._health is not None and options:
            raise ValueError(f"health= is given, so {min(options)}= must be given to it")
        health = self._health or Health(**options)
        if health not in self._given:
            for name, probe, policy in self._registered:
                health.add(name, probe, **policy)
            self._given.add(health)
        _add_databases(health, app)
        # Flask's own way to wrap an app: what is put here runs before any of Flask's handling.
        app.wsgi_app = HealthMiddleware(app.wsgi_app, health, **mounting)  # type: ignore[method-assign]
        app.extensions["healthmw"] = health
        if DependencyUnavailable not in app.error_handler_spec[None][None]:
            app.register_error_handler(DependencyUnavailable, _answer_unavailable)
        app.cli.add_command(_command(health))
        return health

    def _options_of(self, app: Flask) -> dict[str, Any]:
        configured = app.config.get("HEALTHMW", {})
        if not isinstance(configured, dict):
            raise WrongTypeError(
                f"app.config['HEALTHMW'] must be a dict, not {type(configured).__name__}"
            )
        options: dict[str, Any] = {**self._options, **configured}
        known = [*signature(Health).parameters, *_MIDDLEWARE_OPTIONS]
        for option in options:
            if option not in known:
                raise ValueError(f"HEALTHMW: no option {option!r}, only {', '.join(known)}")
        return options


def require(check: Check | str) -> Callable[[Callable[V, R]], Callable[V, R]]:
    """Decorate a view that is not to run while `check` is not available.

        @app.post("/orders")
        @require("payments")

    It isn't while its circuit is open, or its last verdict is FAILED. A name means the check of the
    app that serves the request, as a blueprint needs it. What is raised is a
    `DependencyUnavailable`: 503, with `Retry-After` where it is known when to try again, unless the
    app has an error handler of its own for it. A name that is no check's raises `ValueError` then,
    and what is no name and no check at once.
    """
    if not isinstance(check, Check | str):  # `@require` without a check: it would wrap nothing
        raise WrongTypeError(f"check must be a check or the name of one, not {check!r}")

    def decorate(view: Callable[V, R]) -> Callable[V, R]:
        @functools.wraps(view)
        def required(*args: V.args, **kwargs: V.kwargs) -> R:
            found = _check_of_app(check) if isinstance(check, str) else check
            if not found.available:
                raise DependencyUnavailable(found.name, found.retry_after)
            answer: R = current_app.ensure_sync(view)(*args, **kwargs)  # it may be async
            return answer

        return required

    return decorate


def _check_of_app(name: str) -> Check:
    health: Health | None = current_app.extensions.get("healthmw")
    if health is None:
        raise RuntimeError(f"require({name!r}) needs HealthMW(app): whose check is meant?")
    return health.check(name)


def _answer_unavailable(error: DependencyUnavailable) -> Response:
    answer = unavailable(error, request.method)
    return Response(answer.body, answer.status, dict(answer.headers))


def _add_databases(health: Health, app: Flask) -> None:
    """Have `health` check the databases of `app`, as far as their names are not taken."""
    engines, found = _engines(app), _FOUND.setdefault(health, {})
    for name, engine in engines.items():
        if found.get(name, engine.url) != engine.url:
            raise ValueError(
                f"the check {name!r} of this Health is of the database of another app: "
                "give each app a Health of its own"
            )
    for name, engine in engines.items():
        if name not in health:
            from healthmw.probes import SQLAlchemyProbe

            health.add(name, SQLAlchemyProbe(engine))
            found[name] = engine.url


def _engines(app: Flask) -> Mapping[str, Engine]:
    """Return each engine of Flask-SQLAlchemy's, by the name that its check has."""
    extension = app.extensions.get("sqlalchemy")
    if extension is None:
        return {}
    with app.app_context():
        engines = dict(extension.engines)
    return {
        "database" if bind is None else f"database.{bind}": engine
        for bind, engine in engines.items()
    }


def _command(health: Health) -> click.Command:
    @click.command("health-check")
    @click.option("--group", default="ready", show_default=True, help="Group or check to run.")
    @click.option("--verbose", is_flag=True, help="One line for each check.")
    @click.pass_context
    def health_check(context: click.Context, group: str, *, verbose: bool) -> None:
        """Run the checks once: exit with 0 when all is well, 1 when not, 2 for a wrong name."""
        try:
            report = health.run_sync(group, fresh=True)
        except ValueError as exc:
            click.echo(str(exc), err=True)
            context.exit(2)
        shown = text.render_verbose(report, details=True) if verbose else text.render(report)
        click.echo(shown.rstrip("\n"))
        context.exit(0 if report.ok else 1)

    return health_check
