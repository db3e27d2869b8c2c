"""How the documentation is built: `make docs`. Nothing from outside is needed or shown."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "healthmw"
author = "The healthmw authors"
copyright = "The healthmw authors"  # noqa: A001 - the name that Sphinx reads
release = version = installed("healthmw")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Docstrings write code between single backquotes, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# `-n` warns of every name that leads nowhere. Those of other projects do: their pages are outside.
nitpick_ignore_regex = [(r"py:.*", r"(?!healthmw\.).*"), (r"py:.*", r"healthmw\.(.*\.)?_.*")]

html_theme = "furo"
html_title = "healthmw"
html_copy_source = False
html_show_sphinx = False
