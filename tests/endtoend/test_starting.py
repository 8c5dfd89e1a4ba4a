"""Starts that are broken off, that cannot be, or that follow a death; and what callers are told at the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.show import toml_of
from tests.endtoend.conftest import Keeper, Pair
from tests.endtoend.talk import PARTITIONS, noon_zone, notice, phone
from tests.endtoend.test_catalog_live import message_of, put, send, webhook
from tests.endtoend.test_running import command, config_file
from tests.live import Live, alive, live, until
from tests.peer import ROOT
from tests.servers import free_port

NOPE = "DISPATCHER_TEST_OF_NOTHING"
ASKED = 20


@pytest.fixture(scope="module")
def own(keeper: Keeper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A dispatcher on a port that stays the same, with one provider whose secret is nowhere."""
    keeper.end()
    place = tmp_path_factory.mktemp("starting")
    with live(place, partitions=PARTITIONS, timezone=noon_zone(), http={"port": free_port()}) as pair:
        yield pair


def unresolved(url: str) -> dict[str, Any]:
    """A provider's document that cannot be used here."""
    document = webhook(url)
    document["options"] = {**document["options"], "secret": f"env:{NOPE}"}
    return document


# -- a start that is told to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_start_and_nothing_is_left(tmp_path: Path, number: signal.Signals) -> None:
    starting = Live(tmp_path, {"data_dir": str(tmp_path / "data"), "http": {"port": 0}})
    process = starting.begin()
    until(lambda: "actors.system: store: " in starting.words(), "the store, after which Ray starts")
    store_pid = starting.valkey_pid
    process.send_signal(number)
    try:
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            starting.process = process
            starting.kill_tree()
    assert process.stdout is not None
    assert process.stdout.read() == ""
    process.stdout.close()
    assert "told to stop before it was ready" in starting.words()
    assert "Traceback" not in starting.words()
    assert not alive(store_pid)


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


# -- a start that cannot be


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


# -- a dispatcher of its own; the tests below follow each other


def test_a_provider_that_cannot_be_used_is_told_once_and_is_out(own: Pair) -> None:
    dispatcher, simulated = own
    put(dispatcher, "/v1/providers/bad", unresolved(simulated.at("bad")))

    def health() -> dict[str, Any]:
        status, answer = dispatcher.call("GET", "/v1/providers/bad")
        assert status == 200
        found: dict[str, Any] = answer["health"]
        return found

    until(lambda: health()["breaker"] == "open", "the provider to be out, without a message")
    assert health()["reason"] == "auth: configuration"
    assert health()["share"] == 0.0
    put(dispatcher, "/v1/providers/other", webhook(simulated.at("other")))
    told = [line for line in dispatcher.words(1_000).splitlines() if "cannot be used" in line]
    assert len(told) == 1
    assert f"sender bad: the provider cannot be used: options.secret: the environment variable {NOPE}" in told[0]
    assert "Traceback" not in dispatcher.words(1_000)


def test_a_port_that_a_killed_dispatcher_still_holds_is_waited_for(own: Pair) -> None:
    dispatcher, _ = own
    assert dispatcher.process is not None
    dispatcher.process.kill()
    dispatcher.process.wait()
    dispatcher.up()
    assert dispatcher.call("GET", "/readyz")[0] == 200
    assert dispatcher.call("GET", "/v1/providers/bad")[0] == 200, "and it has the data"


def test_a_draining_dispatcher_says_so_until_its_messages_have_ended(own: Pair) -> None:
    dispatcher, simulated = own
    for name in ("sms-a", "sms-b"):
        put(dispatcher, f"/v1/providers/{name}", webhook(simulated.at(name), timeout_s=8.0))
        simulated.patch(name, hang=1.0)
    message_of(send(dispatcher, notice("drain", phone(7, 1), "drain")))
    until(lambda: bool(simulated.journal()), "the message to hang at a provider")
    assert dispatcher.process is not None
    dispatcher.process.send_signal(signal.SIGTERM)
    until(lambda: dispatcher.call("GET", "/readyz")[0] == 503, "the drain")
    for _ in range(ASKED):
        status, problem = dispatcher.call("GET", "/readyz")
        assert (status, problem["detail"]) == (503, "draining")
        status, problem = dispatcher.call("POST", "/v1/triggers", notice("late", phone(7, 2), "late"))
        assert (status, problem["detail"]) == (503, "draining")
        time.sleep(0.1)
    assert dispatcher.process.wait(60) == 0


def test_doctor_looks_at_the_data_as_they_lie_there(own: Pair) -> None:
    dispatcher, _ = own
    assert dispatcher.process is not None
    assert dispatcher.process.poll() is not None, "the test before this one has ended it"
    other = dispatcher.place / "doctor.toml"
    other.write_text(toml_of({**dispatcher.settings, "partitions": PARTITIONS * 2}))
    done = command("doctor", "--config", str(other))
    assert done.returncode == 1
    assert f"partitions: this store was made with {PARTITIONS}" in done.stdout
    assert "provider bad: options.secret" in done.stdout, "the catalog's, which no configuration names"
    assert "provider sms-a: options are whole" in done.stdout
    started = command("up", "--config", str(other))
    assert started.returncode == 1
    assert f"partitions: this store was made with {PARTITIONS}" in started.stderr


def test_doctor_looks_at_the_data_of_one_that_runs(own: Pair) -> None:
    dispatcher, _ = own
    dispatcher.up()
    other = dispatcher.place / "doctor.toml"
    other.write_text(toml_of({**dispatcher.settings, "http": {"port": 0}}))
    done = command("doctor", "--config", str(other))
    assert "of the dispatcher that runs on data_dir" in done.stdout
    assert "provider bad: options.secret" in done.stdout
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert len(broken) == 1
    assert dispatcher.call("DELETE", "/v1/providers/bad")[0] == 204
    done = command("doctor", "--config", str(other))
    assert done.returncode == 0, done.stdout


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
