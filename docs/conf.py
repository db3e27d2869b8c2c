"""How the documentation is built: `make docs`. Nothing from outside is needed or shown."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from sphinx.util import logging

import healthmw

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "healthmw"
author = "The healthmw authors"
copyright = "The healthmw authors"  # noqa: A001 - the name that Sphinx reads
release = version = installed("healthmw")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_static"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings write code between single backquotes, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False  # the headings have them
python_maximum_signature_line_length = 88

# `-n` warns of every name that leads nowhere. Those of other projects do: their pages are outside.
nitpick_ignore_regex = [(r"py:.*", r"(?!healthmw\.).*"), (r"py:.*", r"healthmw\.(.*\.)?_.*")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["healthmw.css"]
pygments_dark_style = "github-dark"  # furo's own underlines names of modules like links
html_title = "healthmw"
html_copy_source = False
html_show_sphinx = False
smartquotes_action = "q"  # not `--reload` with a dash in place of its hyphens

# Public by their names, and not for import by users: a command or Django's settings name them.
NOT_FOR_IMPORT = (
    "healthmw.cli",
    "healthmw.django.apps",
    "healthmw.django.management",
    "healthmw.django.urls",
    "healthmw.render",
)


def is_for_users(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split(".")) and not any(
        f"{module}.".startswith(f"{other}.") for other in NOT_FOR_IMPORT
    )


def miss_no_public_name(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every public name that no page of the reference describes."""
    described = env.domains.python_domain.objects
    found = pkgutil.walk_packages(healthmw.__path__, "healthmw.")
    for module in filter(is_for_users, ["healthmw", *(one.name for one in found)]):
        for name in importlib.import_module(module).__all__:
            if f"{module}.{name}" not in described:
                logging.getLogger(__name__).warning("not in the reference: %s.%s", module, name)


def miss_no_docstring(
    _app: Sphinx, _what: str, name: str, value: object, skip: bool, _: object
) -> None:
    """Warn of what autodoc leaves out for want of a docstring."""
    value = getattr(value, "fget", value)
    home = str(getattr(value, "__module__", None))
    ours = callable(value) and home.startswith("healthmw") and not name.startswith("_")
    if ours and skip and not inspect.getdoc(value):
        logging.getLogger(__name__).warning("no docstring: %s in %s", name, home)


def setup(app: Sphinx) -> None:
    app.connect("env-check-consistency", miss_no_public_name)
    app.connect("autodoc-skip-member", miss_no_docstring)
