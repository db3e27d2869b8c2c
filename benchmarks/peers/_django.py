"""A Django project of one module, with what the candidate needs."""

from urllib.parse import urlsplit

import django
from django.conf import settings

from benchmarks._checks import DSN


def set_up(urls, *apps, middleware=(), **more):
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    if DSN:
        url = urlsplit(DSN)
        database = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path[1:],
            "USER": url.username,
            "PASSWORD": url.password,
            "HOST": url.hostname,
            "PORT": url.port,
        }
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        INSTALLED_APPS=list(apps),
        MIDDLEWARE=list(middleware),
        DATABASES={"default": database},
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
        ],
        SECRET_KEY="not one",  # noqa: S106 - nothing is signed
        LOGGING_CONFIG=None,
        USE_TZ=True,
        **more,
    )
    django.setup(set_prefix=False)
