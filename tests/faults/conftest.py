"""The fault table: each probe that talks to a server, put through each fault, and what it says.

Every row is run in a process of its own (`trial.py`): the subject's real server, a proxy in front
of it (`proxy.py`) that counts connections and mistreats answers, and an app that is a `Health` with
one check (`app.py`). A fault lasts for a hundred rounds. A cell is well when each answer came in
time, no more connections, threads and files are open than before, and the probe passes again once
the fault is over, in the same process. What is found is compared with the committed page
`docs/reference/fault-table.md`, which `make fault-table` writes anew.

To add a probe, write a file `subjects/NAME.py` with a `Subject` for each driver:

    class Shop(Subject):
        name = "`ShopProbe`"

        def new_server(self) -> Server:         # a real one, by a class as in tests/services
            return ShopServer()

        def probe(self, at: Address, timeout: float) -> Probe:
            return ShopProbe(at.host, at.port, password=at.password, ca=at.ca, timeout=timeout)

        @contextmanager
        def fill(self) -> Iterator[None]:       # reach the server's connection limit for a while
            ...

        def accept(self, password: str) -> None:  # optional: have it take another password
            ...

- The right password is `PASSWORD` of `tests/services/servers.py`; the server is reached directly
  at `self.server.port`, and by the probe only at `at`.
- TLS is spoken by a terminator in front of the server. Where something is said before TLS begins,
  override `before_tls`; where the server is to speak TLS itself, override `present`.
  With `at.ca` set, the probe trusts that authority and checks the host, which is `at.host`.
- A cell that can't be: `no = {Fault.PASSWORD: "why"}`. The reason is printed on the page, so it is
  words for a user, without a full stop. `FULL` needs `fill` or such a reason.
- A probe that only connects is `blind` to a server that hangs, and passes.
- Where it is a matter of the moment whether it fails or its time is up, it `wavers`.
- A server that tells its clients where to come learns the proxy's port by `reached_at`.
- A driver that goes on to learn things beside the probe's answer says so by `surely_before`.
- A driver that asks C's resolver for names says so in `resolver`, in words for a user.
- Import drivers in methods: the file is imported to learn the names.

Try it by `python -m tests.faults.trial NAME` (all or part of the name), which shows cell by cell
what happens; then `make fault-table ARGS=NAME` writes its row. A row takes about a minute, most of
it waiting. Rows run side by side in the suite.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.table import SIDE_BY_SIDE, run_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.table import Row


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Row]]]:
    """The rows that this run of the tests asks for, all begun at once."""
    names: list[str] = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and item.path.parent == Path(__file__).parent
        and "name" in item.callspec.params
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {name: pool.submit(run_row, name) for name in dict.fromkeys(names)}
        pool.shutdown(cancel_futures=True)
