"""Django looks here for the commands of the app."""

from __future__ import annotations

__all__ = ()
