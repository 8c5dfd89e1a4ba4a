"""The catalog over HTTP."""

from typing import Any

import msgspec
import pytest

from dispatcher.documents import Provider
from dispatcher.http.checks import MOST_ERRORS
from dispatcher.http.settings import Key, Settings
from tests.http.memory import House, serving
from tests.support import run

TEMPLATE = {"type": "notice", "channels": [{"channel": "sms", "text": "已支付{amount}元"}]}
PROVIDER = {"kind": "webhook", "channel": "sms", "options": {"url": "https://x.example", "secret": "env:S"}}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "templates": TEMPLATE, "lines": {"name": "Wallet"}, "keywords": {"words": ["a", "b"]}, "providers": PROVIDER,
}  # fmt: skip


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_life_of_a_document(kind: str) -> None:
    async def main() -> None:
        async with serving() as house:
            path = f"/v1/{kind}/a"
            assert (await house.call("GET", path))[0] == 404
            assert (await house.call("DELETE", path))[0] == 404
            assert (await house.call("GET", f"{path}/versions"))[0] == 404
            status, headers, made = await house.call("PUT", path, DOCUMENTS[kind])
            assert (status, headers["ETag"]) == (201, '"1"')
            plain = {k: v for k, v in DOCUMENTS[kind].items() if not isinstance(v, list | dict)}
            assert made.items() >= plain.items()
            status, headers, read = await house.call("GET", path)
            assert (status, headers["ETag"]) == (200, '"1"')
            status, headers, _ = await house.call("PUT", path, read)  # what was read can be written
            assert (status, headers["ETag"]) == (200, '"2"')
            _, _, every = await house.call("GET", f"/v1/{kind}")
            assert every["a"] == made
            assert (await house.call("DELETE", path))[0] == 204
            assert (await house.call("GET", path))[0] == 404
            _, _, versions = await house.call("GET", f"{path}/versions")
            assert [(v["version"], v["who"], v["document"] is None) for v in versions] == [
                (3, "anonymous", True), (2, "anonymous", False), (1, "anonymous", False),
            ]  # fmt: skip
            assert versions[0]["at"] == "2023-11-14T22:13:20.003Z"

    run(main())


@pytest.mark.parametrize("kind", ["rules", "routes"])
def test_the_life_of_a_list(kind: str) -> None:
    rules = [{"kind": "frequency", "name": "f", "limit": 1, "window_s": 60}]
    routes = [{"providers": [{"id": "p"}]}]

    async def main() -> None:
        async with serving() as house:
            assert (await house.call("GET", f"/v1/{kind}"))[2] == []
            await house.call("PUT", "/v1/providers/p", PROVIDER)
            status, headers, made = await house.call("PUT", f"/v1/{kind}", rules if kind == "rules" else routes)
            assert (status, headers["ETag"], len(made)) == (200, '"2"', 1)
            assert (await house.call("GET", f"/v1/{kind}"))[2] == made
            assert (await house.call("PUT", f"/v1/{kind}", made, If_Match='"1"'))[0] == 412
            assert (await house.call("PUT", f"/v1/{kind}", [], If_Match='"2"'))[0] == 200
            assert [v["document"] for v in (await house.call("GET", f"/v1/{kind}/versions"))[2]] == [[], made]
            assert (await house.call("DELETE", f"/v1/{kind}"))[0] == 405

    run(main())


@pytest.mark.parametrize(
    ("headers", "exists", "status"),
    [
        ({}, True, 200), ({}, False, 201),
        ({"If_Match": '"1"'}, True, 200), ({"If_Match": '"7", "1"'}, True, 200), ({"If_Match": "*"}, True, 200),
        ({"If_Match": '"2"'}, True, 412), ({"If_Match": "nonsense"}, True, 412), ({"If_Match": 'W/"1"'}, True, 412),
        ({"If_Match": '"1"'}, False, 412), ({"If_Match": '"0"'}, False, 412), ({"If_Match": "*"}, False, 412),
        ({"If_None_Match": "*"}, False, 201), ({"If_None_Match": "*"}, True, 412),
    ],
)  # fmt: skip
def test_conditions(headers: dict[str, str], exists: bool, status: int) -> None:
    async def main() -> None:
        async with serving() as house:
            if exists:
                await house.call("PUT", "/v1/lines/a", {"name": "old"})
            assert (await house.call("PUT", "/v1/lines/a", {"name": "new"}, **headers))[0] == status
            if exists and "If_Match" in headers:
                again = {"If_Match": '"2"'} if status == 200 else headers
                assert (await house.call("DELETE", "/v1/lines/a", **again))[0] == (204 if status == 200 else 412)

    run(main())


