"""Reports as bytes, one module a format. Each knows the model, and nothing of HTTP."""

from __future__ import annotations

__all__ = ()
