"""Probes of the file system: room on it, and a folder that can be written."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw._bounds import below
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_PROBE_BYTES = 64


class DiskProbe:
    """Look at how much room is left on the file system that holds `path`.

    A pass proves that at least a share of `degraded_below` of it is free for this process: of the
    bytes, and of the inodes where the file system counts them. Below `failed_below` it fails. Both
    are shares, 0.1 for a tenth; None for no bound. What only root may use isn't counted as free.

    Measures `free_bytes`, `free_ratio` and `free_inodes_ratio`. Raises `ProbeFailedError`, and
    `OSError` for a path that doesn't exist. A network file system that hangs holds the probe's
    thread: the check is then `stuck`, and no second thread waits with it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "/",
        *,
        degraded_below: float | None = 0.1,
        failed_below: float | None = 0.02,
    ) -> None:
        self._path = os.fspath(path)
        self._bounds = below(degraded_below, failed_below, shares=True)

    def __repr__(self) -> str:
        return f"<DiskProbe {self._path}>"

    def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Look once."""
        room = os.statvfs(self._path)
        # As df does: what is reserved for root is neither free nor used.
        bytes_free = _share(room.f_bavail, room.f_blocks - room.f_bfree + room.f_bavail)
        inodes_free = _share(room.f_favail, room.f_files - room.f_ffree + room.f_favail)
        found = {
            "free_bytes": room.f_bavail * room.f_frsize,
            "free_ratio": bytes_free,
            "free_inodes_ratio": inodes_free,
        }
        least, what = min((bytes_free, "space"), (inodes_free, "inodes"))
        words = f"{least:.1%} of the {what} of {self._path} is free"
        return self._bounds.judge(least, words, found) or found


def _share(free: int, total: int) -> float:
    return free / total if total > 0 else 1.0  # btrfs and some network file systems count none


class DirectoryProbe:
    """Write a small file into a folder, read it back, compare it and remove it.

    A pass proves that this process can create, read and delete files in `path`, and that what it
    wrote was stored. `sync=True` waits until the disk has it as well, which may take long.

    Measures `latency_seconds`. Raises `ProbeFailedError` for a file that reads back otherwise, and
    `OSError`, which names the trouble: no such folder, a read-only file system, no space.
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = False) -> None:
        self._path = Path(path)
        self._sync = sync

    def __repr__(self) -> str:
        return f"<DirectoryProbe {self._path}>"

    def __call__(self) -> Mapping[str, Measurement]:
        """Write, read and remove one file, of a name that nothing else uses."""
        started = time.perf_counter()
        path = self._path / f".healthmw-{os.getpid()}-{secrets.token_hex(8)}"
        written = secrets.token_bytes(_PROBE_BYTES)
        try:
            with path.open("xb") as file:
                file.write(written)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
            same = path.read_bytes() == written
        finally:
            path.unlink(missing_ok=True)
        if not same:
            raise ProbeFailedError(f"a file in {self._path} reads back otherwise than written")
        return {"latency_seconds": time.perf_counter() - started}
