"""Users, blacklist, operations, description."""

import asyncio
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from dispatcher.http import bulk
from dispatcher.http.app import make_app
from dispatcher.http.ports import Unavailable
from dispatcher.http.settings import Settings
from dispatcher.http.wire import NDJSON
from tests.http.memory import House, serving
from tests.support import run

USER = {
    "addresses": {"sms": ["+8613800000000"], "push": [{"token": "t", "vendor": "fcm"}]},
    "timezone": "Asia/Shanghai",
    "tags": {"city": "beijing", "n": 1.5},
}


def test_the_life_of_a_user() -> None:
    async def main() -> None:
        async with serving() as house:
            path = "/v1/users/u1"
            assert (await house.call("GET", path))[0] == 404
            assert (await house.call("PATCH", path, {"timezone": None}))[0] == 404
            assert (await house.call("PUT", path, USER))[0] == 200
            _, _, shown = await house.call("GET", path)
            assert shown["timezone"] == "Asia/Shanghai"
            assert shown["tags"] == {"city": "beijing", "n": 1.5}
            patch = {"tags": {"city": None, "vip": True}, "addresses": {"sms": []}}
            status, _, merged = await house.call("PATCH", path, patch)
            assert (status, merged["tags"]) == (200, {"n": 1.5, "vip": True})
            assert merged["addresses"] == {"push": [{"token": "t", "vendor": "fcm", "app": None}]}
            assert (await house.call("DELETE", path))[0] == 204
            assert (await house.call("DELETE", path))[0] == 404

    run(main())


@pytest.mark.parametrize(
    ("method", "body", "where"),
    [
        ("PUT", {"x": 1}, "x"),
        ("PUT", {"addresses": {"fax": []}}, "addresses.fax"),
        ("PUT", {"addresses": {"sms": [1]}}, "addresses.sms[0]"),
        ("PUT", {"timezone": "Mars/Base"}, "timezone"),
        ("PUT", {"timezone": "../etc/passwd"}, "timezone"),
        ("PATCH", {"dead": ["x"]}, "dead"),
        ("PATCH", {"timezone": "Mars/Base"}, "timezone"),
        ("PATCH", [], ""),
        ("PATCH", {"addresses": {"sms": 7}}, "addresses.sms"),
    ],
)
def test_a_wrong_user_is_a_422(method: str, body: Any, where: str) -> None:
    async def main() -> None:
        async with serving() as house:
            await house.call("PUT", "/v1/users/u1", USER)
            status, _, problem = await house.call(method, "/v1/users/u1", body)
            assert (status, problem["errors"][0]["path"]) == (422, where)

    run(main())


def test_what_the_dispatcher_noted_is_not_shown() -> None:
    async def main() -> None:
        async with serving() as house:
            house.users.docs["u1"] = msgspec.json.encode({**USER, "dead": ["+8613800000000"]})
            _, _, shown = await house.call("GET", "/v1/users/u1")
            assert "dead" not in shown
            assert (await house.call("PUT", "/v1/users/u1", shown))[0] == 200

    run(main())


async def _bulk(house: House, path: str, body: bytes) -> tuple[list[Any], Any]:
    status, _, lines = await house.call("POST", path, body, "application/x-ndjson")
    assert status == 200
    return lines[:-1], lines[-1]["summary"]


def test_users_in_bulk() -> None:
    async def main() -> None:
        async with serving() as house:
            lines = [msgspec.json.encode({"user": f"u{i}", **USER}) for i in range(2_000)]
            lines[5] = b'{"user":"u5","x":1}'
            lines[6] = b"{broken"
            lines[7] = b'{"user":"u7","timezone":"Mars/Base"}'
            lines[8] = b"{" + b"x" * 100_000
            lines[9] = b""
            errors, summary = await _bulk(house, "/v1/users", b"\xef\xbb\xbf" + b"\r\n".join(lines))
            assert [(e["seq"], e["id"], e["error"][:15]) for e in errors] == [
                (5, "u5", "invalid: x: unk"), (6, None, "invalid: line: "), (7, "u7", "invalid: timezo"),
                (8, None, "invalid: larger"),
            ]  # fmt: skip
            assert summary == {"total": 1_999, "stored": 1_995, "failed": 4}
            assert len(house.users.docs) == 1_995
            assert max(house.users.batches) <= 500
            assert (await house.call("POST", "/v1/users", {"user": "a"}))[0] == 415

    run(main())


