"""A caller's mistakes cost only themselves: a clear reason at the right place, and everything else goes on."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from dispatcher.http.framing import Framer
from tests.auditor import accepted_times, settled
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import (
    MSGPACK,
    NDJSON,
    PARTITIONS,
    accepted_in,
    connections,
    in_pieces,
    lines_of,
    notice,
    phone,
    stream,
)
from tests.support import run

PROBLEM: Final = "application/problem+json"


class Case(NamedTuple):
    """A bad trigger: as a document, or as bytes that are none. `reason`: what its result must say."""

    name: str
    body: Any
    reason: str  # a part of it, or all of it when it is one word
    id: str | None = None


def cases(mark: str, to: str, binary: bool) -> list[Case]:
    """Bad triggers; those that cannot be told in the form in question are left out."""

    def bad(name: str, reason: str, **fields: Any) -> Case:
        body = {**notice(f"{mark}-{name}", to, mark), **fields}
        return Case(name, {k: v for k, v in body.items() if v is not ...}, reason, f"{mark}-{name}")

    found = [
        bad("wrong-type", "invalid: params:", params=["a"]),
        bad("param-list", "invalid: params.n:", params={"n": ["a"]}),
        bad("param-null", "invalid: params.n:", params={"n": None}),
        bad("user-number", "invalid: user:", user=7),
        bad("unknown-field", "invalid: colour: unknown field", colour="red"),
        bad("no-template", "invalid: template: required field is missing", template=...),
        bad("nobody", "invalid: user: one of `user` and `to` is required", to=...),
        bad("ttl-negative", "invalid: ttl_s:", ttl_s=-1),
        bad("ttl-text", "invalid: ttl_s:", ttl_s="soon"),
        bad("send-at-naive", "invalid: send_at:", send_at="2026-11-22T10:00:00"),
        bad("send-at-text", "invalid: send_at:", send_at="tomorrow"),
        bad("lane", "invalid: lane:", lane="fast"),
        bad("channels-empty", "invalid: channels:", channels=[]),
        bad("channel-strange", "unsupported_channel:fax", channels=["fax"]),
        bad("channel-not-offered", "unsupported_channel:push", channels=["push"]),
        bad("template-unknown", "unknown_template", template=f"none-{mark}"),
        bad("template-draft", "template_not_active", template="draft"),
        bad("line-unknown", "unknown_line", line=f"none-{mark}"),
        bad("param-missing", "missing_param:n", params={}),
        bad("no-address", "no_address:sms", user=f"stranger-{mark}", to=...),
        bad("address", "invalid_address:sms", to={"sms": "12"}),
        bad("to-strange", "unsupported_channel:fax", to={"fax": "1"}),
        bad("expired", "expired", send_at="2020-01-01T00:00:00Z"),
        bad("params-many", "invalid: params:", params={f"p{k}": "x" for k in range(65)}),
        bad("meta-large", "invalid: meta:", meta={"x": "y" * 5_000}),
        bad("content-long", "content_too_long:sms", params={"n": "x" * 600}),
        Case("id-long", {**notice("i" * 129, to, mark)}, "invalid: id:", "i" * 128),
        Case("id-empty", {**notice("", to, mark)}, "invalid: id:", None),
        Case("large", {**notice(f"{mark}-large", to, "x" * (1 << 20))}, "invalid: trigger: larger than"),
        Case("not-an-object", [1, 2], "invalid: trigger:"),
        Case("text", "hello", "invalid: trigger:"),
    ]
    if binary:
        return found
    return [
        *found,
        Case("broken", b'{"id": "x", "template"', "invalid: trigger:"),
        Case("not-json", b"hello", "invalid: trigger:"),
        Case("two-in-a-line", lines_of([notice("a", to, 1)]).strip() * 2, "invalid: trigger:"),
        Case("not-utf8", b'{"id": "\xff\xfe", "template": "notice"}', "invalid:"),
        Case("nested", b'{"meta": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "invalid:"),
    ]


def mixed(mark: str, to_prefix: int, bad: Sequence[Case]) -> list[tuple[Case | None, Any]]:
    """A good trigger before, between and behind the bad ones."""
    rows: list[tuple[Case | None, Any]] = []
    for k in range(len(bad) + 1):
        rows.append((None, notice(f"{mark}-good-{k}", phone(to_prefix, 100 + k), f"{mark} {k}")))
        if k < len(bad):
            rows.append((bad[k], bad[k].body))
    return rows


def check(pair: Pair, rows: list[tuple[Case | None, Any]], results: list[dict[str, Any]]) -> Counter[str]:
    """Each result at its place, with its reason; what was good has arrived. The reasons, counted."""
    assert [result["seq"] for result in results] == list(range(len(rows)))
    reasons: Counter[str] = Counter()
    for (case, body), result in zip(rows, results, strict=True):
        if case is None:
            assert (result["status"], result["id"]) == ("accepted", body["id"])
            continue
        assert result["status"] == "rejected", (case.name, result)
        assert case.reason in result["reason"], (case.name, result)
        assert " " in case.reason or case.reason.startswith("invalid") or result["reason"] == case.reason, case.name
        assert len(result["reason"]) <= 300
        assert result["id"] == case.id, (case.name, result)
        assert all(message["message"] is None for message in result["messages"])
        reasons[result["reason"]] += 1
    accepted = accepted_in(results)
    run(settled(pair[0].store_url, PARTITIONS, accepted))
    assert accepted_times(pair[1].journal()) == Counter(accepted)
    return reasons


@pytest.fixture
def drafted(pair: Pair) -> Pair:
    """With a template that is not active yet."""
    draft = {"type": "notice", "status": "draft", "channels": [{"channel": "sms", "text": "{n}"}]}
    assert pair[0].call("PUT", "/v1/templates/draft", draft)[0] in (200, 201)
    return pair


def test_ndjson(drafted: Pair, mark: str, area: int) -> None:
    rows = mixed(mark, area, cases(mark, phone(area, 1), binary=False))
    parts = [body if isinstance(body, bytes) else json.dumps(body).encode() for _, body in rows]
    body = b"\xef\xbb\xbf\n\r\n" + b"\r\n \n".join(parts)  # BOM, blank lines, CRLF; the last line does not end

    async def go(query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
        async with connections(drafted[0].url, 1) as [session]:
            return await stream(session, in_pieces(body, 4_999), NDJSON, query)

    results, summary = run(go())
    reasons = check(drafted, rows, results)
    n = len(rows) // 2
    assert summary == {
        "total": len(rows), "accepted": n + 1, "rejected": n, "reasons": dict(reasons),
        "filtered": 0, "intercepted": 0, "duplicate": 0, "overloaded": 0,
    }  # fmt: skip
    results, summary = run(go("?results=failed"))
    assert (summary["duplicate"], summary["rejected"]) == (n + 1, n)
    assert len(results) == len(rows)
    results, summary = run(go("?results=none"))
    assert (results, summary["total"]) == ([], len(rows))


def test_msgpack(drafted: Pair, mark: str, area: int) -> None:
    rows = mixed(mark, area, cases(mark, phone(area, 1), binary=True))
    body = b"".join(msgspec.msgpack.encode(body) for _, body in rows)

    async def go(data: bytes) -> list[dict[str, Any]]:
        async with (
            connections(drafted[0].url, 1) as [session],
            session.post("/v1/triggers", data=in_pieces(data, 4_999), headers={"content-type": MSGPACK}) as response,
        ):
            assert response.status == 200
            assert response.content_type == MSGPACK
            return unpacked(await response.read())

    *results, last = run(go(body))
    reasons = check(drafted, rows, sorted(results, key=lambda result: int(result["seq"])))
    assert last["summary"]["reasons"] == dict(reasons)
    assert (last["summary"]["accepted"], last["summary"]["rejected"]) == (len(rows) // 2 + 1, len(rows) // 2)

    good = msgspec.msgpack.encode(notice(f"{mark}-last", phone(area, 2), f"{mark} last"))
    *results, last = run(go(good + b"\xc1" + good))  # 0xc1 is no MessagePack: where the next map starts is unknown
    assert [result["status"] for result in sorted(results, key=lambda r: int(r["seq"]))] == ["accepted", "rejected"]
    assert "invalid: stream:" in next(r["reason"] for r in results if r["status"] == "rejected")
    assert last["summary"]["total"] == 2


def unpacked(data: bytes) -> list[dict[str, Any]]:
    """Concatenated maps."""
    objects, failure = Framer(1 << 20).feed(data)
    assert failure is None
    return [msgspec.msgpack.decode(item or b"") for item in objects]


@pytest.mark.parametrize("body", [b"", b"{", b"[{]", b"hello", b'"text"', b"7", b"\xff", b'[{"a": 1}', b"null"])
def test_an_unreadable_body_is_a_problem(pair: Pair, body: bytes) -> None:
    status, answer = pair[0].call("POST", "/v1/triggers", body)
    assert status == 400
    assert answer["status"] == 400
    assert answer["errors"][0]["path"] == "body"


def test_an_array_is_answered_in_order_up_to_a_thousand(pair: Pair, mark: str, area: int) -> None:
    many = [notice(f"{mark}-{n}", phone(area, n), f"{mark} {n}") for n in range(1_000)]
    many[1] = {"template": 1}
    status, answers = pair[0].call("POST", "/v1/triggers", many)
    assert status == 200
    assert [answer["seq"] for answer in answers] == list(range(1_000))
    assert Counter(answer["status"] for answer in answers) == {"accepted": 999, "rejected": 1}
    assert answers[1]["reason"].startswith("invalid: template:")
    status, answer = pair[0].call("POST", "/v1/triggers", [*many, many[0]])
    assert (status, answer["status"]) == (413, 413)
    assert pair[0].call("POST", "/v1/triggers", [])[:2] == (200, [])


def test_a_single_bad_trigger_is_a_rejected_result(pair: Pair, mark: str) -> None:
    status, answer = pair[0].call("POST", "/v1/triggers", {"id": mark, "template": "notice", "colour": "red"})
    assert (status, answer["status"], answer["id"]) == (200, "rejected", mark)
    assert answer["reason"] == "invalid: colour: unknown field"


def test_other_content_types_parameters_and_paths_are_problems(pair: Pair) -> None:
    call = pair[0].call
    assert call("POST", "/v1/triggers", b"<a/>", "text/xml")[0] == 415
    status, answer = call("POST", "/v1/triggers?results=some", {})
    assert (status, answer["errors"][0]["path"]) == (400, "results")
    status, answer = call("POST", "/v1/triggers?colour=red", {})
    assert (status, answer["errors"][0]["path"]) == (400, "colour")
    for method, path, wanted in (("GET", "/v1/nothing", 404), ("GET", "/v1/triggers", 405), ("POST", "/readyz", 405)):
        status, answer = call(method, path)
        assert (status, answer["status"]) == (wanted, wanted)
