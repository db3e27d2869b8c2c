"""Settings for production, from the environment."""

import os
import secrets

import dj_database_url

ON_HEROKU = "DYNO" in os.environ

# One that lasts no longer than its process will do as long as nothing is signed by it: no sessions.
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe()
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")
SECURE_SSL_REDIRECT = ON_HEROKU
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = ["healthmw.django", "shop"]
MIDDLEWARE = [
    # The first: ALLOWED_HOSTS and the redirect to https are not for a load balancer that asks
    # 10.0.0.5 over plain http.
    "healthmw.django.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
ASGI_APPLICATION = "shop.asgi.application"
USE_TZ = True
TIME_ZONE = "UTC"

DATABASES = {
    "default": dj_database_url.config(
        default="sqlite:///shop.db", conn_max_age=60, conn_health_checks=True
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Each of DATABASES is critical, and so is that no migration is missing. What else is to be checked
# stands in the apps' own health.py.
HEALTHMW = {"checks": ["databases", "migrations"], "service": "shop"}

PAYMENTS_URL = os.environ.get("DOWNSTREAM_URL", "http://127.0.0.1:9000")

# Django would mail errors to ADMINS and show them nowhere; and that a check is well again, which
# healthmw says at level INFO, is worth a line too.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
