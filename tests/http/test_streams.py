"""NDJSON streams of triggers."""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from itertools import count

import msgspec
import pytest

from dispatcher.http.framing import Framer
from dispatcher.http.ports import Unavailable
from dispatcher.http.settings import Key, Settings
from dispatcher.trigger import Order
from tests.http.memory import ACCEPTED, Verdict, line, serving
from tests.support import run, until

HEAD = (
    b"POST /v1/triggers%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_every_line_is_answered_once_by_its_seq() -> None:
    async def main() -> None:
        async with serving() as house:
            results, summary = await house.stream(b"".join(line(i) for i in range(3_000)))
            assert [(r["seq"], r["id"], r["status"]) for r in results] == [
                (i, f"t{i}", "accepted") for i in range(3_000)
            ]
            assert summary == {
                "total": 3_000, "accepted": 3_000, "filtered": 0, "intercepted": 0, "rejected": 0, "duplicate": 0,
                "overloaded": 0, "reasons": {},
            }  # fmt: skip
            assert sorted(o.id for o in house.intake.orders) == sorted(f"t{i}" for i in range(3_000))
            assert house.intake.largest_group <= 400

    run(main())


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"", ""),
        (b"\n\r\n  \n", ""),
        (line(1), "a"),
        (line(1).strip(), "a"),
        (b"\xef\xbb\xbf" + line(1), "a"),
        (line(1).replace(b"\n", b"\r\n") * 2, "aa"),
        (b"\n\n" + line(1) + b"\n\r\n" + line(2) + b"\n", "aa"),
        (line(1) + b"{broken\n" + line(2), "ara"),
        (line(1) + b'{"template":"\xff\xfe"}\n' + line(2), "ara"),
        (line(1) + b"[1]\n7\nnull\n" + line(2), "arrra"),
        (line(1) + b'{"template":"a","user":"u","x":1}\n', "ar"),
        (line(1) + b'{"template":"a"}\n', "ar"),
        (line(1) + b'{"template":"a","user":"u","params":{"a":"' + b"x" * 1_000_000 + b'"}}\n' + line(2), "ara"),
        (b'{"template":"a","user":"u","params":{"a":"' + b"x" * 1_000_000, "r"),
        (line(1, params={"a": "x" * 65_000}) + line(2), "aa"),
        (line(1, params={"a": "x" * 65_536}) + line(2), "ra"),
        (line(1).strip() + line(2), "r"),
        (line(1) + line(2)[:-3], "ar"),
        (line(1) + b"\x00\n" + line(2), "ara"),
    ],
)
def test_a_bad_line_costs_only_itself(body: bytes, statuses: str) -> None:
    async def main() -> None:
        async with serving() as house:
            results, summary = await house.stream(body)
            assert [r["seq"] for r in results] == list(range(len(statuses)))
            assert "".join(r["status"][0] for r in results) == statuses
            assert all(r["reason"].startswith("invalid: ") for r in results if r["status"] == "rejected")
            assert (summary["total"], summary["accepted"]) == (len(statuses), statuses.count("a"))
            assert sum(summary["reasons"].values()) == summary["rejected"] == statuses.count("r")

    run(main())


def _mixed(order: Order) -> Verdict:
    return [ACCEPTED, ("filtered", "frequency"), ("duplicate", None), ("intercepted", "line_cap")][int(order.id[1:]) % 4]


@pytest.mark.parametrize(("mode", "sent"), [("all", 401), ("failed", 301), ("none", 0)])
def test_results_modes(mode: str, sent: int) -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.judge = _mixed
            body = b"".join(line(i) for i in range(400)) + b"{}\n"
            results, summary = await house.stream(body, f"?results={mode}")
            assert len(results) == sent
            assert summary == {
                "total": 401, "accepted": 100, "filtered": 100, "intercepted": 100, "rejected": 1, "duplicate": 100,
                "overloaded": 0,
                "reasons": {"frequency": 100, "line_cap": 100, "invalid: template: required field is missing": 1},
            }  # fmt: skip

    run(main())


def test_results_come_while_the_stream_is_open() -> None:
    async def main() -> None:
        async with serving() as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD % b"")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")  # before anything was sent
            for i in range(3):
                writer.write(chunk(line(i)))
                assert b'"seq":%d,"id":"t%d"' % (i, i) in await reader.readuntil(b"}\n\r\n")
            writer.write(b"0\r\n\r\n")
            assert b'"total":3' in await reader.readuntil(b"0\r\n\r\n")
            writer.close()

    run(main())


