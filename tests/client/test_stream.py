"""Streams over a server that cuts, refuses, stalls and talks nonsense."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from dispatcher.client import BadAnswer, Client, GaveUp, Problem, Result, Results
from dispatcher.trigger import Trigger, trigger_decoder
from tests.client.peer import FakeDispatcher, Step, raw_server, serving
from tests.support import run, until


def triggers(count: int, template: str = "t") -> list[dict[str, Any]]:
    return [{"id": f"i{n}", "user": f"u{n}", "template": template} for n in range(count)]


def client_of(fake: FakeDispatcher, window: int = 64, patience_s: float = 10.0) -> Client:
    return Client(fake.url, window=window, patience_s=patience_s, rng=Random(1))


async def collect(client: Client, source: Any, results: Results = "all") -> list[Result]:
    return [result async for result in client.stream(source, results)]


def test_every_trigger_is_answered_once_and_counted() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            source = triggers(300) + [{"id": f"f{n}", "user": "u", "template": "filtered/frequency"} for n in range(7)]
            answered = await collect(client, source)
            assert sorted(r.seq for r in answered) == list(range(307))
            assert {r.seq: r.id for r in answered} == {n: t["id"] for n, t in enumerate(source)}
            assert answered[0].messages[0].message == "m-i0"
            summary = client.summary
            assert (summary.total, summary.accepted, summary.filtered) == (307, 300, 7)
            assert (summary.reasons, summary.reconnects, summary.resent) == ({"frequency": 7}, 0, 0)
            assert len(fake.requests) == 1

    run(scene())


def test_a_cut_stream_resends_exactly_the_unanswered_in_order() -> None:
    async def scene() -> None:
        async with serving(Step(read=40, answer=25), Step(read=10, answer=10)) as fake, client_of(fake) as client:
            answered = await collect(client, triggers(200))
            assert sorted(r.seq for r in answered) == list(range(200))
            assert {r.status for r in answered} == {"accepted"}
            assert fake.requests[1][0]["id"] == "i25"
            assert fake.requests[2][0]["id"] == "i35"
            for request in fake.requests:
                numbers = [int(line["id"][1:]) for line in request]
                assert numbers == sorted(numbers)
            summary = client.summary
            assert (summary.total, summary.accepted, summary.duplicate, summary.reconnects) == (200, 200, 0, 2)
            assert summary.resent > 0

    run(scene())


def test_a_cut_inside_a_result_line_loses_only_that_line() -> None:
    async def scene() -> None:
        torn = b'{"seq":3,"id":"i3","sta'
        async with serving(Step(read=8, answer=3, torn=torn)) as fake, client_of(fake) as client:
            answered = await collect(client, triggers(8))
            assert sorted((r.seq, r.status) for r in answered) == [(n, "accepted") for n in range(8)]
            assert [line["id"] for line in fake.requests[1]] == ["i3", "i4", "i5", "i6", "i7"]

    run(scene())


def test_a_duplicate_stays_one_unless_it_is_of_an_own_resend() -> None:
    async def scene() -> None:
        async with serving(Step(read=4, answer=1)) as fake, client_of(fake) as client:
            fake.memory["old", "u"] = {"id": "old", "status": "accepted", "reason": None, "messages": []}
            source = [
                {"id": "old", "user": "u", "template": "t"},
                {"id": "a", "user": "u", "template": "filtered/frequency"},
                {"id": "a", "user": "u", "template": "filtered/frequency"},
                {"id": "a", "user": "v", "template": "t"},
            ]
            answered = {r.seq: r for r in await collect(client, source)}
            assert [answered[n].status for n in range(4)] == ["duplicate", "filtered", "duplicate", "accepted"]
            assert answered[1].reason == "frequency"
            assert answered[1].first is None
            assert answered[0].first is not None
            assert answered[3].messages[0].message == "m-a"
            assert client.summary.duplicate == 2

    run(scene())


@pytest.mark.parametrize("results", ["failed", "none"])
def test_unasked_results_are_counted_exactly_over_cuts(results: Results) -> None:
    async def scene() -> None:
        script = [Step(read=20, answer=20), Step(), Step(read=30, answer=0), Step(read=5, summarise=True)]
        async with serving(*script) as fake, client_of(fake) as client:
            source = triggers(150)
            for n in (0, 33, 70, 149):
                source[n]["template"] = "filtered/quiet_hours"
            answered = await collect(client, source, results)
            wanted = [0, 33, 70, 149] if results == "failed" else []
            assert sorted(r.seq for r in answered) == wanted
            summary = client.summary
            assert (summary.total, summary.accepted, summary.filtered, summary.duplicate) == (150, 146, 4, 0)
            assert summary.reconnects == 3
            assert set(fake.wants) == {"failed"}
            assert max(map(len, fake.requests)) <= 32

    run(scene())


def test_a_summary_that_does_not_agree_is_not_believed() -> None:
    async def scene() -> None:
        lie = b'{"summary":{"total":10,"accepted":9}}\n'
        async with serving(Step(garbage=lie)) as fake, client_of(fake) as client:
            assert await collect(client, triggers(10), "failed") == []
            assert client.summary.accepted == 10
            assert [line["id"] for line in fake.requests[0]] == [f"i{n}" for n in range(10)]

    run(scene())


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        async with serving(Step(status=status, headers={"Retry-After": "1"})) as fake, client_of(fake) as client:
            start = loop.time()
            assert len(await collect(client, triggers(3))) == 3
            assert loop.time() - start >= 1.0
            assert client.summary.reconnects == 1

    run(scene())


def test_it_gives_up_when_nothing_moves() -> None:
    async def scene() -> None:
        script = [Step(status=503, document={"title": "Unavailable", "detail": "Redis is away"}) for _ in range(99)]
        async with serving(*script) as fake, client_of(fake, patience_s=0.5) as client:
            with pytest.raises(GaveUp, match="5 unanswered: 503 Redis is away") as caught:
                await collect(client, triggers(5))
            assert caught.value.unanswered == 5

    run(scene())


def test_a_silent_server_is_left_and_given_up() -> None:
    async def scene() -> None:
        gate = asyncio.Event()
        async with serving(*(Step(gate=gate) for _ in range(9))) as fake, client_of(fake, patience_s=0.5) as client:
            with pytest.raises(GaveUp, match=r"3 unanswered: .*no answer for 0\.25 s"):
                await collect(client, triggers(3))
            gate.set()

    run(scene())


def test_a_refused_request_is_a_problem_and_not_repeated() -> None:
    async def scene() -> None:
        document = {"title": "Unauthorized", "detail": "no such key", "errors": [{"path": "key", "message": "bad"}]}
        async with serving(Step(status=401, document=document)) as fake, Client(fake.url, "k") as client:
            with pytest.raises(Problem, match="401 Unauthorized: no such key: key: bad") as caught:
                await collect(client, triggers(5))
            assert (caught.value.status, caught.value.title) == (401, "Unauthorized")
            assert fake.keys == ["Bearer k"]

    run(scene())


def test_a_refusal_is_heard_while_sending_much() -> None:
    async def scene() -> None:
        script = [Step(status=403, document={"title": "Forbidden"}) for _ in range(50)]
        async with serving(*script) as fake, client_of(fake, window=8192) as client:
            with pytest.raises(Problem, match="403 Forbidden"):
                await collect(client, ({**t, "params": {"x": "y" * 4000}} for t in triggers(8000)))

    run(scene())


@pytest.mark.parametrize(
    "garbage",
    [b"<html>hello</html>\n", b'{"seq":9,"status":"accepted"}\n', b'{"seq":0,"status":"wow"}\n', b"\xff\xfe\n",
     b'{"summary":{"total":77}}\n', b'{"seq":-1,"status":"accepted"}\n', b"x" * 1_100_000],
)  # fmt: skip
def test_garbage_is_a_clear_error(garbage: bytes) -> None:
    async def scene() -> None:
        async with serving(Step(garbage=garbage)) as fake, client_of(fake) as client:
            with pytest.raises(BadAnswer):
                await collect(client, triggers(5))

    run(scene())


def test_what_is_no_http_is_a_clear_error() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()

    async def scene() -> None:
        async with raw_server(talk) as url, Client(url, patience_s=1) as client:
            with pytest.raises(BadAnswer, match="not an HTTP answer"):
                await collect(client, triggers(1))

    run(scene())


def test_a_slow_server_holds_the_source_back() -> None:
    async def scene() -> None:
        gate = asyncio.Event()
        given = 0

        async def source() -> AsyncIterator[dict[str, Any]]:
            nonlocal given
            for trigger in triggers(500):
                given += 1
                yield trigger

        async with serving(Step(gate=gate)) as fake, client_of(fake, window=50) as client:
            collecting = asyncio.create_task(collect(client, source()))
            await until(lambda: fake.read_count == 1 and given > 50, "the window is full")
            for _ in range(50):
                await asyncio.sleep(0)
            assert given == 51
            gate.set()
            assert len(await collecting) == 500

    run(scene())


def test_a_slow_caller_loses_no_result() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake, window=16, patience_s=0.4) as client:
            seen = []
            async for result in client.stream(triggers(40)):
                seen.append(result.seq)
                if len(seen) == 3:
                    await asyncio.sleep(0.6)
            assert sorted(seen) == list(range(40))

    run(scene())


def test_results_may_come_in_any_order() -> None:
    async def scene() -> None:
        async with serving(Step(newest_first=True)) as fake, client_of(fake) as client:
            answered = await collect(client, triggers(30))
            assert [r.seq for r in answered] == list(reversed(range(30)))
            assert all(r.id == f"i{r.seq}" for r in answered)

    run(scene())


def test_a_server_that_drains_ends_early_and_the_rest_goes_to_the_next() -> None:
    async def scene() -> None:
        async with serving(Step(read=10, summarise=True)) as fake, client_of(fake) as client:
            answered = await collect(client, triggers(100))
            assert sorted(r.seq for r in answered) == list(range(100))
            assert client.summary.duplicate == 0

    run(scene())


def test_missing_ids_are_filled_in_and_kept_over_a_resend() -> None:
    async def scene() -> None:
        async with serving(Step(read=3, answer=0)) as fake, client_of(fake) as client:
            source = [
                {"user": "u", "template": "t"},
                {"id": None, "to": {"sms": "+8613800000000"}, "template": "t"},
                Trigger(template="t", user="v"),
            ]
            answered = await collect(client, source)
            first, second = ([line["id"] for line in request] for request in fake.requests)
            assert first == second == [r.id for r in answered]
            assert len(set(first)) == 3

    run(scene())


def test_numbers_are_sent_as_written() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            raw = b'{"user":"u","template":"t",\r\n "params":{"a":12.00,"id":"x"}}'
            await collect(client, [raw, trigger_decoder.decode(raw)])
            assert fake.requests[0][0]["params"]["a"] == 12
            assert fake.requests[0][1]["params"]["a"] == "12.00"

    run(scene())


def test_what_is_no_trigger_costs_only_itself() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            source: list[Any] = [triggers(1)[0], {"user": object()}, 7, b"{broken", triggers(2)[1]]
            answered = {r.seq: r for r in await collect(client, source)}
            assert [answered[n].status for n in range(5)] == [
                "accepted", "rejected", "rejected", "rejected", "accepted",
            ]  # fmt: skip
            assert client.summary.reasons == {"invalid": 3}
            assert [r.status for r in await collect(client, [7])] == ["rejected"]

    run(scene())


def test_an_error_of_the_source_comes_after_the_answers() -> None:
    async def source() -> AsyncIterator[dict[str, Any]]:
        for trigger in triggers(5):
            yield trigger
        raise KeyError("broken source")

    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            seen = []

            async def consume() -> None:
                async for result in client.stream(source()):
                    seen.append(result.seq)

            with pytest.raises(KeyError, match="broken source"):
                await consume()
            assert sorted(seen) == list(range(5))

    run(scene())


def test_results_come_while_the_source_waits_for_them() -> None:
    async def scene() -> None:
        answered: asyncio.Queue[Result] = asyncio.Queue()

        async def source() -> AsyncIterator[dict[str, Any]]:
            for trigger in triggers(5):
                yield trigger
                await answered.get()

        async with serving() as fake, client_of(fake) as client:
            async for result in client.stream(source()):
                answered.put_nowait(result)
            assert client.summary.total == 5
            assert len(fake.requests) == 1

    run(scene())


def test_a_caller_that_leaves_leaks_nothing() -> None:
    async def scene() -> None:
        async def endless() -> AsyncIterator[dict[str, Any]]:
            while True:
                yield {"user": "u", "template": "t"}

        async with serving() as fake, client_of(fake) as client:
            async for _ in client.stream(endless()):
                break

    run(scene())


def test_the_parts_of_a_stream_share_one_connection() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            await collect(client, triggers(320), "none")
            assert len(fake.requests) == 10
            assert len(fake.peers) == 1
            assert client.summary.accepted == 320

    run(scene())


def test_an_empty_stream_makes_no_request() -> None:
    async def scene() -> None:
        async with serving() as fake, client_of(fake) as client:
            assert await collect(client, []) == []
            assert fake.requests == []

    run(scene())