def test_a_change_between_check_and_write_is_a_412() -> None:
    async def main() -> None:
        async with serving() as house:
            await house.call("PUT", "/v1/lines/a", {"name": "old"})
            inner = house.catalog.put

            async def late(kind: str, id_: str, doc: bytes, who: str, if_match: int | None) -> int:
                await inner(kind, id_, b"{}", "other", None)
                return await inner(kind, id_, doc, who, if_match)

            house.catalog.put = late  # type: ignore[method-assign]
            status, headers, _ = await house.call("PUT", "/v1/lines/a", {"name": "new"}, If_Match='"1"')
            assert (status, headers["ETag"]) == (412, '"2"')

    run(main())


@pytest.mark.parametrize(
    ("path", "document", "where"),
    [
        ("templates/a", {**TEMPLATE, "x": 1}, "x"),
        ("templates/a", {"type": "notice"}, "channels"),
        ("templates/a", {**TEMPLATE, "type": "spam"}, "type"),
        ("templates/a", {**TEMPLATE, "channels": [{"channel": "sms"}]}, "channels[0].text"),
        ("templates/a", {**TEMPLATE, "channels": [{"channel": "push", "title": "a"}]}, "channels[0].body"),
        ("templates/a", {**TEMPLATE, "channels": [{"channel": "fax"}]}, "channels[0].channel"),
        ("templates/a", {**TEMPLATE, "channels": [{"channel": "sms", "text": "{a.b}"}]}, "channels[0].text"),
        ("templates/a", {**TEMPLATE, "channels": [{"channel": "email", "subject": "s"}]}, "channels[0].text"),
        ("templates/a", {**TEMPLATE, "line": "nowhere"}, "line"),
        ("lines/a", {"quota": -1}, "quota"),
        ("lines/a", [], ""),
        ("keywords/a", {"words": [""]}, "words[0]"), ("keywords/a", {"words": ["a", "_-_"]}, "words[1]"),
        ("keywords/a", {"list": []}, "list"),
        ("providers/a", {**PROVIDER, "max_batch": 0}, "max_batch"),
        ("providers/a", {**PROVIDER, "options": {"secret": "***"}}, "options.secret"),
        ("providers/a", {**PROVIDER, "options": {"bad": 1}}, "options.bad"),
        ("rules", [{"kind": "nonsense", "name": "a"}], "[0].kind"),
        ("rules", [{"kind": "blacklist", "name": "a"}, {"kind": "blacklist", "name": "a"}], "[1].name"),
        ("rules", [{"kind": "blacklist", "name": "a", "lines": ["default", "no"]}], "[0].lines[1]"),
        ("routes", [{"providers": []}], "[0].providers"),
        ("routes", [{"providers": [{"id": "no"}]}], "[0].providers[0].id"),
        ("routes", [{"providers": [{"id": "p"}, {"id": "no"}]}], "[0].providers[1].id"),
        ("routes", [{"providers": [{"id": "p"}], "match": {"templates": ["no"]}}], "[0].match.templates[0]"),
        ("routes", [{"providers": [{"id": "p"}], "match": {"channels": ["fax"]}}], "[0].match.channels[0]"),
    ],
)
def test_a_wrong_document_is_a_422_with_its_path(path: str, document: Any, where: str) -> None:
    def options(provider: Provider) -> list[tuple[str, str]]:
        return [("options.bad", "unknown option")] if "bad" in provider.options else []

    async def main() -> None:
        async with serving(Settings(check_provider=options)) as house:
            await house.call("PUT", "/v1/providers/p", PROVIDER)
            status, headers, problem = await house.call("PUT", f"/v1/{path}", document)
            assert status == 422, problem
            assert headers["Content-Type"].startswith("application/problem+json")
            assert problem["errors"][0]["path"] == where, problem
            assert problem["errors"][0]["message"]
            assert house.catalog.version == 1

    run(main())


@pytest.mark.parametrize("body", [b"", b"{", b'{"name":"\xff"}', b"[" * 10_000])
def test_no_json_is_a_400(body: bytes) -> None:
    async def main() -> None:
        async with serving() as house:
            status, _, problem = await house.call("PUT", "/v1/lines/a", body)
            assert status in (400, 422)
            assert problem["errors"]

    run(main())


