"""JSON bodies of triggers, and every error as a problem document."""

import asyncio
from typing import Any

import pytest

from dispatcher.answers import Answers, Want
from dispatcher.http.ports import Unavailable
from dispatcher.http.settings import Key, Settings
from dispatcher.trigger import Order
from tests.http.memory import House, serving
from tests.support import run

GOOD = {"id": "t1", "user": "u1", "template": "pay_ok"}


def test_one_trigger() -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, result = await house.call("POST", "/v1/triggers", GOOD)
            assert status == 200
            assert result == {"seq": 0, "id": "t1", "status": "accepted", "reason": None, "messages": []}
            status, _, result = await house.call("POST", "/v1/triggers", {"user": "u", "template": "a"})
            assert (status, len(result["id"])) == (200, 32)

    run(main())


def test_an_array_is_answered_in_order() -> None:
    async def main() -> None:
        async with serving() as house:
            triggers: list[dict[str, Any]] = [{**GOOD, "id": f"t{i}", "user": f"u{i}"} for i in range(1_000)]
            triggers[7] = {"id": "t7", "x": 1}
            status, _, results = await house.call("POST", "/v1/triggers", triggers)
            assert status == 200
            assert [r["id"] for r in results] == [f"t{i}" for i in range(1_000)]
            assert [r["seq"] for r in results] == list(range(1_000))
            assert [r["seq"] for r in results if r["status"] == "rejected"] == [7]
            assert (await house.call("POST", "/v1/triggers", [*triggers, GOOD]))[0] == 413
            assert (await house.call("POST", "/v1/triggers", b"[]"))[2] == []
            assert (await house.call("POST", "/v1/triggers", b'[1, {"id":"a"}, "\xff"]'))[0] == 200

    run(main())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[{]", b"7", b'"x"', b"null", b'{"a":1} x', b"[" * 200_000, b"\xff", b"[1,2"]
)
def test_an_unreadable_body_is_a_400(body: bytes) -> None:
    async def main() -> None:
        async with serving() as house:
            status, headers, problem = await house.call("POST", "/v1/triggers", body)
            assert status == 400
            assert headers["Content-Type"].startswith("application/problem+json")
            assert problem["type"] == "about:blank"
            assert (problem["title"], problem["status"]) == ("Bad Request", 400)
            assert problem["errors"][0]["path"] == "body"
            assert problem["errors"][0]["message"]

    run(main())


def test_a_wrong_trigger_is_rejected_in_its_result() -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, result = await house.call("POST", "/v1/triggers", {"id": "t1", "template": 7})
            assert (status, result["id"], result["status"]) == (200, "t1", "rejected")
            assert result["reason"] == "invalid: template: Expected `str`, got `int`"
            status, _, result = await house.call("POST", "/v1/triggers", {**GOOD, "params": {"a": "x" * 70_000}})
            assert (status, result["reason"]) == (200, "invalid: trigger: larger than 65536 bytes")

    run(main())


def test_overload() -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.retry_after_s = 2.5
            house.intake.judge = lambda order: ("overloaded", "outbox_full")
            status, headers, problem = await house.call("POST", "/v1/triggers", GOOD)
            assert (status, headers["Retry-After"], problem["detail"]) == (429, "3", "outbox_full")
            status, _, results = await house.call("POST", "/v1/triggers", [GOOD])
            assert (status, results[0]["status"]) == (200, "overloaded")
            house.intake.judge = lambda order: ("overloaded", "store_unavailable")
            for body in (GOOD, [GOOD, GOOD]):
                status, headers, problem = await house.call("POST", "/v1/triggers", body)
                assert (status, headers["Retry-After"], problem["detail"]) == (503, "3", "store_unavailable")
            house.intake.judge = lambda order: (
                ("overloaded", "store_unavailable") if order.id == "t1" else ("accepted", None)
            )
            status, _, results = await house.call("POST", "/v1/triggers", [GOOD, {**GOOD, "id": "t2"}])
            assert [r["status"] for r in results] == ["overloaded", "accepted"]

    run(main())


def test_queries_and_types() -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await house.call("POST", "/v1/triggers?dry_run=true", GOOD))[0] == 200
            assert (await house.call("POST", "/v1/triggers?dry_run=true", {**GOOD, "colour": 1}))[0] == 200
            assert (house.intake.wants, house.intake.refusals) == ([Want.REHEARSED], 0)
            assert (await house.call("POST", "/v1/triggers?dry_run=false", GOOD))[0] == 200
            assert house.intake.wants[-1] == Want.ALL
            wrong = ("results=some", "results"), ("dry_run=1", "dry_run"), ("x=1", "x")
            for query, path in (*wrong, ("dry_run=true&results=none", "results")):
                status, _, problem = await house.call("POST", f"/v1/triggers?{query}", GOOD)
                assert (status, problem["errors"][0]["path"]) == (400, path)
            status, headers, _ = await house.call("POST", "/v1/triggers", b"x", "text/plain")
            assert (status, "application/x-ndjson" in headers["Accept-Post"]) == (415, True)

    run(main())


def test_limits_of_a_body() -> None:
    async def main() -> None:
        async with serving(Settings(body_bytes=10_000)) as house:
            async def chunks() -> object:  # no Content-Length: the limit is met on the way
                for _ in range(20):
                    yield b" " * 1_000

            assert (await house.call("POST", "/v1/triggers", b" " * 10_001))[0] == 413
            status, _, problem = await house.call("POST", "/v1/triggers", chunks())
            assert (status, problem["title"]) == (413, "Request Entity Too Large")

    run(main())


def test_errors_of_the_server_are_problems_too() -> None:
    async def main() -> None:
        async with serving() as house:
            asked = [("GET", "/nope", 404), ("PUT", "/v1/triggers", 405), ("GET", "/v1/no/no", 404)]
            for method, path, wanted in asked:
                status, headers, problem = await house.call(method, path)
                assert (status, problem["status"]) == (wanted, wanted)
                assert headers["Content-Type"].startswith("application/problem+json")
            _, headers, _ = await house.call("PUT", "/v1/triggers")
            assert headers["Allow"] == "POST"

    run(main())


def test_a_500_shows_nothing_from_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as house:
            async def broken(*_: object) -> None:
                raise RuntimeError("password=hunter2")

            house.users.get = broken  # type: ignore[assignment]
            status, _, problem = await house.call("GET", "/v1/users/u1")
            assert status == 500
            assert "hunter2" not in str(problem)

    run(main())
    assert "hunter2" in caplog.text


def test_what_is_away_is_a_503() -> None:
    async def main() -> None:
        async with serving() as house:
            async def away(*_: object) -> None:
                raise Unavailable("store_unavailable", 4.2)

            house.users.get = away  # type: ignore[assignment]
            status, headers, problem = await house.call("GET", "/v1/users/u1")
            assert (status, headers["Retry-After"], problem["detail"]) == (503, "5", "store_unavailable")

    run(main())


KEYS = (
    Key("billing", "s-send", ("send",), "wallet"),
    Key("watcher", "s-read", ("read",)),
    Key("boss", "s-admin", ("admin",)),
)


async def _status(house: House, method: str, path: str, key: str | None, data: object = None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return (await house.call(method, path, data, **headers))[0]


@pytest.mark.parametrize(
    ("method", "path", "data", "allowed"),
    [
        ("POST", "/v1/triggers", GOOD, "send admin"),
        ("GET", "/v1/lines", None, "read admin"),
        ("PUT", "/v1/lines/a", {}, "admin"),
        ("PUT", "/v1/users/a", {}, "admin"),
        ("GET", "/v1/topology", None, "read admin"),
        ("POST", "/v1/blacklist", {"user": "u"}, "admin"),
    ],
)
def test_roles(method: str, path: str, data: object, allowed: str) -> None:
    async def main() -> None:
        async with serving(Settings(keys=KEYS)) as house:
            for role in ("send", "read", "admin"):
                status = await _status(house, method, path, f"s-{role}", data)
                assert (status < 300) == (role in allowed), (role, status)
                assert status < 300 or status == 403

    run(main())


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Bearer s-admi", "Basic s-admin", "s-admin", "Bearer \udcff"]
)
def test_no_key_no_answer(header: str) -> None:
    async def main() -> None:
        async with serving(Settings(keys=KEYS)) as house:
            status, headers, _ = await house.call("GET", "/v1/lines", **({"Authorization": header} if header else {}))
            assert status == 401
            assert headers["WWW-Authenticate"].startswith("Bearer")

    run(main())


def test_what_monitors_need_is_open() -> None:
    async def main() -> None:
        async with serving(Settings(keys=KEYS)) as house:
            for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
                assert await _status(house, "GET", path, None) == 200

    run(main())


def test_keys_stay_out_of_sight() -> None:
    assert "s-send" not in repr(KEYS)
    assert "s-send" not in repr(Settings(keys=KEYS))


def test_a_vanished_caller_of_a_whole_body_leaves_nothing() -> None:
    async def main() -> None:
        async with serving() as house:
            _, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(b"POST /v1/triggers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[")
            await writer.drain()
            writer.transport.abort()

    run(main())


def test_groups_are_submitted_at_once() -> None:
    async def main() -> None:
        async with serving() as house:
            seen: list[int] = []
            inner = house.intake.submit

            async def submit(shard: int, orders: list[Order], want: Want) -> Answers:
                seen.append(shard)
                if len(seen) == house.intake.shards:
                    house.intake.gate.set()
                return await inner(shard, orders, want)

            house.intake.gate.clear()
            house.intake.submit = submit  # type: ignore[method-assign]
            status, _, _ = await house.call("POST", "/v1/triggers", [{**GOOD, "user": f"u{i}"} for i in range(100)])
            assert (status, sorted(seen)) == (200, [0, 1, 2, 3])

    run(main())
