"""What is known of a Ray cluster before Ray is asked, and that Ray is told its settings before it is imported."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from actors.cluster import set_environment, unreachable
from tests.peer import ROOT
from tests.servers import free_port

#: A start that ends soon after its imports, and what Ray read at its own.
STARTED = """
import asyncio, os, sys
from actors.cli import up
from config.load import load

assert "ray" not in sys.modules
code = asyncio.run(up._run(load(None, os.environ, {})))
from ray._private import ray_constants
print(code, ray_constants.RAY_DEDUP_LOGS)
"""


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}"])
def test_an_address_is_tried(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(form.format(server.getsockname()[1])) is None
    address = form.format(free_port())
    said = unreachable(address)
    assert said is not None
    assert said.startswith(f"nothing listens at {address} (")


def test_a_name_that_nobody_has_is_told() -> None:
    said = unreachable("no-such-host.invalid:6379")
    assert said is not None
    assert "no-such-host.invalid:6379" in said


def test_a_port_that_cannot_be_is_told() -> None:
    assert "is not host:port" in (unreachable("127.0.0.1:99999") or "")


@pytest.mark.parametrize("word", ["auto", "local", "127.0.0.1"])
def test_what_names_no_port_is_left_to_ray(word: str) -> None:
    assert unreachable(word) is None


def test_a_setting_that_somebody_made_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_COLOR_PREFIX", "7")
    before = dict(os.environ)
    set_environment()
    try:
        assert os.environ["RAY_COLOR_PREFIX"] == "7"
        assert os.environ["RAY_DEDUP_LOGS"] == "0"
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def test_repeated_log_lines_of_actors_are_all_shown(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    settings = {
        "PYTHONPATH": str(ROOT),
        "DISPATCHER__DATA_DIR": str(tmp_path / "data"),
        "DISPATCHER__HTTP__PORT": "0",
        "DISPATCHER__RAY__ADDRESS": f"127.0.0.1:{free_port()}",
    }
    done = subprocess.run(
        [sys.executable, "-c", STARTED], cwd=ROOT, env=environ | settings, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["1", "False"], done.stderr
