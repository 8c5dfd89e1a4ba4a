"""Getui: requests, tokens, results by cid, signed receipts."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import build
from channels.adapter import NoToken
from channels.getui import KIND, Getui, GetuiOptions, sign, wire_message
from channels.kind import Callback, Heard, NotTrue
from channels.push import find_of
from channels.secret import Secret
from dispatcher.documents import Provider
from dispatcher.report import Report
from tests.channels.messages import message
from tests.channels.vendor import Heard as Asked
from tests.channels.vendor import reply, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0
OPTIONS = GetuiOptions(app_id="app", app_key="key", master_secret=Secret("master"))
CALLBACKS = KIND.callbacks
assert CALLBACKS is not None


def getui() -> Getui:
    options = {"app_id": "app", "app_key": "key", "master_secret": "env:S"}
    made = build("p1", Provider("getui", "push", options=options), {"S": "master"})[0]  # type: ignore[index]
    assert isinstance(made, Getui)
    return made


GETUI = getui()


class TestRequest:
    def test_one_message(self) -> None:
        GETUI.use("t0")
        sent = GETUI.request([message("m" * 26, "push", to="cid", expires_ms=int(NOW_S * 1000) + 60_000)], NOW_S)
        assert sent.url == "https://restapi.getui.com/v2/app/push/single/cid"
        assert sent.headers["token"] == "t0"
        body = json.loads(sent.body)
        assert body["request_id"] == "m" * 26
        assert body["audience"] == {"cid": ["cid"]}
        assert body["settings"] == {"ttl": 60_000, "strategy": {"default": 1}}
        shown = {"title": "Paid", "body": "12.00", "click_type": "url", "url": "https://example.com"}
        assert body["push_message"] == {"notification": shown}
        assert body["push_channel"]["android"] == {"ups": {"notification": shown}}
        assert body["push_channel"]["ios"]["aps"]["alert"] == {"title": "Paid", "body": "12.00"}

    @pytest.mark.parametrize(
        ("jump", "click"),
        [
            ({"jump": {"kind": "native", "url": "app://x"}}, ("intent", "intent", "intent://x#Intent;scheme=app;end")),
            ({}, ("payload", "payload", '{"message":"m1"}')),
        ],
    )
    def test_jumps(self, jump: dict[str, Any], click: tuple[str, str, str]) -> None:
        shown = wire_message(message("m1", "push", fields={"title": "a", "body": "b", **jump}), NOW_S)
        notification = shown["push_message"]["notification"]
        assert (notification["click_type"], notification[click[1]]) == (click[0], click[2])

    @given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12))
    def test_an_address_is_once_in_a_request(self, addresses: list[str]) -> None:
        parts = GETUI.parts([message("m", "push", to=to) for to in addresses])
        assert sorted(place for part in parts for place in part) == list(range(len(addresses)))
        for part in parts:
            assert len({addresses[place] for place in part}) == len(part)
        assert len(parts) == max(map(addresses.count, addresses), default=0)

    def test_at_most_two_hundred(self) -> None:
        parts = GETUI.parts([message("m", "push", to=f"c{i}") for i in range(450)])
        assert [len(part) for part in parts] == [200, 200, 50]


class TestReceipts:
    def test_each_cid_has_its_result(self) -> None:
        results = {"a": "successed_online", "b": "successed_ignore", "c": "successed_offline"}
        data: dict[str, Any] = {f"T{i}": dict([pair]) for i, pair in enumerate(results.items(), 1)} | {"T4": 1}
        batch = [message(f"m{i}", "push", to=to) for i, to in enumerate("abcd")]
        told = GETUI.receipts(batch, reply(200, {"code": 0, "msg": "success", "data": data}), NOW_S)
        assert [(r.answer, r.ref, r.code, r.find) for r in told] == [
            ("accepted", "T1", None, find_of("T1", "a")),
            ("invalid_recipient", "T2", "successed_ignore", None),
            ("accepted", "T3", None, find_of("T3", "c")),
            ("unknown", None, "missing in the reply", None),
        ]

    @pytest.mark.parametrize(
        ("http", "code", "answer"),
        [
            (401, 10001, "auth"),
            (200, 10009, "auth"),
            (400, 20001, "rejected"),
            (429, 5, "throttled"),
            (500, 5, "transient"),
        ],
    )
    def test_codes(self, http: int, code: int, answer: str) -> None:
        [receipt] = GETUI.receipts([message("m1", "push")], reply(http, {"code": code, "msg": "x"}), NOW_S)
        assert (receipt.answer, receipt.code) == (answer, str(code))


class TestToken:
    def test_is_asked_for_with_a_signature(self) -> None:
        asked = json.loads(GETUI.token_request(NOW_S).body)
        wanted = hashlib.sha256(b"key1800000000000master").hexdigest()
        assert asked == {"sign": wanted, "timestamp": "1800000000000", "appkey": "key"}

    def test_lives_until_the_vendor_says(self) -> None:
        data = {"token": "t", "expire_time": str(int(NOW_S + 3600) * 1000)}
        assert GETUI.token_of(reply(200, {"code": 0, "data": data}), NOW_S).expires_s == NOW_S + 3600
        assert GETUI.token_of(reply(200, {"code": 0, "data": {"token": "t"}}), NOW_S).expires_s == NOW_S + 86_400

    @pytest.mark.parametrize(
        ("http", "body", "answer"),
        [(200, {"code": 10002}, "auth"), (403, {"code": 3}, "auth"), (500, {}, "transient"), (200, {}, "transient")],
    )
    def test_refusals(self, http: int, body: Any, answer: str) -> None:
        with pytest.raises(NoToken) as raised:
            GETUI.token_of(reply(http, body), NOW_S)
        assert raised.value.answer == answer


def line(secret: str = "master", **changes: Any) -> bytes:
    said: dict[str, Any] = {"appid": "app", "cid": "c1", "taskid": "T1", "msgid": "M1", "code": "200", "recvtime": 5}
    said |= changes
    signed = f"{said['appid']}{said['cid']}{said['taskid']}{said['msgid']}{secret}"
    return json.dumps({**said, "sign": hashlib.md5(signed.encode()).hexdigest()}).encode()


def heard(body: bytes) -> Heard:
    assert CALLBACKS is not None
    return CALLBACKS.reports("p1", Callback("POST", "https://d/x", {}, {}, body, NOW_S), OPTIONS)


class TestReports:
    def test_a_line_is_a_receipt(self) -> None:
        found = heard(line() + b"\n" + line(cid="c2", code=401) + b"\r\n\n" + line(cid="c3", code="500"))
        assert found.status == 200
        assert list(found.items) == [
            Report("p1", "delivered", find=find_of("T1", "c1"), to="c1", at_ms=5),
            Report("p1", "undelivered", find=find_of("T1", "c2"), to="c2", code="401", at_ms=5, dead=True),
            Report("p1", "undelivered", find=find_of("T1", "c3"), to="c3", code="500", at_ms=5),
        ]

    @pytest.mark.parametrize(
        "body", [line("other"), line() + b"\n" + line("other"), b'{"appid": "app"}', b'{"sign": null}']
    )
    def test_one_wrong_signature_refuses_all(self, body: bytes) -> None:
        with pytest.raises(NotTrue):
            heard(body)

    @given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
    def test_garbage(self, body: bytes) -> None:
        try:
            found = heard(body)
        except NotTrue:
            return
        assert (found.status, list(found.items)) == (400, [])

    @given(
        st.dictionaries(
            st.sampled_from(["appid", "cid", "taskid", "msgid", "code", "recvtime"]),
            st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
        )
    )
    def test_any_words_that_are_signed(self, said: dict[str, Any]) -> None:
        body = json.dumps({**said, "sign": sign(json.loads(json.dumps(said)), "master")}).encode()
        assert len(heard(body).items) == 1
        with pytest.raises(NotTrue):
            heard(json.dumps({**said, "sign": sign(said, "masterx")}).encode())

    def test_no_uplinks(self) -> None:
        assert CALLBACKS is not None
        assert CALLBACKS.uplinks("p1", Callback("POST", "", {}, {}, b"", NOW_S), OPTIONS).status == 404


def test_the_whole_way_with_a_token_that_ran_out() -> None:
    granted = iter(["one", "two"])

    def script(asked: Asked) -> tuple[int, Any]:
        if asked.path == "/v2/app/auth":
            return 200, {"code": 0, "data": {"token": next(granted), "expire_time": str(int(NOW_S + 86_400) * 1000)}}
        if asked.headers["token"] == "one":
            return 401, {"code": 10001, "msg": "token error"}
        cids = [one["audience"]["cid"][0] for one in asked.json.get("msg_list", [asked.json])]
        return 200, {"code": 0, "data": {f"T-{cid}": {cid: "successed_online"} for cid in cids}}

    async def scenario() -> None:
        async with vendor(script) as there:
            options = {"app_id": "app", "app_key": "key", "master_secret": "env:S", "url": there.url}
            batch = [message(f"m{i}", "push", to=to) for i, to in enumerate(["a", "b", "a"])]
            [told] = await send("getui", options, {"S": "master"}, [batch], NOW_S)
            assert [(r.id, r.answer, r.ref) for r in told] == [
                ("m0", "accepted", "T-a"),
                ("m1", "accepted", "T-b"),
                ("m2", "accepted", "T-a"),
            ]
            assert len(there.to("/auth")) == 2
            assert {len(asked.json.get("msg_list", "1")) for asked in there.to("/cid")} == {1, 2}

    run(scenario())
