"""Probes of this machine: disk, folder, memory, file descriptors, load, heartbeat files."""

from __future__ import annotations

import os
import resource
import time
from collections import namedtuple
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from healthmw import Degraded
from healthmw.exceptions import ProbeFailedError
from healthmw.probes import (
    DirectoryProbe,
    DiskProbe,
    FileDescriptorProbe,
    HeartbeatProbe,
    LoadProbe,
    MemoryProbe,
    beat,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Room = namedtuple("Room", "f_frsize f_blocks f_bfree f_bavail f_files f_ffree f_favail")  # noqa: PYI024 - as os has it


def measured(probe: Callable[[], Any]) -> dict[str, Any]:
    found = probe()
    assert isinstance(found, dict), found
    return found


def degraded(probe: Callable[[], Any]) -> Degraded:
    found = probe()
    assert isinstance(found, Degraded), found
    return found


# Disk


def disk_has(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: room)


def test_a_real_disk(tmp_path: Path) -> None:
    found = DiskProbe(tmp_path, degraded_below=None, failed_below=None)()
    assert isinstance(found, dict)
    assert found["free_bytes"] > 0
    assert 0 < found["free_ratio"] <= 1
    assert 0 < found["free_inodes_ratio"] <= 1
    assert repr(DiskProbe("/srv")) == "<DiskProbe /srv>"
    with pytest.raises(FileNotFoundError):
        DiskProbe(tmp_path / "nothing")()


@pytest.mark.parametrize(
    ("room", "words", "failed"),
    [
        (Room(4096, 1000, 90, 80, 1000, 900, 900), "8.1% of the space of / is free", False),
        (Room(4096, 1000, 500, 500, 1000, 30, 30), "3.0% of the inodes of / is free", False),
        (Room(4096, 1000, 100, 10, 1000, 900, 900), "1.1% of the space of / is free", True),
        (Room(4096, 1000, 500, 500, 1000, 1, 1), "0.1% of the inodes of / is free", True),
    ],
)
def test_a_disk_that_runs_full(
    room: Room, words: str, failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_has(room, monkeypatch)
    if failed:
        with pytest.raises(ProbeFailedError, match=f"^{words}$"):
            DiskProbe()()
    else:
        found = degraded(DiskProbe())
        assert found.detail == words
        assert found.measurements["free_bytes"] == room.f_bavail * 4096


def test_a_file_system_without_inodes(monkeypatch: pytest.MonkeyPatch) -> None:
    disk_has(Room(4096, 1000, 500, 500, 0, 0, 0), monkeypatch)
    assert DiskProbe()() == {"free_bytes": 2_048_000, "free_ratio": 0.5, "free_inodes_ratio": 1.0}


# Folder


@pytest.mark.parametrize("sync", [False, True])
def test_a_folder_that_can_be_written(tmp_path: Path, sync: bool) -> None:
    probe = DirectoryProbe(tmp_path, sync=sync)
    assert set(probe()) == {"latency_seconds"}
    assert list(tmp_path.iterdir()) == []
    assert repr(probe) == f"<DirectoryProbe {tmp_path}>"


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectoryProbe(tmp_path / "nothing")()


def test_a_folder_that_stores_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"\x00" * 64)
    with pytest.raises(ProbeFailedError, match="reads back otherwise than written"):
        DirectoryProbe(tmp_path)()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        DirectoryProbe(tmp_path, sync=True)()
    assert list(tmp_path.iterdir()) == []


# Memory

GIB = 2**30


def machine(root: Path, files: dict[str, object]) -> Path:
    """Make a machine's `/proc` and `/sys`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def meminfo(total: int, available: int) -> str:
    return f"MemTotal: {total // 1024} kB\nMemFree: 1 kB\nMemAvailable: {available // 1024} kB"


V1 = "5:cpu,cpuacct:/box\n4:memory:/box\n1:name=systemd:/box\n0::/box"
V2 = "0::/a.slice/app"


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux has it, and nobody else")
def test_this_machines_memory() -> None:
    found = MemoryProbe(degraded_above=None, failed_above=None)()
    assert isinstance(found, dict)
    assert 0 < found["used_bytes"] < found["limit_bytes"]
    assert repr(MemoryProbe()) == "<MemoryProbe>"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"proc/meminfo": meminfo(16 * GIB, 12 * GIB)},
            (4 * GIB, 16 * GIB, "machine"),
            id="no cgroup",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/a.slice/app/memory.max": 2 * GIB,
                "sys/fs/cgroup/a.slice/app/memory.current": 2 * GIB,
                "sys/fs/cgroup/a.slice/app/memory.stat": f"anon 5\ninactive_file {GIB}",
            },
            (GIB, 2 * GIB, "cgroup"),
            id="v2, its caches don't count",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/a.slice/app/memory.max": "max",
                "sys/fs/cgroup/a.slice/app/memory.current": GIB,
                "sys/fs/cgroup/a.slice/memory.max": 4 * GIB,
                "sys/fs/cgroup/a.slice/memory.current": 3 * GIB,
            },
            (3 * GIB, 4 * GIB, "cgroup"),
            id="v2, limited above",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/memory.max": 2 * GIB,
                "sys/fs/cgroup/memory.current": GIB,
            },
            (GIB, 2 * GIB, "cgroup"),
            id="v2, in a container that sees the host's path",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": GIB,
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": GIB,
                "sys/fs/cgroup/memory/box/memory.stat": f"total_inactive_file {GIB // 2}",
            },
            (GIB // 2, GIB, "cgroup"),
            id="v1",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, 12 * GIB),
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
            },
            (4 * GIB, 16 * GIB, "machine"),
            id="v1 without a limit",
        ),
        pytest.param(
            {
                "proc/meminfo": meminfo(16 * GIB, GIB),
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/a.slice/app/memory.max": 4 * GIB,
                "sys/fs/cgroup/a.slice/app/memory.current": GIB,
            },
            (15 * GIB, 16 * GIB, "machine"),
            id="the machine is fuller",
        ),
    ],
)
def test_the_memory_that_counts(
    files: dict[str, object], expected: tuple[int, int, str], tmp_path: Path
) -> None:
    probe = MemoryProbe(degraded_above=None, failed_above=None, root=machine(tmp_path, files))
    found = probe()
    assert isinstance(found, dict)
    assert (found["used_bytes"], found["limit_bytes"], found["limited_by"]) == expected


def test_memory_that_runs_out(tmp_path: Path) -> None:
    probe = MemoryProbe(root=machine(tmp_path, {"proc/meminfo": meminfo(100 * GIB, 9 * GIB)}))
    assert degraded(probe).detail == "91.0% of the machine's memory is in use"
    machine(tmp_path, {"proc/meminfo": meminfo(100 * GIB, 2 * GIB)})
    with pytest.raises(ProbeFailedError, match=r"98\.0% of the machine's memory is in use"):
        probe()


def test_where_nothing_is_known_of_memory_it_does_not_pass(tmp_path: Path) -> None:
    with pytest.raises(ProbeFailedError, match="neither /proc/meminfo nor a cgroup"):
        MemoryProbe(root=tmp_path)()


# File descriptors


def test_file_descriptors() -> None:
    probe = FileDescriptorProbe(degraded_above=None, failed_above=None)
    before = probe()
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Path(__file__).open())
        after = probe()
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert after["open_files"] == before["open_files"] + 10
    assert after["limit_files"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert repr(probe) == "<FileDescriptorProbe>"


def test_file_descriptors_that_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda _: ["fd"] * 91)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert degraded(FileDescriptorProbe()).detail == "90 of 100 file descriptors are open"
    with pytest.raises(ProbeFailedError, match="90 of 100"):
        FileDescriptorProbe(failed_above=0.85)()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 100))
    assert FileDescriptorProbe()() == {"open_files": 90}


# Load


@pytest.fixture
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_NPROCESSORS_ONLN": 4}.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # as with PYTHON_CPU_COUNT=1
    monkeypatch.setattr(os, "getloadavg", lambda: (10.0, 1.0, 1.0))


def test_this_machines_load() -> None:
    found = LoadProbe(degraded_above=None, throttled_above=None)()
    assert isinstance(found, dict)
    assert found["load"] >= found["load_per_cpu"] >= 0
    assert repr(LoadProbe()) == "<LoadProbe>"


@pytest.mark.usefixtures("four_cpus")
def test_load_is_judged_by_the_cpu(tmp_path: Path) -> None:
    assert LoadProbe(degraded_above=2.5, root=tmp_path)() == {"load": 10.0, "load_per_cpu": 2.5}
    found = degraded(LoadProbe(root=tmp_path))
    assert found.detail == "the load is 10.0 on 4 CPUs"
    with pytest.raises(ProbeFailedError, match=r"the load is 10\.0 on 4 CPUs"):
        LoadProbe(failed_above=2.4, root=tmp_path)()


@pytest.mark.usefixtures("four_cpus")
@pytest.mark.parametrize(
    ("groups", "stat"),
    [
        (V2, "sys/fs/cgroup/a.slice/app/cpu.stat"),
        (V1, "sys/fs/cgroup/cpu,cpuacct/box/cpu.stat"),
        (V1, "sys/fs/cgroup/cpu/cpu.stat"),
    ],
)
def test_a_container_that_is_held_back(groups: str, stat: str, tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": groups, stat: "nr_periods 0"})
    probe = LoadProbe(degraded_above=None, root=root)
    assert "throttled_ratio" not in measured(probe)  # no quota
    for periods, throttled, share in [(100, 90, 0.0), (200, 100, 0.1), (200, 100, 0.0)]:
        machine(root, {stat: f"nr_periods {periods}\nnr_throttled {throttled}"})
        assert measured(probe)["throttled_ratio"] == share
    machine(root, {stat: "nr_periods 300\nnr_throttled 150"})
    assert degraded(probe).detail == "the CPU quota held it back in 50% of the time"


# Heartbeat


def test_a_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "worker"
    probe = HeartbeatProbe(path, 60, degraded_above=30)
    with pytest.raises(ProbeFailedError, match="is not there: no heartbeat yet"):
        probe()
    beat(path)
    found = probe()
    assert isinstance(found, dict)
    assert 0 <= found["age_seconds"] < 30
    os.utime(path, (time.time() - 45,) * 2)
    assert degraded(probe).detail == "the last heartbeat was 45 s ago"
    os.utime(path, (time.time() - 90,) * 2)
    with pytest.raises(ProbeFailedError, match="the last heartbeat was 90 s ago"):
        probe()
    beat(path)
    assert isinstance(probe(), dict)
    os.utime(path, (time.time() + 90,) * 2)
    with pytest.raises(ProbeFailedError, match=r"is \d\d s in the future"):
        probe()
    assert repr(probe) == f"<HeartbeatProbe {path}>"


# Options


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: DiskProbe(degraded_below=-1), "degraded_below must be a number of 0 or more"),
        (lambda: DiskProbe(failed_below=float("nan")), "failed_below must be a number"),
        (lambda: DiskProbe(failed_below=0.5), "degraded_below=0.1 is less than failed_below=0.5"),
        (lambda: MemoryProbe(degraded_above=-1), "degraded_above must be a number of 0 or more"),
        (lambda: MemoryProbe(failed_above=0.5), "degraded_above=0.9 is more than failed_above"),
        (lambda: FileDescriptorProbe(failed_above=-1), "failed_above must be a number"),
        (lambda: LoadProbe(throttled_above=-1), "throttled_above must be a number"),
        (
            lambda: DiskProbe(degraded_below=10),
            "degraded_below is a share, from 0 to 1: 0.9 for 90 %, not 10",
        ),
        (lambda: DiskProbe(failed_below=2), "failed_below is a share"),
        (lambda: MemoryProbe(degraded_above=90, failed_above=97), "degraded_above is a share"),
        (lambda: MemoryProbe(failed_above=97), "failed_above is a share"),
        (lambda: FileDescriptorProbe(degraded_above=80), "degraded_above is a share"),
        (lambda: LoadProbe(throttled_above=25), "throttled_above is a share"),
        (lambda: HeartbeatProbe("x", 0), "max_age=0 must be a finite number of seconds, above 0"),
        (lambda: HeartbeatProbe("x", 5, degraded_above=6), "degraded_above=6 is more than max_age"),
        (lambda: HeartbeatProbe("x", 5, degraded_above=-6), "degraded_above must be a number"),
        (lambda: HeartbeatProbe("x", 5, degraded_above=cast("Any", "1")), "degraded_above must be"),
    ],
)
def test_bad_options(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
