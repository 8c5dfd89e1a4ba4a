"""Scenarios and ports of one's own, over real sockets."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.adapter import NotWritten, Written
from channels.lean import LeanTransport
from channels.webhook import Webhook
from tests.channels.messages import message
from tests.peer import Simulator, simulator
from tests.support import run, until


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    running = Simulator.start("--port", "0", "--seed", "7", "--own-ports", "--provider", "a", "--provider", "b")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def sim(shared: Simulator) -> Simulator:
    shared.reset()
    for name in "ab":
        shared.call("DELETE", f"/p/{name}/scenario")
        shared.create(name)
    return shared


def own_url(sim: Simulator, name: str = "a") -> str:
    url: str = json.loads(sim.call("GET", "/providers")[1])[name]["url"]
    return url


def word(url: str, id_: str = "m0", timeout_s: float = 5.0) -> str:
    """One message at a provider: its answer, or which error."""

    async def scenario() -> str:
        transport = LeanTransport(1, allow_private=True)
        adapter = Webhook("a", url)
        try:
            reply = await transport.send(adapter.request([message(id_)], 0), timeout_s)
        except (NotWritten, Written) as error:
            return type(error).__name__
        finally:
            await transport.close()
        return adapter.receipts([message(id_)], reply, 0)[0].answer

    return run(scenario())


def words_until_accepted(sim: Simulator, timeout_s: float = 20.0) -> list[str]:
    """What one message after the other comes to at the provider's own port."""
    seen: list[str] = []
    deadline_s = time.monotonic() + timeout_s
    while "accepted" not in seen:
        assert time.monotonic() < deadline_s, seen
        seen.append(word(own_url(sim)))
    return seen


def test_reset_is_written_and_not_taken(sim: Simulator) -> None:
    sim.patch("a", reset=1)
    start = time.monotonic()
    assert word(sim.at("a")) == "Written"
    assert time.monotonic() - start < 2
    assert [(r["answer"], r["accepted"]) for r in sim.journal("a")] == [("reset", 0)]


def test_silent_is_taken_and_never_answered(sim: Simulator) -> None:
    sim.patch("a", silent=1)
    assert word(sim.at("a"), timeout_s=0.3) == "Written"
    assert [(r["answer"], r["accepted"]) for r in sim.journal("a")] == [("accepted", 1)]
    stats = sim.stats()["a"]
    assert (stats["requests"], stats["accepted"], stats["answers"]) == (1, 1, {"accepted": 1})


def test_silent_is_not_above_the_rate(sim: Simulator) -> None:
    sim.patch("a", silent=1, rate_per_s=1)
    assert [word(sim.at("a"), id_, 0.3) for id_ in ("m0", "m1")] == ["Written", "throttled"]


def test_a_port_of_its_own_refuses_and_takes_again(sim: Simulator) -> None:
    assert own_url(sim) != own_url(sim, "b")
    assert word(own_url(sim)) == "accepted"
    for _ in range(3):
        sim.patch("a", refuse=True)
        assert word(own_url(sim)) == "NotWritten"
        assert word(sim.at("a"), "common") == "Written"
        assert word(own_url(sim, "b")) == "accepted"
        sim.patch("a", refuse=False)
        words_until_accepted(sim)
    assert {r["id"]: r["accepted"] for r in sim.journal("a")} == {"m0": 4, "common": 0}


