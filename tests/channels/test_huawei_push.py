"""Huawei Push Kit: requests, tokens, partial success, signed receipts."""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import build
from channels.huawei_push import KIND, HuaweiPush, HuaweiPushOptions, wire_message
from channels.kind import Callback, Heard, NotTrue
from channels.push import find_of
from channels.secret import Secret
from dispatcher.documents import Provider
from dispatcher.ident import message_id
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.report import Report
from tests.channels.messages import message
from tests.channels.vendor import Heard as Asked
from tests.channels.vendor import reply, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0
OURS = message_id("01J0000000", "A" * 13, 3, "push")
OPTIONS = HuaweiPushOptions(app_id="1", app_secret=Secret("s"), callback_user="me", callback_key=Secret("key"))
UNSIGNED = HuaweiPushOptions(app_id="1", app_secret=Secret("s"))
CALLBACKS = KIND.callbacks
assert CALLBACKS is not None


def huawei(**options: Any) -> HuaweiPush:
    provider = Provider("huawei_push", "push", options={"app_id": "100", "app_secret": "env:S", **options})
    made = build("p1", provider, {"S": "a secret&"})[0]  # type: ignore[index]
    assert isinstance(made, HuaweiPush)
    return made


HUAWEI = huawei()


def batch(*addresses: str) -> list[Message]:
    return [message(f"m{i}", "push", to=to, expires_ms=int(NOW_S * 1000) + 90_000) for i, to in enumerate(addresses)]


class TestRequest:
    def test_many_tokens_one_content(self) -> None:
        HUAWEI.use("t0")
        sent = HUAWEI.request(batch("a", "b"), NOW_S)
        assert sent.url == "https://push-api.cloud.huawei.com/v1/100/messages:send"
        assert sent.headers["authorization"] == "Bearer t0"
        body = json.loads(sent.body)
        assert body["validate_only"] is False
        assert body["message"]["token"] == ["a", "b"]
        assert body["message"]["notification"] == {"title": "Paid", "body": "12.00"}
        android = body["message"]["android"]
        assert (android["urgency"], android["ttl"], "bi_tag" in android) == ("HIGH", "90s", False)
        assert android["notification"]["click_action"] == {"type": 2, "url": "https://example.com"}

    def test_one_message_is_named(self) -> None:
        android = wire_message(batch("a"), NOW_S)["android"]
        assert (android["bi_tag"], android["notification"]["tag"]) == ("m0", "m0")

    @pytest.mark.parametrize(
        ("jump", "click"),
        [
            ({"jump": {"kind": "native", "url": "app://x"}}, {"type": 1, "intent": "intent://x#Intent;scheme=app;end"}),
            ({}, {"type": 3}),
        ],
    )
    def test_jumps_and_bulk(self, jump: dict[str, Any], click: dict[str, Any]) -> None:
        one = message("m", "push", lane=BULK, fields={"title": "a", "body": "b", **jump})
        android = wire_message([one], NOW_S)["android"]
        assert (android["notification"]["click_action"], android["urgency"]) == (click, "NORMAL")

    def test_token_request(self) -> None:
        asked = HUAWEI.token_request(NOW_S)
        assert asked.url == "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
        form = {"grant_type": "client_credentials", "client_id": "100", "client_secret": "a secret&"}
        assert dict(parse_qsl(asked.body.decode())) == form
        assert huawei(url="http://proxy/x/").token_request(NOW_S).url == "http://proxy/x/oauth2/v3/token"
        assert huawei(url="http://proxy", token_url="http://t/t").token_request(NOW_S).url == "http://t/t"


class TestReceipts:
    def test_all_taken(self) -> None:
        said = reply(200, {"code": "80000000", "msg": "Success", "requestId": "R"})
        told = HUAWEI.receipts(batch("a", "b"), said, NOW_S)
        assert [(r.answer, r.ref, r.find) for r in told] == [
            ("accepted", "R", find_of("R", "a")),
            ("accepted", "R", find_of("R", "b")),
        ]
        assert HUAWEI.receipts(batch("a"), said, NOW_S)[0].find is None, "its report names our id"

    @pytest.mark.parametrize(
        ("message_", "answers"),
        [
            (
                '{"success":1,"failure":2,"illegal_tokens":["a","c"]}',
                ["invalid_recipient", "accepted", "invalid_recipient"],
            ),
            (
                '{"illegalTokens":{"tokenFormatError":["a"],"noPushTypeRight":["b"]},"success":1,"failure":2}',
                ["invalid_recipient", "rejected", "accepted"],
            ),
            ("Success", ["unknown"] * 3),
            (None, ["unknown"] * 3),
            ('{"illegal_tokens":[1,null,{}]}', ["accepted"] * 3),
        ],
    )
    def test_partial_success(self, message_: Any, answers: list[str]) -> None:
        said = reply(200, {"code": "80100000", "msg": message_, "requestId": "R"})
        assert [r.answer for r in HUAWEI.receipts(batch("a", "b", "c"), said, NOW_S)] == answers

    @pytest.mark.parametrize(
        ("http", "code", "answer"),
        [
            (200, "80300007", "invalid_recipient"),
            (200, "80300002", "rejected"),
            (200, "80200003", "auth"),
            (200, "80300008", "rejected"),
            (500, "81000001", "transient"),
            (503, "", "throttled"),
            (502, "", "transient"),
            (401, "", "auth"),
            (200, "99", "rejected"),
        ],
    )
    def test_codes(self, http: int, code: str, answer: str) -> None:
        said = reply(http, {"code": code, "msg": "x"})
        assert [r.answer for r in HUAWEI.receipts(batch("a", "b"), said, NOW_S)] == [answer] * 2


