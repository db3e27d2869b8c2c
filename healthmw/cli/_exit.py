"""The exit status of every command, and the error that means *could not tell*."""

from __future__ import annotations

WELL = 0
NOT_WELL = 1
COULD_NOT_TELL = 2


class CouldNotTell(Exception):  # noqa: N818 - it is a verdict as much as an error
    """Nothing can be said about the target: the message says why, and how to mend it."""
