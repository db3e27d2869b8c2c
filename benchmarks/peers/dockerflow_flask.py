"""dockerflow for Flask, by WSGI."""

from dockerflow import checks as registry
from dockerflow.flask import Dockerflow
from flask import Flask

from benchmarks._checks import checks


def _as_dockerflow_has_it(name, check):
    def run():
        check()
        return []

    run.__name__ = name
    return run


wsgi = Flask(__name__)
Dockerflow(wsgi)
for _name, _check in checks().items():
    registry.register(_as_dockerflow_has_it(_name, _check), name=_name)