def test_refusing_resets_the_connections_there_are(sim: Simulator) -> None:
    sim.patch("a", latency={"kind": "constant", "ms": 30_000})
    host, port = own_url(sim).removeprefix("http://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        body = b'{"messages":[{"id":"late"}]}'
        connection.sendall(b"POST /p/a HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        run(until(lambda: len(sim.journal("a")) == 1, "the request to be read"))
        sim.patch("a", refuse=True)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert [record["accepted"] for record in sim.journal("a")] == [1]  # as with a real one: taken, and nobody knows


class TestScenario:
    def test_steps_come_and_go(self, sim: Simulator) -> None:
        sim.patch("a", rejected=1)
        order = {
            "steps": [
                {"at_s": 0, "behaviour": {"error": 1}, "note": "fails"},
                {"at_s": 1.0},
                {"at_s": 2.0, "behaviour": {"throttle": 1}},
            ],
            "ends_s": 3.0,
        }
        status, body = sim.call("PUT", "/p/a/scenario", order)
        assert (status, json.loads(body)["note"]) == (200, "fails")
        seen: list[str] = []
        start = time.monotonic()
        while time.monotonic() - start < 3.5:
            answer = word(sim.at("a"))
            if not seen or seen[-1] != answer:
                seen.append(answer)
            time.sleep(0.02)
        assert seen == ["transient", "rejected", "throttled", "rejected"]
        state = json.loads(sim.call("GET", "/p/a/scenario")[1])
        assert (state["over"], state["step"], state["behaviour"]["rejected"]) == (True, None, 1.0)

    def test_stopping_puts_everything_back(self, sim: Simulator) -> None:
        sim.patch("a", latency={"kind": "constant", "ms": 1})
        before = sim.call("GET", "/p/a/behaviour")
        assert sim.call("PUT", "/p/a/scenario", {"name": "blackout", "stretch": 100})[0] == 200
        assert word(own_url(sim)) == "Written"
        assert sim.call("GET", "/p/a/behaviour") == before
        assert json.loads(sim.call("DELETE", "/p/a/scenario")[1])["over"] is True
        assert word(own_url(sim)) == "accepted"
        assert sim.call("GET", "/p/a/behaviour") == before

    def test_blackout_resets_then_refuses_then_heals(self, sim: Simulator) -> None:
        assert sim.call("PUT", "/p/a/scenario", {"name": "blackout", "stretch": 0.1})[0] == 200
        seen = words_until_accepted(sim)
        assert seen == sorted(seen, key=["Written", "NotWritten", "accepted"].index)
        assert {"Written", "NotWritten"} <= set(seen)

    def test_a_patch_is_of_the_own_behaviour_under_the_scenario(self, sim: Simulator) -> None:
        order = {"steps": [{"at_s": 0, "behaviour": {"error": 0.5, "retry_after_s": 9}}], "ends_s": 600}
        assert sim.call("PUT", "/p/a/scenario", order)[0] == 200
        assert sim.patch("a", latency={"kind": "constant", "ms": 2})["error"] == 0.0
        now = json.loads(sim.call("GET", "/p/a/scenario")[1])["behaviour"]
        assert (now["error"], now["latency"]["ms"]) == (0.5, 2.0)
        status, body = sim.call("PATCH", "/p/a/behaviour", {"hang": 0.6})
        assert (status, json.loads(body)["errors"][0]["path"]) == (422, "steps[0].behaviour.error")

    def test_the_same_seed_gives_the_same_fates(self, sim: Simulator) -> None:
        def fates() -> list[str]:
            assert sim.call("PUT", "/p/a/scenario", {"name": "brownout", "seed": 5, "stretch": 100})[0] == 200
            return [word(sim.at("a")) for _ in range(12)]

        assert fates() == fates()

    def test_toml_and_what_is_neither(self, sim: Simulator) -> None:
        url = sim.url.removeprefix("http://").split(":")

        def put(body: bytes) -> int:
            head = b"PUT /p/a/scenario HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            with socket.create_connection((url[0], int(url[1])), timeout=10) as connection:
                connection.sendall(head + body)
                return int(connection.recv(65_536).split()[1])

        assert put(b"ends_s = 60\n[[steps]]\nat_s = 0\nbehaviour = { invalid_recipient = 1 }\n") == 200
        assert word(sim.at("a")) == "invalid_recipient"
        assert put(b"= nothing") == 400
        assert put(b"\xff") == 400
        assert put(b"[" * 100_000) == 400
        assert sim.call("PUT", "/p/nobody/scenario", {"name": "blackout"})[0] == 404
        assert sim.call("PUT", "/p/a/scenario", {"name": "no-such"})[0] == 422
        assert word(sim.at("a")) == "invalid_recipient"  # a refused order leaves the running one

    def test_shipped_ones_can_be_read_and_put(self, sim: Simulator) -> None:
        for name, document in json.loads(sim.call("GET", "/scenarios")[1]).items():
            assert sim.call("PUT", "/p/b/scenario", {"name": name, **document})[0] == 200


def test_from_the_command_line(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"steps": [{"at_s": 0, "behaviour": {"rejected": 1}}], "ends_s": 60}))
    arguments = ("--port", "0", "--provider", "a", "--provider", "b", "--scenario", f"a={own}", "--scenario", "b=hang")
    running = Simulator.start(*arguments)
    try:
        assert word(running.at("a")) == "rejected"
        assert word(running.at("b"), timeout_s=0.3) == "Written"
    finally:
        running.stop()


def test_without_scenario_there_is_none() -> None:
    with simulator(["a"]) as sim:
        assert sim.call("GET", "/p/a/scenario")[0] == 404
        assert sim.call("DELETE", "/p/a/scenario")[0] == 404
        assert own_url(sim) == sim.at("a")


def test_the_doors_are_open_when_it_says_ready() -> None:
    async def scenario(url: str) -> None:
        host, port = url.removeprefix("http://").partition("/")[0].split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()

    arguments = ("--port", "0", "--own-ports", *(part for i in range(20) for part in ("--provider", f"p{i}")))
    running = Simulator.start(*arguments)
    try:
        for one in json.loads(running.call("GET", "/providers")[1]).values():
            run(scenario(one["url"]))
    finally:
        running.stop()
