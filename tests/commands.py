"""Runs of the `dispatcher` command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from config.show import toml_of
from tests.peer import ROOT


def command(*arguments: str, timeout_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """One run of `dispatcher`."""
    return subprocess.run(
        [sys.executable, "-m", "actors.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def config_file(place: Path, **settings: Any) -> str:
    path = place / "other.toml"
    path.write_text(toml_of(settings))
    return str(path)
