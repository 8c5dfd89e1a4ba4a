"""`dispatcher simulate` as a process: what keeps it from serving is told in a line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peer import ROOT


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "actors.cli.main", "simulate", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = simulate("--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    said = f"simulate: --port {port}: another program listens on 127.0.0.1:{port}; 0 takes a free one\n"
    assert done.stderr == said


@pytest.mark.parametrize(("option", "value"), [("--journal", "no/such/folder/j"), ("--provider", "a/b")])
def test_what_cannot_be_is_named(tmp_path: Path, option: str, value: str) -> None:
    done = simulate("--port", "0", option, str(tmp_path / value) if option == "--journal" else value)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("simulate: ")
    assert value in done.stderr
    assert len(done.stderr.splitlines()) == 1
