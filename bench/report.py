"""What every report of a benchmark begins with, and where it goes."""

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"


def header() -> dict[str, Any]:
    """When, of which commit, on what, and how busy that was (load average of the last minute)."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
        "load_average": round(os.getloadavg()[0], 2),
    }


def write(out: Path, figures: dict[str, Any]) -> None:
    """The report as indented JSON."""
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
