"""Starts that cannot be, or that are told to stop before there is anything to end: no dispatcher comes to run here."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import command, config_file
from tests.endtoend.test_catalog_live import webhook
from tests.endtoend.test_starting import NOPE, unresolved
from tests.live import Live, until
from tests.peer import ROOT
from tests.servers import free_port

# -- cannot be


def test_a_ray_address_where_nobody_listens_is_named(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    file = config_file(tmp_path, data_dir=str(tmp_path / "data"), http={"port": 0}, ray={"address": address})
    done = command("up", "--config", file)
    assert done.returncode == 1
    assert f"cannot start: ray.address: nothing listens at {address}" in done.stderr
    assert "Traceback" not in done.stderr
    looked = command("doctor", "--config", file)
    assert looked.returncode == 1
    assert f"ray.address: nothing listens at {address}" in looked.stdout


def test_doctor_names_a_provider_of_a_first_start_whose_secret_is_nowhere(tmp_path: Path) -> None:
    providers = {"good": webhook("http://127.0.0.1:1/p"), "bad": unresolved("http://127.0.0.1:1/p")}
    file = config_file(tmp_path, data_dir=str(tmp_path / "data"), http={"port": 0}, providers=providers)
    done = command("doctor", "--config", file)
    assert done.returncode == 1
    said = {line.split(": ")[0].split(maxsplit=1)[1]: line for line in done.stdout.splitlines()}
    assert said["provider bad"].startswith("broken")
    assert f"options.secret: the environment variable {NOPE} is not set" in said["provider bad"]
    assert said["provider good"].startswith("ok")
    assert [name for name, line in said.items() if line.startswith("broken")] == ["provider bad"]
    assert not (tmp_path / "data").exists(), "doctor makes no data"


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """Even one that its holder would share, as a dispatcher's gateways do."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("up", "--config", config_file(tmp_path, data_dir=str(tmp_path / "data"), http={"port": port}))
    assert done.returncode == 1
    assert "http.port" in done.stderr
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    done = command("up", "--config", config_file(tmp_path, colour="red"))
    assert done.returncode == 2
    assert "colour" in done.stderr
    assert "Traceback" not in done.stderr
    done = command("config", "check", "--config", config_file(tmp_path, http={"port": "eighty"}))
    assert done.returncode == 2
    assert "http.port" in done.stderr


# -- told to stop

#: Runs the command and strikes when it comes to import a module.
STRUCK = """
import os, signal, sys

class Striker:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Striker())
from actors.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("module", "code"), [("aiohttp", 130), ("config.load", 130), ("actors.cli.send", 130), ("ray", 0)]
)
def test_a_signal_during_an_import_ends_it_without_a_traceback(tmp_path: Path, module: str, code: int) -> None:
    file = config_file(tmp_path, data_dir=str(tmp_path / "data"), http={"port": 0})
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, module, "up", "--config", file],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_cluster_that_lets_nobody_in_does_not_keep_a_start_from_being_stopped(tmp_path: Path) -> None:
    """Something listens, but is no Ray: it asks on and on, and cannot be interrupted."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        settings = {"data_dir": str(tmp_path / "data"), "http": {"port": 0}, "ray": {"address": address}}
        starting = Live(tmp_path, settings)
        process = starting.begin()
        until(lambda: "actors.system: store: " in starting.words(), "the store, after which Ray is asked")
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()
