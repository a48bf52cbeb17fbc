"""How many processors this process may use.

A container has a share of the machine's time (Linux' control groups), and sees all of its cores: as
many threads as there are would use the share up in an instant and stand still for the rest.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def processors() -> int:
    """Whole processors: those that the system gives this process, in cores or in time."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on every system
        cores = len(os.sched_getaffinity(0))
    time = share(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, int(min(cores, time)))


def share(groups: Path, root: Path) -> float:
    """Processors' worth of time that control groups leave a process; infinite without a limit.

    groups: the file that says which groups it is in; root: where they are. A group has no more than
    those around it.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return float("inf")
    return min((limit for line in lines for limit in _limits(line, root)), default=float("inf"))


def _limits(line: str, root: Path) -> Iterator[float]:
    """The limits of one group and of those around it; line: hierarchy:controllers:path."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    top = root / controllers if controllers else root  # the second version has but one hierarchy
    group = top / path.lstrip("/")
    for directory in (group, *group.parents):
        yield from _limit(directory)
        if directory == top:
            return


def _limit(group: Path) -> Iterator[float]:
    """What a group says itself: microseconds, in how many (the first version in two files)."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / file).read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal():  # not "max", nor -1
            yield int(quota) / int(period)