def test_ids() -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await house.call("PUT", "/v1/lines/" + "x" * 129, {}))[0] == 422
            assert (await house.call("PUT", "/v1/lines/a%20b", {}))[0] == 422
            assert (await house.call("PUT", "/v1/lines/%E9%92%B1%E5%8C%85", {}))[0] == 201
            assert (await house.call("GET", "/v1/lines/钱包"))[0] == 200

    run(main())


def test_the_default_line_always_exists() -> None:
    async def main() -> None:
        async with serving() as house:
            assert (await house.call("GET", "/v1/lines/default"))[2]["name"] == "default"
            assert "default" in (await house.call("GET", "/v1/lines"))[2]
            assert (await house.call("DELETE", "/v1/lines/default"))[0] == 409
            assert (await house.call("PUT", "/v1/lines/default", {"name": "mine"}))[0] == 201
            assert (await house.call("GET", "/v1/lines/default"))[2]["name"] == "mine"

    run(main())


def test_what_is_named_elsewhere_cannot_go() -> None:
    async def main() -> None:
        async with serving() as house:
            await _put(house, "providers/p", PROVIDER)
            await _put(house, "lines/wallet", {})
            await _put(house, "templates/t", {**TEMPLATE, "line": "wallet"})
            await _put(house, "routes", [{"providers": [{"id": "p"}], "match": {"lines": ["wallet"]}}])
            status, _, problem = await house.call("DELETE", "/v1/providers/p")
            assert (status, problem["errors"][0]["path"]) == (409, "routes: [0].providers[0].id")
            status, _, problem = await house.call("DELETE", "/v1/lines/wallet")
            assert [e["path"] for e in problem["errors"]] == ["routes: [0].match.lines[0]", "templates/t: line"]
            await _put(house, "routes", [])
            assert (await house.call("DELETE", "/v1/providers/p"))[0] == 204

    run(main())


async def _put(house: House, path: str, document: Any) -> None:
    assert (await house.call("PUT", f"/v1/{path}", document))[0] < 300


def test_providers_show_their_health_and_hide_their_secrets() -> None:
    async def main() -> None:
        async with serving() as house:
            options = {"url": "https://x", "secret": "plain", "password": "env:P", "app_key": 7, "tls": True}
            await _put(house, "providers/p", {**PROVIDER, "options": options})
            house.operations.health["p"] = {"score": 0.9}
            _, _, shown = await house.call("GET", "/v1/providers/p")
            secret = shown["options"].pop("callback_secret")
            assert shown["options"] == {**options, "secret": "***", "app_key": "***"}
            assert shown["reports_url"] == f"http://127.0.0.1:{house.port}/v1/reports/p/{secret}"
            assert shown["uplinks_url"] == f"http://127.0.0.1:{house.port}/v1/uplinks/p/{secret}"
            assert shown["health"] == {"score": 0.9}
            for path in ("/v1/providers", "/v1/providers/p/versions"):
                assert "plain" not in str((await house.call("GET", path))[2])
            await _put(house, "providers/p", PROVIDER)  # the callback addresses stay
            stored = msgspec.json.decode(house.catalog.kinds["providers"]["p"].doc)
            assert stored["options"] == {**PROVIDER["options"], "callback_secret": secret}  # type: ignore[dict-item]

    run(main())


def test_who_made_a_change() -> None:
    async def main() -> None:
        async with serving(Settings(keys=(Key("ann", "s", ("admin",)),))) as house:
            await house.call("PUT", "/v1/lines/a", {}, Authorization="Bearer s")
            assert house.catalog.past["lines", "a"][0].who == "ann"

    run(main())


def test_a_long_keyword_list() -> None:
    async def main() -> None:
        async with serving() as house:
            words = [f"word{i}" for i in range(200_000)]
            await _put(house, "keywords/default", {"words": words})
            assert (await house.call("GET", "/v1/keywords/default"))[2] == {"words": words}
            wrong = [*words[:100_000], *[" . "] * 100_000]
            status, _, problem = await house.call("PUT", "/v1/keywords/default", {"words": wrong})
            assert (status, problem["errors"][0]["path"]) == (422, "words[100000]")
            assert len(problem["errors"]) == MOST_ERRORS

    run(main())