def signed(body: bytes, user: str = "me", key: bytes = b"key", at_s: float = NOW_S, options: Any = OPTIONS) -> Heard:
    """Signed as the vendor's page says, by hand."""
    timestamp, nonce = str(int(at_s * 1000)), "6a1b"
    value = base64.b64encode(hmac.new(key, f"{timestamp}{nonce}{user}".encode(), hashlib.sha256).digest()).decode()
    header = {"x-huawei-callback-id": f"timestamp={timestamp}; nonce={nonce}; value={value}"}
    assert CALLBACKS is not None
    return CALLBACKS.reports("p1", Callback("POST", "https://d/x", {}, header, body, NOW_S), options)


def statuses(*items: Any) -> bytes:
    return json.dumps({"statuses": list(items)}).encode()


class TestReports:
    def test_statuses(self) -> None:
        one = {"biTag": OURS, "token": "a", "status": 0, "timestamp": 1_700_000_000_000, "requestId": "R"}
        found = signed(
            statuses(
                one,
                {**one, "biTag": "", "token": "b", "status": 5},
                {**one, "status": 27},
                {**one, "status": 102},
            )
        )
        assert (found.status, json.loads(found.body)) == (200, {"code": "0", "message": "success"})
        at_ms = 1_700_000_000_000
        assert list(found.items) == [
            Report("p1", "delivered", id=OURS, to="a", at_ms=at_ms),
            Report("p1", "undelivered", find=find_of("R", "b"), to="b", code="5", at_ms=at_ms, dead=True),
            Report("p1", "sent", id=OURS, to="a", code="27", at_ms=at_ms),
            Report("p1", "undelivered", id=OURS, to="a", code="102", at_ms=at_ms),
        ]

    @pytest.mark.parametrize(
        "wrong", [{"user": "you"}, {"key": b"other"}, {"at_s": NOW_S - 1000}, {"at_s": NOW_S + 1000}]
    )
    def test_wrong_or_old_signatures(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(NotTrue):
            signed(statuses(), **wrong)

    @given(st.text(max_size=60), st.binary(max_size=30))
    def test_any_header_without_the_key_is_refused(self, header: str, body: bytes) -> None:
        call = Callback("POST", "https://d/x", {}, {"x-huawei-callback-id": header}, body, NOW_S)
        assert CALLBACKS is not None
        with pytest.raises(NotTrue):
            CALLBACKS.reports("p1", call, OPTIONS)

    @given(
        st.binary(max_size=40)
        | st.lists(
            st.dictionaries(
                st.sampled_from(["biTag", "token", "status", "timestamp", "requestId"]),
                st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=1),
            )
            | st.integers()
            | st.none(),
            max_size=3,
        ).map(lambda items: statuses(*items))
    )
    def test_garbage(self, body: bytes) -> None:
        found = signed(body, options=UNSIGNED)
        assert found.status in (200, 400)
        assert found.status == 200 or not found.items


def test_the_whole_way_with_a_token_that_ran_out() -> None:
    granted = iter(["one", "two"])

    def script(asked: Asked) -> tuple[int, Any]:
        if asked.path == "/oauth2/v3/token":
            assert asked.form["client_secret"] == "a secret&"
            return 200, {"access_token": next(granted), "expires_in": 3600, "token_type": "Bearer"}
        if asked.headers["authorization"] == "Bearer one":
            return 200, {"code": "80200003", "msg": "OAuth token expired", "requestId": "R0"}
        tokens = asked.json["message"]["token"]
        if "gone" in tokens:
            msg = json.dumps({"success": len(tokens) - 1, "failure": 1, "illegal_tokens": ["gone"]})
            return 200, {"code": "80100000", "msg": msg, "requestId": "R1"}
        return 200, {"code": "80000000", "msg": "Success", "requestId": "R2"}

    async def scenario() -> None:
        async with vendor(script) as there:
            options = {"app_id": "100", "app_secret": "env:S", "url": there.url}
            mixed = batch("a", "gone", "b")
            mixed[2] = message("m2", "push", to="b", fields={"title": "other", "body": "text"})
            [told] = await send("huawei_push", options, {"S": "a secret&"}, [mixed], NOW_S)
            assert [(r.id, r.answer, r.ref) for r in told] == [
                ("m0", "accepted", "R1"),
                ("m1", "invalid_recipient", "R1"),
                ("m2", "accepted", "R2"),
            ]
            assert [len(there.to("/token")), len(there.to(":send"))] == [2, 4]

    run(scenario())
