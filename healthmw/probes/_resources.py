"""Probes of what the process may use of its machine or container: memory, files, CPU."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from healthmw._bounds import above
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_NO_LIMIT = 2**60
"""cgroup v1 says "no limit" by a number near 2**63."""


class _Memory(NamedTuple):
    used: int
    limit: int
    of: str

    @property
    def share(self) -> float:
        return self.used / self.limit


class MemoryProbe:
    """Look at how much of the memory that this process may use is in use.

    That is the memory of its container, where a cgroup (version 1 or 2) or one above it has a
    limit, and the machine's; the fuller one counts. File caches that the kernel can drop at once
    are not counted as used. A pass proves that no more than a share of `degraded_above` is in use;
    above `failed_above` it fails. Both are shares, 0.9 for nine tenths; None for no bound.

    Measures `used_bytes`, `limit_bytes`, `used_ratio` and `limited_by` (`machine`, `cgroup`). Linux
    only: elsewhere it raises `ProbeFailedError`. `root` is where `/proc` and `/sys` are, for tests.
    """

    def __init__(
        self,
        *,
        degraded_above: float | None = 0.9,
        failed_above: float | None = 0.97,
        root: str | os.PathLike[str] = "/",
    ) -> None:
        self._bounds = above(degraded_above, failed_above, shares=True)
        self._root = Path(root)

    def __repr__(self) -> str:
        return "<MemoryProbe>"

    def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Look once."""
        fullest = max(_memories(self._root), key=lambda memory: memory.share, default=None)
        if fullest is None:
            raise ProbeFailedError("there is neither /proc/meminfo nor a cgroup with a limit")
        found: dict[str, Measurement] = {
            "used_bytes": fullest.used,
            "limit_bytes": fullest.limit,
            "used_ratio": fullest.share,
            "limited_by": fullest.of,
        }
        words = f"{fullest.share:.1%} of the {fullest.of}'s memory is in use"
        return self._bounds.judge(fullest.share, words, found) or found


def _memories(root: Path) -> Iterator[_Memory]:
    with suppress(OSError, KeyError, ValueError):
        # Lines such as `MemTotal:       16384 kB`
        lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
        total = sizes["MemTotal"]
        yield _Memory(total - sizes["MemAvailable"], total, "machine")
    for folder, version in _cgroups(root, "memory"):
        names = (
            ("memory.current", "memory.max", "inactive_file")
            if version == 2
            else ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
        )
        with suppress(OSError, ValueError):  # the root cgroup has none of these, and "max" is none
            limit = int((folder / names[1]).read_text())
            used = int((folder / names[0]).read_text())
            # What the kubelet calls the working set.
            cached = _fields(folder / "memory.stat").get(names[2], 0)
            if 0 < limit < _NO_LIMIT:
                yield _Memory(max(used - cached, 0), limit, "cgroup")


class FileDescriptorProbe:
    """Look at how many files and sockets this process has open, of those it may have.

    A pass proves that no more than a share of `degraded_above` of its limit (`RLIMIT_NOFILE`, what
    `ulimit -n` shows) is open; above `failed_above` it fails. Both are shares; None for no bound.

    Measures `open_files`, `limit_files` and `open_ratio`. Raises `ProbeFailedError`.
    """

    def __init__(
        self, *, degraded_above: float | None = 0.8, failed_above: float | None = 0.95
    ) -> None:
        self._bounds = above(degraded_above, failed_above, shares=True)

    def __repr__(self) -> str:
        return "<FileDescriptorProbe>"

    def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Count once."""
        import resource  # not there on Windows

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        opened = len(os.listdir("/dev/fd")) - 1  # noqa: PTH208 - one is that of the listing itself
        if limit == resource.RLIM_INFINITY:
            return {"open_files": opened}
        share = opened / limit
        found = {"open_files": opened, "limit_files": limit, "open_ratio": share}
        words = f"{opened} of {limit} file descriptors are open"
        return self._bounds.judge(share, words, found) or found


class LoadProbe:
    """Look at the machine's load average, and at whether this container is held back.

    A pass proves that over the last minute no more than `degraded_above` tasks a CPU wanted to run;
    above `failed_above` it fails (None, as by default: never, for a busy machine still serves).
    The load is that of the whole machine, whatever container asks, so it is divided by all its
    CPUs. Where a cgroup has a CPU quota, it is degraded also when in more than a share of
    `throttled_above` of the periods since the last run its tasks had to stop and wait.

    Measures `load`, `load_per_cpu` and, with a quota, `throttled_ratio`. Raises `ProbeFailedError`.
    `root` is where `/proc` and `/sys` are, for tests.
    """

    def __init__(
        self,
        *,
        degraded_above: float | None = 2.0,
        failed_above: float | None = None,
        throttled_above: float | None = 0.25,
        root: str | os.PathLike[str] = "/",
    ) -> None:
        self._bounds = above(degraded_above, failed_above)
        try:
            self._throttled = above(throttled_above, None, shares=True)
        except ValueError as exc:
            raise ValueError(str(exc).replace("degraded_above", "throttled_above")) from None
        self._root = Path(root)
        self._periods = 0, 0

    def __repr__(self) -> str:
        return "<LoadProbe>"

    def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Look once."""
        # Not os.cpu_count(), which since Python 3.13 says what PYTHON_CPU_COUNT does.
        load, cpus = os.getloadavg()[0], max(1, os.sysconf("SC_NPROCESSORS_ONLN"))
        found: dict[str, Measurement] = {"load": load, "load_per_cpu": load / cpus}
        throttled = self._throttled_share()
        if throttled is not None:
            found["throttled_ratio"] = throttled
        words = f"the load is {load:.1f} on {cpus} CPUs"
        held_back = f"the CPU quota held it back in {throttled or 0:.0%} of the time"
        return (
            self._bounds.judge(load / cpus, words, found)
            or self._throttled.judge(throttled or 0.0, held_back, found)
            or found
        )

    def _throttled_share(self) -> float | None:
        """Return the share of periods since the last run in which the quota was used up."""
        for folder, _ in _cgroups(self._root, "cpu"):
            stat = _fields(folder / "cpu.stat")
            if stat.get("nr_periods"):
                now = stat["nr_periods"], stat.get("nr_throttled", 0)
                before, self._periods = self._periods, now
                periods = now[0] - before[0]
                return (now[1] - before[1]) / periods if before[0] and periods > 0 else 0.0
        return None


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Return the folders of this process's cgroup and of those above it, and their version.

    See proc_pid_cgroup(5). In a container the path may be the host's: then the mount itself is what
    can be seen of it.
    """
    base = root / "sys/fs/cgroup"
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                yield from ((folder, 2) for folder in _upwards(base, path))
            elif controller in controllers.split(","):
                for mount in {base / controllers, base / controller}:
                    yield from ((folder, 1) for folder in _upwards(mount, path))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path.lstrip("/")
    while folder != mount and mount in folder.parents:
        yield folder
        folder = folder.parent
    yield mount


def _fields(path: Path) -> dict[str, int]:
    """Read a file of lines such as `nr_periods 12`."""
    found: dict[str, int] = {}
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            found[name] = int(value)
    return found
