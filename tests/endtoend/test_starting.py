"""Starts that are broken off or that follow a death; and what callers are told at the end."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from config.show import toml_of
from tests.commands import command
from tests.endtoend.conftest import Keeper, Pair
from tests.endtoend.talk import PARTITIONS, notice, phone
from tests.endtoend.test_catalog_live import message_of, put, send, webhook
from tests.live import Live, alive, until

NOPE = "DISPATCHER_TEST_OF_NOTHING"
ASKED = 20


@pytest.fixture
def lasting(pair: Pair) -> Pair:
    """The shared dispatcher, which has the same port at its next start."""
    dispatcher, _ = pair
    dispatcher.settings["http"] = {"port": int(dispatcher.url.rsplit(":", 1)[1])}
    return pair


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


# -- one provider's secret is nowhere; the tests below follow each other, and nobody has the dispatcher behind them


def test_a_provider_that_cannot_be_used_is_told_once_and_is_out(lasting: Pair) -> None:
    dispatcher, simulated = lasting
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


def test_a_port_that_a_killed_dispatcher_still_holds_is_waited_for(lasting: Pair) -> None:
    dispatcher, _ = lasting
    assert dispatcher.process is not None
    dispatcher.process.kill()
    dispatcher.process.wait()
    dispatcher.up()
    assert dispatcher.call("GET", "/readyz")[0] == 200
    assert dispatcher.call("GET", "/v1/providers/bad")[0] == 200, "and it has the data"


def test_doctor_looks_at_the_data_of_one_that_runs(lasting: Pair) -> None:
    dispatcher, simulated = lasting
    other = dispatcher.place / "doctor.toml"
    other.write_text(toml_of({**dispatcher.settings, "http": {"port": 0}}))
    done = command("doctor", "--config", str(other))
    assert "of the dispatcher that runs on data_dir" in done.stdout
    assert "provider bad: providers.bad.options.secret" in done.stdout
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert len(broken) == 1
    assert dispatcher.call("DELETE", "/v1/providers/bad")[0] == 204
    done = command("doctor", "--config", str(other))
    assert done.returncode == 0, done.stdout
    put(dispatcher, "/v1/providers/bad", unresolved(simulated.at("bad")))


def test_a_draining_dispatcher_says_so_until_its_messages_have_ended(lasting: Pair) -> None:
    dispatcher, simulated = lasting
    for name in ("sms-a", "sms-b"):
        put(dispatcher, f"/v1/providers/{name}", webhook(simulated.at(name), timeout_s=8.0))
        simulated.patch(name, hang=1.0)
    dispatcher.call("DELETE", "/v1/providers/other")
    put(dispatcher, "/v1/routes", [{"match": {"channels": ["sms"]}, "providers": [{"id": "sms-a"}, {"id": "sms-b"}]}])
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


def test_doctor_looks_at_the_data_as_they_lie_there(keeper: Keeper) -> None:
    assert keeper.left is not None
    dispatcher, _ = keeper.left
    assert dispatcher.process is not None
    assert dispatcher.process.poll() is not None, "the test before this one has ended it"
    other = dispatcher.place / "doctor.toml"
    other.write_text(toml_of({**dispatcher.settings, "partitions": PARTITIONS * 2}))
    done = command("doctor", "--config", str(other))
    assert done.returncode == 1
    assert f"partitions: this store was made with {PARTITIONS}" in done.stdout
    assert "provider bad: providers.bad.options.secret" in done.stdout, "the catalog's, which no configuration names"
    assert "provider sms-a: options are whole" in done.stdout
    started = command("up", "--config", str(other))
    assert started.returncode == 1
    assert f"partitions: this store was made with {PARTITIONS}" in started.stderr
    keeper.end()