def test_users_in_bulk_while_the_store_is_away() -> None:
    async def main() -> None:
        async with serving() as house:
            house.users.failure = Unavailable("store_unavailable")
            errors, summary = await _bulk(house, "/v1/users", b'{"user":"a"}\n{"user":"b"}\n')
            assert [(e["seq"], e["error"]) for e in errors] == [(0, "store_unavailable"), (1, "store_unavailable")]
            assert summary == {"total": 2, "stored": 0, "failed": 2}

    run(main())


def test_the_life_of_a_blacklist_entry() -> None:
    async def main() -> None:
        async with serving() as house:
            entry = {"address": "138 0000 0000", "channel": "sms", "type": "marketing", "why": "asked"}
            status, headers, made = await house.call("POST", "/v1/blacklist", entry)
            assert (status, made["address"]) == (201, "+8613800000000")
            assert headers["Location"] == f"/v1/blacklist/{made['id']}"
            assert (await house.call("POST", "/v1/blacklist", {**entry, "why": "again"}))[2]["id"] == made["id"]
            for query in ("address=%2B8613800000000", "address=13800000000"):
                found = (await house.call("GET", f"/v1/blacklist?{query}"))[2]
                assert [(e["id"], e["why"]) for e in found] == [(made["id"], "again")]
            await house.call("POST", "/v1/blacklist", {"user": "u42"})
            assert [e["user"] for e in (await house.call("GET", "/v1/blacklist?user=u42"))[2]] == ["u42"]
            assert (await house.call("GET", "/v1/blacklist?user=nobody"))[2] == []
            assert (await house.call("GET", headers["Location"]))[2]["why"] == "again"
            assert (await house.call("DELETE", headers["Location"]))[0] == 204
            assert (await house.call("DELETE", headers["Location"]))[0] == 404
            assert (await house.call("GET", headers["Location"]))[0] == 404

    run(main())


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({}, "user"), ({"user": "a", "address": "b"}, "user"), ({"user": "a", "x": 1}, "x"),
        ({"address": "nonsense", "channel": "sms"}, "address"), ({"user": "a", "line": "no"}, "line"),
        ({"user": "a", "expires_at": "2026-01-01T00:00:00"}, "expires_at"), ({"user": "a", "type": "spam"}, "type"),
    ],
)  # fmt: skip
def test_a_wrong_entry(entry: dict[str, str], where: str) -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, problem = await house.call("POST", "/v1/blacklist", entry)
            assert (status, problem["errors"][0]["path"]) == (422, where)
            errors, summary = await _bulk(house, "/v1/blacklist", msgspec.json.encode(entry) + b'\n{"user":"b"}\n')
            assert errors[0]["error"].startswith(f"invalid: {where}: ")
            assert summary == {"total": 2, "stored": 1, "failed": 1}

    run(main())


def _entries(n: int) -> bytes:
    return b"".join(b'{"address":"+8613%09d","type":"marketing"}\n' % i for i in range(n))


def test_entries_in_bulk_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PROGRESS_S", 0.0)

    async def main() -> None:
        async with serving() as house:
            status, _, lines = await house.call("POST", "/v1/blacklist?progress=true", _entries(2_000), NDJSON)
            assert status == 200
            assert lines[-1] == {"summary": {"total": 2_000, "stored": 2_000, "failed": 0}}
            told = [line["progress"] for line in lines[:-1]]
            assert len(told) >= 4
            assert [p["stored"] for p in told] == sorted(p["stored"] for p in told)
            assert all(p["stored"] <= p["total"] <= 2_000 and p["failed"] == 0 for p in told)
            assert told[-1]["stored"] >= 1_500
            for path in ("/v1/users", "/v1/blacklist"):
                assert len((await house.call("POST", f"{path}?progress=false", b"{}\n", NDJSON))[2]) == 2
                for query in ("progress=yes", "x=1"):
                    status, _, problem = await house.call("POST", f"{path}?{query}", b"{}\n", NDJSON)
                    assert (status, problem["errors"][0]["path"]) == (400, query.partition("=")[0])

    run(main())