def test_a_slow_shard_stops_the_reading() -> None:
    async def main() -> None:
        async with serving(Settings(stream_triggers=1_000)) as house:
            house.intake.gate.clear()
            sent = 0

            async def body() -> AsyncIterator[bytes]:
                nonlocal sent
                for i in range(100):
                    yield b"".join(line(i * 1_000 + j, params={"a": "x" * 100}) for j in range(1_000))
                    sent += 1

            streaming = asyncio.create_task(house.stream(body()))
            await until(lambda: house.intake.in_flight >= 1_000, "a full window")
            stuck = -1
            while stuck != sent:  # until the socket buffers are full too
                stuck = sent
                await asyncio.sleep(0.2)
            assert sent < 80
            assert house.intake.in_flight < 4_000
            house.intake.gate.set()
            _, summary = await streaming
            assert summary["accepted"] == 100_000

    run(main())


def test_a_slow_reader_stops_the_reading() -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.keep = False
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD % b"")
            block = chunk(b"".join(line(i) for i in range(1_000)))
            sending = asyncio.create_task(_send(writer, block, 400))
            stuck = -1
            while stuck != house.intake.total:
                stuck = house.intake.total
                await asyncio.sleep(0.3)
            assert 0 < stuck < 250_000
            lines = 0
            while not (data := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
                lines += data.count(b'"seq"')
            await sending
            assert lines + data.count(b'"seq"') >= 399_000  # a read may cut a word in two
            assert house.intake.total == 400_000
            writer.close()

    run(main())


async def _send(writer: asyncio.StreamWriter, block: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(block)
        await writer.drain()
    writer.write(b"0\r\n\r\n")


@pytest.mark.parametrize("gated", [True, False])
def test_a_caller_that_vanishes_leaves_nothing_behind(gated: bool) -> None:
    async def main() -> None:
        async with serving() as house:
            if gated:
                house.intake.gate.clear()
            else:
                house.intake.judge = lambda order: ("overloaded", "outbox_full")
            _, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD % b"" + chunk(b"".join(line(i) for i in range(500)) + line(500)[:-1]))
            await until(lambda: house.intake.most_in_flight > 100, "triggers under way")
            writer.transport.abort()
            await asyncio.sleep(0.05)
            house.intake.gate.set()
            await until(lambda: house.intake.in_flight == 0, "the end of what was under way")
            # The last line had no end: nobody knows whether it was whole, so it is not taken.
            assert all(order.id != "t500" for order in house.intake.orders)

    run(main())  # `serving` fails when a task is left


def test_a_caller_that_vanishes_while_results_wait() -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.keep = False
            connection = socket.create_connection(("127.0.0.1", house.port))
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            body = chunk(b"".join(line(i) for i in range(1_000)))
            sending = asyncio.create_task(loop.sock_sendall(connection, HEAD % b"" + body * 2_000))
            stuck = -1
            while stuck != house.intake.total or not stuck:
                stuck = house.intake.total
                await asyncio.sleep(0.2)
            sending.cancel()
            connection.close()

    run(main())


def test_overloaded_is_asked_again_and_not_reported() -> None:
    async def main() -> None:
        async with serving() as house:
            asked = count()
            house.intake.judge = lambda order: ("overloaded", "outbox_full") if next(asked) % 5 == 0 else _mixed(order)
            body = b"".join(line(i) for i in range(300))
            results, summary = await house.stream(body)
            assert [r["seq"] for r in results] == list(range(300))
            assert {r["status"] for r in results} == {"accepted", "filtered", "duplicate", "intercepted"}
            assert summary["overloaded"] == 0
            assert summary["reasons"] == {"frequency": 75, "line_cap": 75}
            assert len(house.intake.orders) == 300

    run(main())


def test_overloaded_is_reported_when_patience_ends() -> None:
    async def main() -> None:
        async with serving(Settings(stream_patience_s=0.3)) as house:
            house.intake.judge = lambda order: ("overloaded", "outbox_full") if order.id < "t5" else ACCEPTED
            results, summary = await house.stream(b"".join(line(i) for i in range(10)))
            assert [(r["status"], r["reason"]) for r in results] == [("overloaded", "outbox_full")] * 5 + [
                ("accepted", None)
            ] * 5
            assert summary["overloaded"] == 5
            assert summary["reasons"] == {"outbox_full": 5}

    run(main())


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(Unavailable("shard_unavailable"), "shard_unavailable"), (RuntimeError("secret"), "gateway_error")],
)
def test_a_shard_that_cannot_be_asked(failure: Exception, reason: str) -> None:
    async def main() -> None:
        async with serving(Settings(stream_patience_s=0)) as house:
            house.intake.failure = failure
            results, summary = await house.stream(line(0) + line(1))
            assert [(r["id"], r["status"], r["reason"]) for r in results] == [
                ("t0", "overloaded", reason), ("t1", "overloaded", reason),
            ]  # fmt: skip
            assert summary["reasons"] == {reason: 2}

    run(main())


