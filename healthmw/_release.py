"""What release runs here: as the app says, or as the platform's environment does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = (
    # Set on purpose, by a person or a chart (in Kubernetes: by the downward API, from a label).
    "RELEASE",
    # Heroku, with the labs features runtime-dyno-metadata and runtime-dyno-build-metadata.
    "HEROKU_RELEASE_VERSION",
    "HEROKU_BUILD_COMMIT",
    "HEROKU_SLUG_COMMIT",
    "RENDER_GIT_COMMIT",
    # Fly.io: the same on all machines of a release, which FLY_MACHINE_VERSION is not.
    "FLY_IMAGE_REF",
    "FLY_MACHINE_VERSION",
    "RAILWAY_GIT_COMMIT_SHA",
    "RAILWAY_DEPLOYMENT_ID",
    # Google Cloud Run.
    "K_REVISION",
    # What builds commonly bake into an image.
    "GIT_COMMIT",
    "GIT_SHA",
    "COMMIT_SHA",
    "SOURCE_VERSION",
)
"""The variables that name a release, the most telling first."""

_USABLE = re.compile(r"[!-~]{1,128}", re.ASCII)


def release_id(value: object, environ: Mapping[str, str]) -> str | None:
    """Return the release that `value` names; if None, the first one that `environ` names.

    None is nothing to show, which `""` asks for. Raises `ValueError` for a value that can't stand
    in a header; in `environ`, whose variables may mean something else, such values are passed over.
    """
    if value is None:
        named = (environ.get(name, "") for name in VARIABLES)
        return next(filter(_USABLE.fullmatch, named), None)
    if value == "":
        return None
    if isinstance(value, str) and _USABLE.fullmatch(value):
        return value
    raise ValueError(
        f"release={value!r} must be up to 128 printable ASCII characters, no spaces "
        '(or "", to show none)'
    )
