"""A node of Elasticsearch, by a stand-in."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from healthmw.probes import ElasticsearchProbe
from tests.faults.subjects.http import Service, ServiceSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address


class _Node(Service):
    """The stand-in."""

    app = "tests.faults.http_apps:cluster"


class Elasticsearch(ServiceSubject):
    """By a client of the probe's own."""

    name = "`ElasticsearchProbe`, stand-in"

    def new_server(self) -> Service:
        return _Node()

    def probe(self, at: Address, timeout: float) -> Probe:
        options: dict[str, Any] = {}
        if at.ca is not None:
            options["verify"] = ssl.create_default_context(cafile=at.ca)
        scheme = "http" if at.ca is None else "https"
        url = f"{scheme}://app:{at.password}@{at.host}:{at.port}"
        return ElasticsearchProbe(url, timeout=timeout, **options)
