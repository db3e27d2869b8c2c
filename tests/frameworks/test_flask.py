from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask
from flask_sqlalchemy import SQLAlchemy

from healthmw import CircuitBreaker, DependencyUnavailable, Health
from healthmw.flask import HealthMW, require
from healthmw.testing import ManualClock, ScriptedProbe

if TYPE_CHECKING:
    from pathlib import Path

GONE = OSError("gone")


def test_an_app_with_the_extension_answers() -> None:
    app = Flask(__name__)
    extension = HealthMW(max_age=0)
    extension.add("database", ScriptedProbe(None, GONE))
    extension.init_app(app)
    client = app.test_client()
    assert client.get("/health_check").data == b"OKAY"
    failed = client.get("/health_check")
    assert (failed.status_code, failed.data) == (503, b"FAILED: database (failed)")
    assert client.get("/").status_code == 404


def test_each_app_of_a_factory_has_its_own_health() -> None:
    extension = HealthMW()

    @extension.probe("disk", critical=False)
    def disk() -> None:
        return None

    apps = [Flask("one"), Flask("two")]
    healths = [extension.init_app(app) for app in apps]
    assert healths[0] is not healths[1]
    assert [app.extensions["healthmw"] for app in apps] == healths
    assert [list(health.checks) for health in healths] == [["disk"], ["disk"]]
    assert not healths[0].checks["disk"].critical
    assert disk() is None
    forgetful: Any = extension
    with pytest.raises(TypeError, match=r"^name must be a str, not function$"):
        forgetful.probe(disk)


def test_options_come_from_the_config_first() -> None:
    app = Flask(__name__)
    app.config["HEALTHMW"] = {"path": "/up", "release": "v7"}
    extension = HealthMW(path="/health", show="summary")
    extension.add("database", ScriptedProbe(GONE))
    extension.init_app(app)
    answer = app.test_client().get("/up")
    assert (answer.data, answer.headers["Health-Release"]) == (b"FAILED", "v7")


def test_a_health_of_ones_own() -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    app = Flask(__name__)
    HealthMW(app, health=health)
    assert app.extensions["healthmw"] is health
    with pytest.raises(ValueError, match="has its Health already"):
        HealthMW(app, health=health)
    with pytest.raises(ValueError, match="max_age= must be given to it"):
        HealthMW(Flask(__name__), health=health, max_age=2)


def test_an_app_that_was_refused_for_its_options_can_be_tried_again() -> None:
    app = Flask(__name__)
    with pytest.raises(ValueError, match="must begin with '/'"):
        HealthMW(app, path="up")
    HealthMW(app, path="/up")
    assert app.test_client().get("/up").status_code == 503


