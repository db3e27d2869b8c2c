"""healthmw, mounted as its README shows."""

from benchmarks._checks import DSN, HANGS, KIND, MAX_AGE, checks
from benchmarks.peers import bare
from healthmw import Health
from healthmw import asgi as for_asgi
from healthmw import wsgi as for_wsgi

health = Health() if MAX_AGE is None else Health(max_age=float(MAX_AGE))
if DSN:
    from healthmw.probes import AsyncpgProbe, PsycopgProbe

    health.add("database", AsyncpgProbe(DSN) if KIND == "async" else PsycopgProbe(DSN))
else:
    for name, check in checks().items():
        health.add(name, check, timeout=1.0 if HANGS else 2.0)

asgi = for_asgi.HealthMiddleware(bare.asgi, health)
wsgi = for_wsgi.HealthMiddleware(bare.wsgi, health)
