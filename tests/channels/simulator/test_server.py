"""The simulator as a process, driven by the webhook adapter and by raw sockets."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.adapter import Reply, Request, Written
from channels.lean import LeanTransport
from channels.standard_webhooks import signing_key
from channels.webhook import Webhook
from tests.channels.messages import message, messages
from tests.peer import Simulator, simulator
from tests.support import run, until

SECRET = "whsec_c2hhbGxub3RiZXNlZW4="


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with simulator(["a", "b"], seed=7) as running:
        yield running


@pytest.fixture
def sim(shared: Simulator) -> Simulator:
    shared.reset()
    shared.create("a")
    shared.create("b")
    return shared


def send(url: str, count: int = 2, *, key: bytes | None = None, timeout_s: float = 10) -> tuple[Reply, list[str]]:
    async def scenario() -> Reply:
        transport = LeanTransport(1, allow_private=True)
        try:
            return await transport.send(adapter.request(messages(count), time.time()), timeout_s)
        finally:
            await transport.close()

    adapter = Webhook("a", url, key)
    reply = run(scenario())
    return reply, [receipt.answer for receipt in adapter.receipts(messages(count), reply, time.time())]


class TestAnswers:
    def test_accepted_with_references(self, sim: Simulator) -> None:
        reply, answers = send(sim.at("a"))
        assert answers == ["accepted", "accepted"]
        assert len({result["ref"] for result in json.loads(reply.body)["results"]}) == 2

    @pytest.mark.parametrize(
        ("behaviour", "status", "answer"),
        [
            ({"error": 1}, 500, "transient"),
            ({"throttle": 1, "retry_after_s": 3}, 429, "throttled"),
            ({"transient": 1}, 200, "transient"),
            ({"rejected": 1}, 200, "rejected"),
            ({"invalid_recipient": 1}, 200, "invalid_recipient"),
        ],
    )
    def test_failures(self, sim: Simulator, behaviour: dict[str, Any], status: int, answer: str) -> None:
        sim.patch("a", **behaviour)
        reply, answers = send(sim.at("a"))
        assert (reply.status, answers) == (status, [answer] * 2)
        assert reply.headers.get("retry-after") == ("3" if "throttle" in behaviour else None)
        given = answer if reply.status == 200 else next(iter(behaviour))
        assert [(r["answer"], r["accepted"]) for r in sim.journal("a")] == [(given, 0)] * 2

    def test_hang_never_answers_but_is_in_the_journal(self, sim: Simulator) -> None:
        sim.patch("a", hang=1)
        with pytest.raises(Written):
            send(sim.at("a"), timeout_s=0.2)
        assert [r["answer"] for r in sim.journal("a")] == ["hang"] * 2

    def test_latency(self, sim: Simulator) -> None:
        sim.patch("a", latency={"kind": "constant", "ms": 150})
        start = time.monotonic()
        send(sim.at("a"))
        assert time.monotonic() - start >= 0.15

    def test_rate_counts_messages(self, sim: Simulator) -> None:
        sim.patch("a", rate_per_s=3)
        assert send(sim.at("a"), 2)[1] == ["accepted"] * 2
        reply, answers = send(sim.at("a"), 2)
        assert (answers, reply.headers["retry-after"]) == (["throttled"] * 2, "1")
        assert send(sim.at("a"), 1)[1] == ["accepted"]

    def test_providers_are_apart(self, sim: Simulator) -> None:
        sim.patch("a", error=1)
        assert send(sim.at("b"))[1] == ["accepted"] * 2

    def test_unreadable_batch_is_a_400(self, sim: Simulator) -> None:
        assert sim.call("POST", "/p/a", {"messages": [{"to": "x"}]})[0] == 400
        assert sim.stats()["a"]["requests"] == 0


class TestJournal:
    def test_exact_record(self, sim: Simulator) -> None:
        before_s = time.time()
        send(sim.at("a"), 1)
        sim.patch("a", rejected=1)
        send(sim.at("a"), 1)
        [record] = sim.journal("a")
        assert before_s - 0.01 <= record.pop("first_s") <= time.time() + 0.01
        wanted = message("m0")
        assert record == {
            "provider": "a",
            "id": "m0",
            "to": wanted.to,
            "channel": "sms",
            "type": "notice",
            "line": "wallet",
            "template": "pay_ok",
            "times": 2,
            "answer": "rejected",
            "accepted": 1,
        }

    def test_duplicates_are_counted(self, sim: Simulator) -> None:
        for _ in range(3):
            send(sim.at("a"), 2)
        stats = sim.stats()["a"]
        assert (stats["requests"], stats["messages"], stats["distinct"]) == (3, 6, 2)
        assert (stats["accepted"], stats["duplicates"], stats["answers"]) == (2, 4, {"accepted": 6})

    def test_read_all_or_accepted_only(self, sim: Simulator) -> None:
        send(sim.at("a"), 1)
        sim.patch("b", rejected=1)
        send(sim.at("b"), 1)
        assert {record["provider"] for record in sim.journal()} == {"a", "b"}
        assert {record["provider"] for record in sim.journal(accepted=True)} == {"a"}

    def test_large_journal_streams(self, sim: Simulator) -> None:
        batch = [{"id": f"m{i}", "to": "x" * 200} for i in range(20_000)]
        assert sim.call("POST", "/p/a", {"messages": batch})[0] == 200
        assert [record["id"] for record in sim.journal("a")] == [one["id"] for one in batch]

    def test_survives_a_kill(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        with simulator(["a"], journal=path) as first:
            send(first.at("a"), 2)
            wanted = first.journal()
            first.kill()
        with simulator(["a"], journal=path) as second:
            assert second.journal() == wanted
            refs = json.loads(send(second.at("a"), 1)[0].body)["results"]
            assert refs[0]["ref"] == "a-3"


class TestControl:
    def test_bad_behaviour_names_the_field(self, sim: Simulator) -> None:
        status, body = sim.call("PATCH", "/p/a/behaviour", {"latency": {"kind": "constant", "ms": "slow"}})
        assert status == 422
        assert json.loads(body)["errors"][0]["path"] == "latency.ms"

    def test_put_creates(self, sim: Simulator) -> None:
        assert sim.call("POST", "/p/new", {"messages": []})[0] == 404
        assert sim.call("PATCH", "/p/new/behaviour", {})[0] == 404
        assert sim.call("PUT", "/p/new/behaviour", {"eror": 1})[0] == 422
        assert sim.call("GET", "/p/new/behaviour")[0] == 404
        assert sim.call("PUT", "/p/new/behaviour", {"error": 1})[0] == 201
        assert send(sim.at("new"))[1] == ["transient"] * 2
        assert sim.call("PUT", "/p/bad%20name/behaviour", {})[0] == 422

    def test_rest(self, sim: Simulator) -> None:
        assert sim.call("GET", "/healthz")[0] == 200
        assert sim.call("GET", "/nowhere")[0] == 404
        assert sim.call("GET", "/p/a")[0] == 404
        assert json.loads(sim.call("GET", "/p/a/behaviour")[1])["error"] == 0.0


def post(body: bytes, path: bytes = b"/p/a", *, close: bool = False) -> bytes:
    extra = b"Connection: close\r\n" if close else b""
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (path, extra, len(body), body)


def batch(*ids: str) -> bytes:
    return json.dumps({"messages": [{"id": id_} for id_ in ids]}).encode()


def raw(sim: Simulator, data: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    host, port = sim.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
        return b"".join(parts)


class TestWire:
    def test_pipelined_answers_come_in_order_whatever_their_latency(self, sim: Simulator) -> None:
        sim.patch("a", latency={"kind": "uniform", "low_ms": 0, "high_ms": 30})
        count = 200
        data = b"".join(post(batch(f"m{i}"), b"/p/a" if i % 2 else b"/p/b") for i in range(count))
        answer = raw(sim, data + post(batch("last"), close=True))
        found = [answer.index(b'"id":"m%d"' % i) for i in range(count)]
        assert found == sorted(found)
        assert answer.endswith(b"}]}")

    def test_nothing_behind_a_hang_is_answered(self, sim: Simulator) -> None:
        sim.patch("a", hang=1)
        host, port = sim.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            ids = [f"m{i}" for i in range(200)]
            connection.sendall(post(batch("h")) + b"".join(post(batch(id_), b"/p/b") for id_ in ids))
            run(until(lambda: len(sim.journal("b")) == 200, "all requests in the journal"))
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)

    def test_request_in_single_bytes(self, sim: Simulator) -> None:
        host, port = sim.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in post(batch("m1"), close=True):
                connection.send(bytes([byte]))
            assert b'"accepted"' in connection.recv(65_536)

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"POST /p/a HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
            (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
            (b"POST /p/a HTTP/1.1\r\nContent-Length: 70000000\r\n\r\n" + b"x" * 68_000_000, 413),
        ],
    )
    def test_odd_requests(self, sim: Simulator, data: bytes, status: int) -> None:
        try:
            answer = raw(sim, data)
        except ConnectionError:  # the refusal may be overtaken by the reset of what was still being sent
            assert status == 413
        else:
            assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert sim.call("GET", "/healthz")[0] == 200


def test_signature_is_checked() -> None:
    with simulator(["a"], secret=SECRET) as sim:
        assert send(sim.at("a"))[1] == ["auth", "auth"]
        assert send(sim.at("a"), key=b"other")[1] == ["auth", "auth"]
        assert send(sim.at("a"), key=signing_key(SECRET))[1] == ["accepted", "accepted"]


def test_reports_are_posted(sim: Simulator) -> None:
    async def scenario() -> None:
        received: list[dict[str, Any]] = []
        refusals = 1

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal refusals
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if refusals:
                refusals -= 1
                writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                received.extend(json.loads(body))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/reports/a/s"
        await asyncio.to_thread(sim.patch, "a", reports={"url": url, "delay_s": 0.05, "undelivered_rate": 0.5})
        transport = LeanTransport(1, allow_private=True)
        reply = await transport.send(Webhook("a", sim.at("a")).request(messages(200), 0), 10)
        await transport.close()
        await until(lambda: len(received) >= 200, "all reports", 10)
        server.close()
        refs = {result["id"]: result["ref"] for result in json.loads(reply.body)["results"]}
        assert {report["id"]: report["ref"] for report in received} == refs
        statuses = [report["status"] for report in received]
        assert 60 < statuses.count("undelivered") < 140
        assert set(statuses) == {"delivered", "undelivered"}

    run(scenario())


def test_many_connections_at_once(sim: Simulator) -> None:
    async def scenario() -> None:
        transport = LeanTransport(64, allow_private=True)
        adapter = Webhook("a", sim.at("a"))

        async def one(i: int) -> Request:
            request = adapter.request([message(f"n{i}")], 0)
            assert (await transport.send(request, 30)).status == 200
            return request

        await asyncio.gather(*(one(i) for i in range(500)))
        await transport.close()

    run(scenario())
    stats = sim.stats()["a"]
    assert (stats["requests"], stats["accepted"], stats["duplicates"]) == (500, 500, 0)