def test_engines_of_flask_sqlalchemy_are_found(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/main.db"
    app.config["SQLALCHEMY_BINDS"] = {"reports": f"sqlite:///{tmp_path}/reports.db"}
    db = SQLAlchemy(app)
    with app.app_context():
        for engine in db.engines.values():
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE t (id INTEGER)")
    health = HealthMW().init_app(app)
    assert sorted(health.checks) == ["database", "database.reports"]
    client = app.test_client()
    assert client.get("/health_check").data == b"OKAY"
    (tmp_path / "reports.db").unlink()
    assert client.get("/health_check/database").data == b"OKAY"
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()
    assert not health.run_sync("database.reports", fresh=True).ok


def test_a_check_of_the_same_name_is_the_apps_own(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/main.db"
    SQLAlchemy(app)
    extension, probe = HealthMW(), ScriptedProbe()
    extension.add("database", probe)
    assert extension.init_app(app).checks["database"].probe is probe


def with_database(uri: str) -> Flask:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = uri
    SQLAlchemy(app)
    return app


def test_apps_of_a_factory_may_have_one_health_in_common() -> None:
    health = Health()
    extension = HealthMW(health=health)
    extension.add("disk", ScriptedProbe())
    for _ in range(2):
        assert extension.init_app(with_database("sqlite://")) is health
    extension.add("cache", ScriptedProbe())
    assert sorted(health.checks) == ["cache", "database", "disk"]


def test_one_health_does_not_answer_for_two_databases(tmp_path: Path) -> None:
    """The second app's would be a pass because nobody asked it."""
    health = Health()
    HealthMW(with_database("sqlite://"), health=health)
    other = with_database(f"sqlite:///{tmp_path}/gone.db")
    with pytest.raises(ValueError, match=r"'database' .* another app: give each .* of its own"):
        HealthMW(other, health=health)
    assert not HealthMW().init_app(other).run_sync().ok


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("option", ["foo", 1])
def test_an_option_that_does_not_exist_is_named(option: object, own: bool) -> None:
    app = Flask(__name__)
    app.config["HEALTHMW"] = {option: 2}
    with pytest.raises(ValueError, match=rf"no option {option!r}, only release, .*, path, show"):
        HealthMW(app, health=Health() if own else None)


def shop() -> Flask:
    app = Flask(__name__)

    @app.get("/pay")
    def pay() -> str:
        raise DependencyUnavailable("payments", retry_after=7)

    return app


def test_an_unavailable_dependency_is_answered() -> None:
    app = shop()
    HealthMW(app)
    answer = app.test_client().get("/pay")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert b"payments" not in answer.data


@pytest.mark.parametrize("by", ["name", "check"])
def test_a_view_does_not_run_while_what_it_requires_is_unavailable(by: str) -> None:
    health, handled = Health(clock=ManualClock()), []
    breaker = CircuitBreaker(consecutive_failures=1, open_for=7, jitter=0)
    payments = health.add("payments", ScriptedProbe(), critical=False, breaker=breaker)
    app = Flask(__name__)

    @app.get("/pay/<int:number>")
    @require("payments" if by == "name" else payments)
    def pay(number: int) -> str:
        handled.append(number)
        return "paid"

    @app.get("/later")
    @require("payments")
    async def later() -> str:
        return "will be paid"

    HealthMW(app, health=health)
    client = app.test_client()
    assert client.get("/pay/1").text == "paid"
    assert client.get("/later").text == "will be paid"

    permit = breaker.try_acquire()
    assert permit is not None
    permit.failure()
    for path in ("/pay/2", "/later"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    breaker.reset()
    assert client.get("/pay/3").status_code == 200
    assert handled == [1, 3]


def test_what_is_required_is_a_check_or_the_name_of_one() -> None:
    forgotten: Any = lambda: "paid"  # noqa: E731 - the view under a bare `@require`
    with pytest.raises(ValueError, match="check must be a check or the name of one"):
        require(forgotten)


def test_a_check_can_be_required_where_there_is_no_extension() -> None:
    payments = Health().add("payments", ScriptedProbe(), breaker=CircuitBreaker())
    app = Flask(__name__)
    app.testing = True  # what is raised comes out

    @app.get("/pay")
    @require(payments)
    def pay() -> str:
        return "paid"

    @app.get("/ship")
    @require("mail")
    def ship() -> str:
        return "shipped"

    client = app.test_client()
    assert client.get("/pay").text == "paid"
    with pytest.raises(RuntimeError, match=r"require\('mail'\) needs HealthMW\(app\)"):
        client.get("/ship")


def test_a_blueprint_can_require_it_for_all_of_its_views() -> None:
    checkout = Blueprint("checkout", __name__)

    @checkout.before_request
    @require("payments")
    def before() -> None: ...

    @checkout.get("/pay")
    def pay() -> str:
        return "paid"

    healthmw = HealthMW()
    breakers = [CircuitBreaker(), CircuitBreaker()]
    clients = []
    for breaker in breakers:
        app = Flask(__name__)
        app.register_blueprint(checkout)
        healthmw.init_app(app).add("payments", ScriptedProbe(), breaker=breaker)
        clients.append(app.test_client())
    breakers[0].force_open()
    assert [client.get("/pay").status_code for client in clients] == [503, 200]


@pytest.mark.parametrize("first", ["the extension", "the handler"])
def test_the_apps_own_handler_comes_first(first: str) -> None:
    app = shop()
    if first == "the extension":
        HealthMW(app)

    @app.errorhandler(DependencyUnavailable)
    def ours(error: DependencyUnavailable) -> tuple[str, int]:
        return f"sorry, no {error.name}", 503

    if first == "the handler":
        HealthMW(app)
    assert app.test_client().get("/pay").data == b"sorry, no payments"


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        ([], 1, "FAILED: database (failed)\n"),
        (["--group", "live"], 0, "OKAY\n"),
        (["--group", "cache"], 0, "OKAY\n"),
        (["--verbose"], 1, "[-] database failed"),
        (["--group", "no_such"], 2, "no group or check 'no_such'"),
    ],
)
def test_the_command(arguments: list[str], code: int, shown: str) -> None:
    app = Flask(__name__)
    extension = HealthMW()
    extension.add("database", ScriptedProbe(GONE))
    extension.add("cache", ScriptedProbe())
    extension.init_app(app)
    result = app.test_cli_runner().invoke(args=["health-check", *arguments])
    assert (result.exit_code, shown in result.output) == (code, True), result.output


def test_what_is_added_after_an_app_was_initialised_is_checked_all_the_same() -> None:
    """It would be a pass because nothing was asked."""
    app, own = Flask("one"), Health(max_age=0)
    extension = HealthMW(app, max_age=0)
    second = HealthMW(Flask("two"), health=own)
    extension.add("database", ScriptedProbe(GONE))

    @second.probe("disk")
    def disk() -> None:
        return None

    assert app.test_client().get("/health_check").data == b"FAILED: database (failed)"
    assert list(own.checks) == ["disk"]
