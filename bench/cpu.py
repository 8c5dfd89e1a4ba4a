"""CPU seconds and memory of processes, as the kernel counts them."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_RSS: Final = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def command_of(pid: int) -> str:
    """The name of a process's program; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def rss_kib(pid: int) -> int | None:
    """Resident memory of a process; None for one that is gone."""
    try:
        rss = _RSS.search(Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(rss[1]) if rss is not None else None


def cpu_by_role(pids: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Seconds so far of each role's processes together."""
    return {role: sum(cpu_s(pid) for pid in group) for role, group in pids.items()}


def descendants(pid: int) -> list[int]:
    """All processes below this one now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found