def test_no_more_is_read_than_is_stored() -> None:
    """While a write hangs, the caller's stream stands still: what is held does not grow with what is sent."""

    async def main() -> None:
        async with serving() as house:
            house.blacklist.hold.clear()
            sent = 0

            async def body() -> AsyncIterator[bytes]:
                nonlocal sent
                for _ in range(400):
                    data = _entries(2_000)
                    sent += len(data)
                    yield data

            posting = asyncio.create_task(house.call("POST", "/v1/blacklist", body(), NDJSON))
            last = -1
            while sent > last:  # until it moves no more
                last = sent
                await asyncio.sleep(0.3)
            assert sent < 16 * 1024 * 1024, "buffers of two sockets and of aiohttp, and one batch"
            assert not posting.done()
            house.blacklist.hold.set()
            assert (await posting)[2][-1]["summary"]["stored"] == 800_000
            assert max(house.blacklist.batches) <= 500

    run(main())


def test_entries_that_cannot_be_stored_are_named() -> None:
    async def main() -> None:
        async with serving() as house:
            house.blacklist.failure = Unavailable("catalog_spreading")
            errors, summary = await _bulk(house, "/v1/blacklist", _entries(3))
            assert [(e["seq"], e["error"]) for e in errors] == [(n, "catalog_spreading") for n in range(3)]
            assert summary == {"total": 3, "stored": 0, "failed": 3}

    run(main())


def test_what_is_kept_of_an_entry_is_small_and_shown_whole() -> None:
    async def main() -> None:
        async with serving() as house:
            entry = {"user": "u1", "expires_at": "2027-01-01T00:00:00+08:00"}
            _, headers, made = await house.call("POST", "/v1/blacklist", entry)
            [(id_, doc)] = house.blacklist.docs.items()
            assert msgspec.json.decode(doc) == entry
            assert house.blacklist.ends == {id_: 1_798_732_800_000}
            rest = dict.fromkeys(("address", "channel", "type", "line", "why"))
            assert made == {**entry, **rest, "id": id_}
            assert (await house.call("GET", headers["Location"]))[2] == made
            assert (await house.call("GET", "/v1/blacklist?user=u1"))[2] == [made]

    run(main())


@pytest.mark.parametrize("query", ["", "?user=", "?user=a&address=b", "?x=1"])
def test_a_blacklist_query_names_one(query: str) -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await house.call("GET", f"/v1/blacklist{query}"))[0] == 400

    run(main())


def test_operations() -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await house.call("GET", "/healthz"))[0] == 200
            assert (await house.call("GET", "/readyz"))[2] == {"status": "ready"}
            _, headers, metrics = await house.call("GET", "/metrics")
            assert metrics == b"dispatcher_triggers_total 1\n"
            assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert (await house.call("GET", "/v1/targets"))[2] == [{"targets": ["127.0.0.1:1"], "labels": {}}]
            assert (await house.call("GET", "/v1/topology"))[2] == {"nodes": []}
            house.operations.reasons = ["starting", "store_unavailable"]
            status, _, problem = await house.call("GET", "/readyz")
            assert (status, problem["detail"]) == (503, "starting, store_unavailable")
            assert [e["path"] for e in problem["errors"]] == ["starting", "store_unavailable"]
            assert (await house.call("GET", "/v1/lines"))[0] == 200
            house.operations.reasons = ["draining"]
            assert (await house.call("GET", "/v1/lines"))[0] == 503
            for path in ("/healthz", "/metrics", "/v1/topology"):
                assert (await house.call("GET", path))[0] == 200

    run(main())


def test_the_description_lists_every_route() -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, document = await house.call("GET", "/openapi.json")
            assert status == 200
            app = make_app(house.ports, Settings())
            served = {
                (route.method, route.resource.canonical)
                for route in app.router.routes()
                if route.resource is not None and route.method != "HEAD"
            }
            described = {(verb.upper(), path) for path, verbs in document["paths"].items() for verb in verbs}
            assert served == described
            operations = [o for verbs in document["paths"].values() for o in verbs.values()]
            assert len({o["operationId"] for o in operations}) == len(operations)
            schemas = document["components"]["schemas"]
            assert set(_references(document)) <= {f"#/components/schemas/{name}" for name in schemas}
            trigger = schemas["Trigger"]
            assert trigger["required"] == ["template"]
            assert trigger["additionalProperties"] is False

    run(main())


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []


class _Outside(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("/", "#"))]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    async def main() -> None:
        async with serving() as house:
            status, headers, page = await house.call("GET", "/docs")
            assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            outside = _Outside()
            outside.feed(page.decode())
            assert outside.found == []
            assert b"@import" not in page

    run(main())
