"""The recipes for load balancers: the real programs, with the page's own configuration."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from tests.programs import program, served
from tests.recipes.instances import Customers
from tests.recipes.pages import Daemon, documents, recipe
from tests.servers.boot import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.recipes.instances import Shop

PAGE = "load-balancers"
BOTH = ("one", "two")


class HAProxy(Daemon):
    """HAProxy by the recipe, looking more often, and with a page that tells what it thinks."""

    def __init__(self, one: str, two: str, folder: Path, free_port: Callable[[], int]) -> None:
        self._stats = free_port()
        port = free_port()
        swaps = {
            "bind :80": f"bind 127.0.0.1:{port}",
            "10.0.0.11:8000": one,
            "10.0.0.12:8000": two,
            "inter 2s": "inter 200ms",
        }
        stats = f"\nlisten stats\n    bind 127.0.0.1:{self._stats}\n    stats enable\n"
        config = folder / "haproxy.cfg"
        config.write_text(recipe(PAGE, "haproxy.cfg", swaps) + stats + "    stats uri /stats\n")
        command = [program("haproxy", package="haproxy"), "-db", "-f", str(config)]
        super().__init__(command, folder, port)

    def verdicts(self) -> dict[str, tuple[str, str]]:
        """Return of each server whether it gets requests, and what the last check was."""
        port, self.port = self.port, self._stats
        try:
            text = self.get("/stats;csv").body.decode()
        finally:
            self.port = port
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        return {
            row["svname"]: (row["status"].split()[0], row["check_status"])
            for row in rows
            if row["pxname"] == "shop" and row["svname"] in BOTH
        }

    def sees(self, **expected: str) -> None:
        """Wait until it holds each server for `UP` or `DOWN`, after having looked."""

        def seen() -> bool:
            verdicts = self.verdicts()
            return all(
                verdicts[name][0] == verdict and (verdict != "UP" or verdicts[name][1] == "L7OK")
                for name, verdict in expected.items()
            )

        eventually(seen, lambda: (self.verdicts(), self.tail()))


def test_haproxy_loses_no_request(
    shops: tuple[Shop, Shop], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    one, two = shops
    with (
        HAProxy(one.address, two.address, tmp_path, free_port) as haproxy,
        Customers(haproxy.port) as customers,
    ):
        haproxy.sees(one="UP", two="UP")
        customers.settle(on=BOTH)

        one.database.kill()
        haproxy.sees(one="DOWN", two="UP")
        customers.go_on(by=["two"])
        one.database.start()
        haproxy.sees(one="UP", two="UP")
        customers.settle(on=BOTH)

        assert two.get("/drain").status == 200
        haproxy.sees(one="UP", two="DOWN")
        customers.go_on(by=["one"])
        two.restart()  # a process that drains has no way back: a new one takes its place
        haproxy.sees(one="UP", two="UP")
        customers.settle(on=BOTH)

        one.restart()
        haproxy.sees(one="UP", two="UP")
        customers.settle(on=BOTH)
    assert customers.failed == []


def other_app(_environ: object, start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"It works!"]


def test_haproxy_sends_nothing_to_who_says_200_and_not_okay(
    well: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with (
        served(other_app) as port,
        HAProxy(f"127.0.0.1:{port}", well, tmp_path, free_port) as haproxy,
    ):
        haproxy.sees(one="DOWN", two="UP")
        assert haproxy.verdicts()["one"][1] == "L7RSP"


def nginx(one: str, two: str, folder: Path, port: int, fail_timeout: str = "10s") -> Daemon:
    """Return an nginx with the recipe as its only site."""
    swaps = {
        "10.0.0.11:8000": one,
        "10.0.0.12:8000": two,
        "listen 80": f"listen 127.0.0.1:{port}",
        "fail_timeout=10s": f"fail_timeout={fail_timeout}",
    }
    folder.joinpath("nginx.conf").write_text(
        "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
        + "".join(
            f"{kind}_temp_path {kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + recipe(PAGE, "nginx.conf", swaps)
        + "}\n"
    )
    command = [program("nginx", package="nginx-light"), "-p", f"{folder}/", "-c", "nginx.conf"]
    return Daemon([*command, "-e", "stderr"], folder, port)


def test_nginx_loses_no_page(
    shops: tuple[Shop, Shop], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    one, two = shops
    with (
        nginx(one.address, two.address, tmp_path, free_port(), fail_timeout="1s") as proxy,
        Customers(proxy.port) as customers,
    ):
        customers.settle(on=BOTH)

        one.database.kill()
        customers.go_on(by=["two"])
        one.database.start()
        customers.settle(on=BOTH)

        two.restart()
        customers.settle(on=BOTH)
    assert customers.failed == []


def test_nginx_repeats_no_form(
    shops: tuple[Shop, Shop], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    one, two = shops
    with nginx(one.address, two.address, tmp_path, free_port()) as proxy:
        one.database.kill()
        eventually(lambda: one.get("/").status == 503, one.tail)
        forms = [proxy.get("/", method="POST").status for _ in range(10)]
        assert sorted(forms) == [200] * 5 + [503] * 5
        pages = [proxy.get("/").status for _ in range(2)]  # one of them finds out
        forms = [proxy.get("/", method="POST").status for _ in range(10)]
        assert set(pages + forms) == {200}


def test_caddy_loses_no_request_to_a_restart_and_few_to_a_dead_database(
    shops: tuple[Shop, Shop], tmp_path: Path, free_port: Callable[[], int]
) -> None:
    one, two = shops
    port = free_port()
    swaps = {
        "shop.example.com": f"http://127.0.0.1:{port}",
        "10.0.0.11:8000": one.address,
        "10.0.0.12:8000": two.address,
        "health_interval 2s": "health_interval 200ms",
    }
    config = tmp_path / "Caddyfile"
    config.write_text("{\nadmin off\n}\n" + recipe(PAGE, "Caddyfile", swaps))
    command = [program("caddy", package="caddy"), "run", "--config", str(config)]
    with (
        Daemon([*command, "--adapter", "caddyfile"], tmp_path, port) as caddy,
        Customers(caddy.port) as customers,
    ):
        customers.settle(on=BOTH)

        assert two.get("/drain").status == 200
        customers.settle(on=["one"])
        two.restart()
        customers.settle(on=BOTH)
        one.restart()
        customers.settle(on=BOTH)
        assert customers.failed == []

        one.database.kill()
        customers.settle(on=["two"])
        seen = len(customers.failed)
        assert {failure[:3] for failure in customers.failed} <= {"503"}
        customers.go_on(by=["two"])
        assert len(customers.failed) == seen
        one.database.start()
        customers.settle(on=BOTH)


def test_traefik_asks_the_right_path() -> None:
    """Traefik itself can't be had here: this reads what concerns us."""
    (config,) = documents(PAGE, "traefik-shop.yaml")
    http = config["http"]
    router = http["routers"]["shop"]
    assert http["services"][router["service"]]["loadBalancer"]["healthCheck"] == {
        "path": "/health_check",
        "interval": "10s",
        "timeout": "6s",
    }
    assert set(router["middlewares"]) <= set(http["middlewares"])