def test_rules_and_keyword_lists_need_each_other() -> None:
    async def main() -> None:
        async with serving() as house:
            rules = [{"kind": "repeat", "name": "r"}, {"kind": "keyword", "name": "k"}]
            rules.append({"kind": "keyword", "name": "l", "list": "gambling"})
            lists = ("default", "gambling")
            status, _, problem = await house.call("PUT", "/v1/rules", rules)
            assert (status, [(e["path"], e["message"]) for e in problem["errors"]]) == (
                422,
                [(f"[{n + 1}].list", f"there is no keyword list '{lists[n]}'") for n in range(2)],
            )
            for name in lists:
                await _put(house, f"keywords/{name}", {"words": []})
            await _put(house, "rules", rules)
            status, _, problem = await house.call("DELETE", "/v1/keywords/gambling")
            assert (status, [e["path"] for e in problem["errors"]]) == (409, ["rules: [2].list"])
            await _put(house, "rules", rules[:2])
            assert (await house.call("DELETE", "/v1/keywords/gambling"))[0] == 204
            assert (await house.call("DELETE", "/v1/keywords/default"))[0] == 409

    run(main())


def test_a_keyword_of_uplinks_has_one_line() -> None:
    way = {"url": "https://x.example", "secret": "env:S"}

    async def main() -> None:
        settings = Settings(check_line=lambda line: [("uplinks.url", "no")] if line.quota == 7 else [])
        async with serving(settings) as house:
            await _put(house, "lines/a", {"name": "Wallet", "uplinks": {"keywords": ["CX", "查询"], **way}})
            await _put(house, "lines/a", {"name": "Wallet", "uplinks": {"keywords": ["cx"], **way}})  # its own
            for keywords, errors in (
                (["CX"], [("uplinks.keywords[0]", "belongs to the line 'a' (Wallet)")]),
                (["查询", "ＣＸ"], [("uplinks.keywords[1]", "belongs to the line 'a' (Wallet)")]),
            ):
                status, _, problem = await house.call("PUT", "/v1/lines/b", {"uplinks": {"keywords": keywords, **way}})
                assert (status, [(e["path"], e["message"]) for e in problem["errors"]]) == (422, errors)
            status, _, problem = await house.call("PUT", "/v1/lines/b", {"uplinks": {"keywords": [], **way}})
            assert (status, problem["errors"][0]["path"]) == (422, "uplinks.keywords")
            assert "b" not in house.catalog.kinds["lines"]
            await _put(house, "lines/b", {"uplinks": {"keywords": ["查询"], **way}})
            status, _, problem = await house.call("PUT", "/v1/lines/c", {"quota": 7})
            assert (status, problem["errors"][0]["path"]) == (422, "uplinks.url")

    run(main())


def test_an_answer_to_who_unsubscribes_needs_a_template_that_can_be_sent() -> None:
    bye = {"type": "notice", "channels": [{"channel": "sms", "text": "bye"}]}

    async def main() -> None:
        async with serving() as house:
            provider = {**PROVIDER, "unsubscribe_answer": {"template": "bye", "line": "a"}}

            async def faults(path: str, document: Any) -> list[tuple[str, str]]:
                status, _, problem = await house.call("PUT", path, document)
                assert status == 422
                return [(error["path"], error["message"]) for error in problem["errors"]]

            at = "unsubscribe_answer"
            assert await faults("/v1/providers/p", provider) == [
                (f"{at}.template", "there is no template 'bye'"), (f"{at}.line", "there is no line 'a'"),
            ]  # fmt: skip
            await _put(house, "templates/bye", TEMPLATE)
            await _put(house, "lines/a", {})
            wanting = (f"{at}.template", "'bye' wants the parameter 'amount', and there are none")
            assert await faults("/v1/providers/p", provider) == [wanting]
            await _put(house, "templates/bye", bye)
            await _put(house, "providers/p", provider)
            said = await faults("/v1/templates/bye", TEMPLATE)  # while it is in use
            assert said == [(f"providers/p: {wanting[0]}", wanting[1])]
            for path in ("templates/bye", "lines/a"):
                assert (await house.call("DELETE", f"/v1/{path}"))[0] == 409
            await _put(house, "providers/p", PROVIDER)
            assert (await house.call("DELETE", "/v1/templates/bye"))[0] == 204

    run(main())
