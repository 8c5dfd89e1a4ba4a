"""Dead letters over HTTP: what is asked for is what the port hears, and what is wrong is said with its path."""

from typing import Any

import msgspec
import pytest

from dispatcher.deadletter import LetterFilter, LetterPage, ReplayOrder, ReplayReport
from dispatcher.http.deadletters import QUERY, Page
from dispatcher.http.ports import Unavailable
from dispatcher.http.settings import Key, Settings
from tests.http.memory import serving
from tests.support import run
from tests.test_deadletter import letter, moment

PATH = "/v1/dead-letters"
CURSOR = letter().place


def test_letters_are_shown_masked_with_the_cursor_of_the_next() -> None:
    async def main() -> None:
        async with serving() as house:
            house.letters.found = LetterPage([letter(1), letter(2)], CURSOR)
            status, _, told = await house.call("GET", PATH)
            assert status == 200
            assert told["next"] == CURSOR
            assert [shown["message"] for shown in told["letters"]] == [letter(n).message.id for n in (1, 2)]
            first = told["letters"][0]
            assert (first["provider"], first["code"], first["to"]) == ("p1", "E1", "+86138****1234")
            assert "fields" not in first
            assert house.letters.pages == [(Page(), None, 100)]

    run(main())


def test_every_name_of_the_query_is_heard() -> None:
    wanted = {
        "line": "wallet", "type": "notice", "channel": "sms", "template": "pay_ok", "provider": "p1", "code": "E1",
        "outcome": "failed", "user": "u1", "since": "2025-11-24T16:00:00Z", "until": "2025-11-25T00:00:00%2B08:00",
        "limit": "7", "cursor": CURSOR,
    }  # fmt: skip
    assert wanted.keys() == QUERY.keys()

    async def main() -> None:
        async with serving() as house:
            query = "&".join(f"{name}={value}" for name, value in wanted.items())
            assert (await house.call("GET", f"{PATH}?{query}"))[0] == 200
            [(heard, cursor, limit)] = house.letters.pages
            assert (cursor, limit) == (CURSOR, 7)
            for name in wanted.keys() - {"limit", "cursor", "since", "until"}:
                assert getattr(heard, name) == wanted[name]
            assert heard.bounds_ms == (1_764_000_000_000, 1_764_000_000_000)

    run(main())


@pytest.mark.parametrize(("query", "where"), [
    ("x=1", "x"), ("type=spam", "type"), ("channel=fax", "channel"), ("outcome=unknown", "outcome"),
    ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=1", "cursor"),
    ("since=yesterday", "since"), ("until=2025-11-24T16:00:00", "until"), ("line=", "line"), ("line=a&line=b", "line"),
])  # fmt: skip
def test_a_wrong_query_is_a_400_that_names_it(query: str, where: str) -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, problem = await house.call("GET", f"{PATH}?{query}")
            assert (status, problem["errors"][0]["path"]) == (400, where), problem
            assert house.letters.pages == []

    run(main())


def test_what_is_to_be_sent_again_is_heard_and_what_became_of_it_told() -> None:
    async def main() -> None:
        async with serving() as house:
            house.letters.report = ReplayReport(3, {"line_cap": 1}, {"verification": 2}, CURSOR)
            asked: list[dict[str, Any]] = [
                {"filter": {}},
                {"filter": {"provider": "p1", "until": "2025-11-24T16:00:00Z"}, "limit": 5, "cursor": CURSOR},
                {"ids": ["a", "b", "a"], "ttl_s": 30},
            ]
            for body in asked:
                status, _, told = await house.call("POST", f"{PATH}/replay", body)
                assert (status, told) == (
                    200,
                    {"replayed": 3, "blocked": {"line_cap": 1}, "skipped": {"verification": 2}, "next": CURSOR},
                )
            until = moment(1_764_000_000_000)
            assert house.letters.orders == [
                ReplayOrder(LetterFilter()),
                ReplayOrder(LetterFilter(provider="p1", until=until), None, 5, None, CURSOR),
                ReplayOrder(LetterFilter(), ["a", "b"], ttl_s=30.0),
            ]

    run(main())


