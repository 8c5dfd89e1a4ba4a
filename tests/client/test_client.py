"""One trigger, users, documents and problems."""

import asyncio
import re
from random import Random

import pytest

from dispatcher.client import Client, Cut, GaveUp, Problem
from dispatcher.client.backoff import MAX_DELAY_S, delay_s
from dispatcher.client.wire import retry_after_s
from tests.client.peer import Step, serving
from tests.support import run, until


def test_one_trigger_and_its_own_resend() -> None:
    async def scene() -> None:
        async with serving(Step(read=1)) as fake, Client(fake.url) as client:
            result = await client.send({"user": "u", "template": "t"})
            assert (result.status, result.first, result.seq) == ("accepted", None, 0)
            again = await client.send({"id": result.id, "user": "u", "template": "t"})
            assert again.status == "duplicate"

    run(scene())


def test_an_overloaded_trigger_is_sent_again() -> None:
    async def scene() -> None:
        async with serving(Step(status=429, headers={"Retry-After": "0"})) as fake, Client(fake.url) as client:
            assert (await client.send({"user": "u", "template": "t"})).status == "accepted"

    run(scene())


def test_many_are_answered_in_their_order() -> None:
    async def scene() -> None:
        async with serving(Step(newest_first=True)) as fake, Client(fake.url) as client:
            results = await client.send_many({"id": f"i{n}", "user": "u", "template": "t"} for n in range(20))
            assert [r.id for r in results] == [f"i{n}" for n in range(20)]

    run(scene())


def test_documents() -> None:
    async def scene() -> None:
        async with serving(Step(read=0)) as fake, Client(fake.url) as client:
            assert await client.put("/v1/lines/a", {"name": "A"}) == {"version": 1}
            assert await client.get("/v1/lines/a") == {"name": "A"}
            assert await client.delete("/v1/lines/a") is None
            await client.put_user("a/b ü", {"addresses": {}})
            assert fake.documents == {"/v1/users/a%2Fb%20%C3%BC": {"addresses": {}}}

    run(scene())


def test_a_guarded_change_is_not_repeated_blindly() -> None:
    async def scene() -> None:
        async with serving(Step(read=0)) as fake, Client(fake.url) as client:
            with pytest.raises(Cut):
                await client.put("/v1/lines/a", {"name": "A"}, if_match='"1"')

    run(scene())


def test_a_problem_says_what_the_server_said() -> None:
    document = {"title": "Unprocessable", "detail": "bad", "errors": [{"path": "routes[0]", "message": "no such"}]}

    async def scene() -> None:
        async with serving(Step(status=422, document=document)) as fake, Client(fake.url) as client:
            with pytest.raises(Problem) as caught:
                await client.put("/v1/routes", [])
            problem = caught.value
            assert (problem.status, problem.title, problem.detail) == (422, "Unprocessable", "bad")
            assert problem.errors == document["errors"]

    run(scene())


def test_users_in_bulk() -> None:
    async def scene() -> None:
        async with serving() as fake, Client(fake.url) as client:
            names = [f"u{n}" if n not in (3, 1500) else f"bad{n}" for n in range(2100)]
            load = await client.put_users((name, {"addresses": {}}) for name in names)
            assert load.total == 2100
            assert [(e["seq"], e["id"]) for e in load.errors] == [(3, "bad3"), (1500, "bad1500")]
            assert len(fake.documents) == 2098

    run(scene())


def test_nobody_there() -> None:
    async def scene() -> None:
        async with Client("http://127.0.0.1:9", patience_s=0.3) as client:
            with pytest.raises(GaveUp, match="1 unanswered"):
                await client.send({"user": "u", "template": "t"})

    run(scene())


def test_waits_grow_to_a_limit_and_spread() -> None:
    rng = Random(3)
    for attempt in range(1, 40):
        ceiling = min(MAX_DELAY_S, 0.1 * 2 ** (attempt - 1))
        assert ceiling / 2 <= delay_s(attempt, None, rng) <= ceiling
        assert 7.0 <= delay_s(attempt, 7.0, rng) <= 7.0 + ceiling / 2
    assert len({delay_s(3, None, rng) for _ in range(50)}) == 50


def test_retry_after_is_seconds_or_a_date() -> None:
    now = {"Date": "Tue, 24 Nov 2026 03:00:00 GMT"}
    assert retry_after_s(None, now) is None
    assert retry_after_s("3", now) == 3.0
    assert retry_after_s("1.5", now) == 1.5
    assert retry_after_s("Tue, 24 Nov 2026 03:00:09 GMT", now) == 9.0
    assert retry_after_s("soon", now) is None
    assert retry_after_s("Tue, 24 Nov 2026 03:00:09 GMT", {}) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("foo", "does not begin with http:// or https://"),
        ("localhost:8080", "does not begin with http:// or https://"),
        ("http://", "names no host"),
        ("http://h:99999", "is no address"),
        ("http://h/?a=b", "carries a query"),
    ],
)
def test_what_is_no_address_is_refused_at_once(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^url: '{re.escape(url)}' {re.escape(fault)}"):
        Client(url)


def test_a_stream_tells_its_trouble_until_it_is_over() -> None:
    async def scene() -> None:
        async with serving(Step(status=503, headers={"Retry-After": "1"})) as fake, Client(fake.url) as client:
            assert client.trouble is None
            streaming = asyncio.create_task(client.send_many([{"user": "u", "template": "t"}]))
            await until(lambda: client.trouble is not None, "the trouble")
            assert str(client.trouble).startswith("503")
            [result] = await streaming
            assert result.status == "accepted"
            assert client.trouble is None

    run(scene())
