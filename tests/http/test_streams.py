"""NDJSON streams of triggers."""

import asyncio
from itertools import count

import pytest

import dispatcher.http.stream
from dispatcher.http.ports import Unavailable
from dispatcher.http.settings import Key, Settings
from tests.http.memory import ACCEPTED, line, mixed, serving
from tests.support import run

HEAD = (
    b"POST /v1/triggers HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
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
            assert house.intake.largest_group <= 800

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


@pytest.mark.parametrize(("mode", "sent"), [("all", 401), ("failed", 301), ("none", 0)])
def test_results_modes(mode: str, sent: int) -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.judge = mixed
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
            writer.write(HEAD)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")  # before anything was sent
            for i in range(3):
                writer.write(chunk(line(i)))
                assert b'"seq":%d,"id":"t%d"' % (i, i) in await reader.readuntil(b"}\n\r\n")
            writer.write(b"0\r\n\r\n")
            assert b'"total":3' in await reader.readuntil(b"0\r\n\r\n")
            writer.close()

    run(main())


def test_overloaded_is_asked_again_and_not_reported() -> None:
    async def main() -> None:
        async with serving() as house:
            asked = count()
            house.intake.judge = lambda order: ("overloaded", "outbox_full") if next(asked) % 5 == 0 else mixed(order)
            body = b"".join(line(i) for i in range(300))
            results, summary = await house.stream(body)
            assert [r["seq"] for r in results] == list(range(300))
            assert {r["status"] for r in results} == {"accepted", "filtered", "duplicate", "intercepted"}
            assert summary["overloaded"] == 0
            assert summary["reasons"] == {"frequency": 75, "line_cap": 75}
            assert len(house.intake.orders) == 300

    run(main())


def test_a_stream_asks_again_long_before_the_minute_that_a_lane_at_a_standstill_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher.http.stream, "MOST_PAUSE_S", 0.05)

    async def main() -> None:
        async with serving() as house:
            asked = count()
            house.intake.retry_after_s = 60.0
            house.intake.judge = lambda order: ("overloaded", "outbox_full") if next(asked) < 30 else ACCEPTED
            began = asyncio.get_running_loop().time()
            _, summary = await house.stream(b"".join(line(i) for i in range(10)))
            assert (summary["accepted"], next(asked)) == (10, 40)
            assert asyncio.get_running_loop().time() - began < 15.0

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
            writer.write(HEAD + chunk(b"".join(line(i) for i in range(10)) + b'{"half'))
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


def test_a_server_that_stops_ends_its_streams_with_their_summary() -> None:
    async def main() -> None:
        async with serving() as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD + chunk(line(0)))
            await reader.readuntil(b'"seq":0')
            stopping = asyncio.create_task(house.runner.cleanup())
            assert b'"total":1,"accepted":1' in await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            await stopping

    run(main())


def test_the_key_gives_the_line() -> None:
    async def main() -> None:
        async with serving(Settings(keys=(Key("wallet", "s3", line="wallet"),))) as house:
            body = line(0) + line(1, line="wallet") + line(2, line="loan")
            results, _ = await house.stream(body, Authorization="Bearer s3")
            assert [r["reason"] for r in results] == [None, None, "line_mismatch"]
            assert {o.line for o in house.intake.orders} == {"wallet"}

    run(main())


def test_one_stream_too_many_is_refused_and_costs_the_others_nothing() -> None:
    async def main() -> None:
        async with serving(Settings(max_streams=1)) as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(HEAD)
            await reader.readuntil(b"\r\n\r\n")
            status, headers, problem = await house.call("POST", "/v1/triggers", line(0), "application/x-ndjson")
            assert (status, headers["Retry-After"], problem["detail"]) == (503, "1", "too_many_streams")
            writer.write(chunk(line(1)) + b"0\r\n\r\n")
            assert b'"accepted":1' in await reader.readuntil(b"0\r\n\r\n")
            writer.close()

    run(main())