@pytest.mark.parametrize(("body", "status", "where"), [
    ({}, 422, "filter"), ({"filter": {"x": 1}}, 422, "filter.x"), ({"filter": {"type": "spam"}}, 422, "filter.type"),
    ({"filter": {}, "limit": 0}, 422, "limit"), ({"filter": {}, "limit": 10_001}, 422, "limit"),
    ({"filter": {}, "ttl_s": 0}, 422, "ttl_s"), ({"filter": {}, "ttl_s": 10**9}, 422, "ttl_s"),
    ({"ids": ["a"] * 1_001}, 422, "ids"), ({"ids": ["a"], "cursor": CURSOR}, 422, "cursor"),
    ({"filter": {}, "cursor": "x"}, 422, "cursor"), (b"{", 400, "body"), ([], 422, ""),
])  # fmt: skip
def test_a_wrong_replay_sends_nothing(body: Any, status: int, where: str) -> None:
    async def main() -> None:
        async with serving() as house:
            told, _, problem = await house.call("POST", f"{PATH}/replay", body)
            assert (told, problem["errors"][0]["path"]) == (status, where), problem
            assert house.letters.orders == []

    run(main())


def test_a_key_sees_and_sends_its_own_line_only_and_only_an_admin_sends() -> None:
    keys = (
        Key("reader", "r", ("read",)), Key("sender", "s", ("send",)),
        Key("wallet", "w", ("admin",), "wallet"), Key("admin", "a", ("admin",)),
    )  # fmt: skip

    async def main() -> None:
        async with serving(Settings(keys=keys)) as house:
            for key, get, post in (("r", 200, 403), ("s", 403, 403), ("w", 200, 200), ("a", 200, 200), ("x", 401, 401)):
                bearer = {"Authorization": f"Bearer {key}"}
                assert (await house.call("GET", PATH, **bearer))[0] == get, key
                assert (await house.call("POST", f"{PATH}/replay", {"ids": ["a"]}, **bearer))[0] == post, key
            assert [wanted.line for wanted, _, _ in house.letters.pages] == [None, "wallet", None]
            assert [order.filter.line for order in house.letters.orders] == ["wallet", None]
            wallet = {"Authorization": "Bearer w"}
            assert (await house.call("GET", f"{PATH}?line=loan", **wallet))[0] == 403
            loan = {"filter": {"line": "loan"}}
            assert (await house.call("POST", f"{PATH}/replay", loan, **wallet))[0] == 403
            assert (await house.call("GET", f"{PATH}?line=wallet", **wallet))[0] == 200

    run(main())


def test_what_cannot_be_had_now_is_a_503() -> None:
    async def main() -> None:
        async with serving() as house:
            house.letters.failure = Unavailable("store_unavailable")
            for method, path, body in (("GET", PATH, None), ("POST", f"{PATH}/replay", {"filter": {}})):
                status, headers, problem = await house.call(method, path, body)
                assert (status, headers["Retry-After"], problem["detail"]) == (503, "1", "store_unavailable")

    run(main())


def test_the_description_has_both() -> None:
    async def main() -> None:
        async with serving() as house:
            _, _, described = await house.call("GET", "/openapi.json")
            find, replay = described["paths"][PATH]["get"], described["paths"][f"{PATH}/replay"]["post"]
            assert {parameter["name"] for parameter in find["parameters"]} == QUERY.keys()
            schemas = msgspec.json.encode(described["components"]["schemas"]).decode()
            for name in ("LetterList", "ShownLetter", "ReplayReport", "LetterFilter"):
                assert f'"{name}"' in schemas
            assert "old code is worthless" in replay["description"]

    run(main())