def test_draining_ends_a_stream_with_its_summary() -> None:
    async def main() -> None:
        async with serving(Settings(drain_poll_s=0.01)) as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD % b"" + chunk(b"".join(line(i) for i in range(10)) + b'{"half'))
            answer = b""
            while answer.count(b'"seq"') < 10:
                answer += await reader.read(65_536)
            house.operations.reasons = ["draining"]
            while b"0\r\n\r\n" not in answer:
                answer += await reader.read(65_536)
            assert b'{"summary":{"total":10,"accepted":10,' in answer
            status, headers, problem = await house.call("POST", "/v1/triggers", {"template": "a", "user": "u"})
            assert (status, problem["detail"]) == (503, "draining")
            assert headers["Connection"] == "close"
            assert headers["Retry-After"] == "1"
            writer.close()

    run(main())


def test_memory_is_flat() -> None:
    """300 MB through a real socket; what the process holds does not grow with them."""

    async def main() -> None:
        async with serving() as house:
            house.intake.keep = False
            block = b"".join(line(i, params={"a": "x" * 180}) for i in range(4_000))
            n = 300_000_000 // len(block)
            rss: list[int] = []

            async def body() -> AsyncIterator[bytes]:
                for i in range(n):
                    yield block
                    if i % 10 == 0:
                        rss.append(_rss_bytes())

            gc.collect()
            _, summary = await house.stream(body(), "?results=none")
            assert summary["accepted"] == n * 4_000
            assert house.intake.most_in_flight <= 8_192 + 2_000
            assert max(rss[len(rss) // 4 :]) - rss[len(rss) // 8] < 30_000_000, rss

    run(main())


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_key_gives_the_line() -> None:
    async def main() -> None:
        async with serving(Settings(keys=(Key("wallet", "s3", line="wallet"),))) as house:
            body = line(0) + line(1, line="wallet") + line(2, line="loan")
            results, _ = await house.stream(body, Authorization="Bearer s3")
            assert [r["reason"] for r in results] == [None, None, "line_mismatch"]
            assert {o.line for o in house.intake.orders} == {"wallet"}

    run(main())


def test_msgpack_is_answered_in_msgpack() -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.judge = _mixed
            triggers = [{"id": f"t{i}", "user": f"u{i}", "template": "a", "params": {"n": i}} for i in range(8)]
            triggers[3]["bad"] = 1
            big = msgspec.msgpack.encode({"template": "a" * 100_000})
            body = b"".join(msgspec.msgpack.encode(t) for t in triggers) + big + b"\x01" + b"\x81\xa8temp"
            status, headers, raw = await house.call("POST", "/v1/triggers", body, "application/x-msgpack")
            assert status == 200
            assert headers["Content-Type"] == "application/x-msgpack"
            *results, last = _maps(raw)
            results.sort(key=lambda r: r["seq"])
            assert [r["status"][0] for r in results] == list("afdrafdi" + "rrr")
            assert results[3]["id"] == "t3"
            assert [r["reason"] for r in results[8:]] == [
                "invalid: trigger: larger than 65536 bytes",
                "invalid: trigger: Expected `object`, got `int`",
                "invalid: trigger: the stream ended inside it",
            ]
            assert (last["summary"]["total"], last["summary"]["rejected"]) == (11, 4)

    run(main())


def test_a_framing_error_ends_a_msgpack_stream() -> None:
    async def main() -> None:
        async with serving() as house:
            good = msgspec.msgpack.encode({"id": "t0", "user": "u", "template": "a"})
            status, _, raw = await house.call("POST", "/v1/triggers", good + b"\xc1" + good, "application/x-msgpack")
            first, failure, last = _maps(raw)
            assert status == 200
            assert (first["status"], failure["status"], failure["seq"]) == ("accepted", "rejected", 1)
            assert failure["reason"].startswith("invalid: stream: byte 0xc1")
            assert last["summary"]["total"] == 2

    run(main())


def _maps(raw: bytes) -> list[dict[str, object]]:
    found, failure = Framer(1 << 20).feed(raw)
    assert failure is None
    return [msgspec.msgpack.decode(one) for one in found if one is not None]
