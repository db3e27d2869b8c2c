"""py-healthcheck for Flask, by WSGI."""

from flask import Flask
from healthcheck import HealthCheck

from benchmarks._checks import HANGS, MAX_AGE, checks


def _as_healthcheck_has_it(name, check):
    def run():
        check()
        return True, "well"

    run.__name__ = name
    return run


_options = {} if MAX_AGE is None else {"success_ttl": None, "failed_ttl": None}
if HANGS:
    _options["error_timeout"] = 1
_health = HealthCheck(**_options)
for _item in checks().items():
    _health.add_check(_as_healthcheck_has_it(*_item))
wsgi = Flask(__name__)
wsgi.add_url_rule("/health_check", "health_check", view_func=_health.run)
