"""JPush: requests, answers, asking for delivery states."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import build
from channels.adapter import Reply
from channels.jpush import Jpush
from channels.poll import STEPS_S, Poll, Polled
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from tests.channels.messages import message
from tests.channels.vendor import Heard, reply, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0
ENVIRON = {"S": "secret"}
ID = "1507bfd3a7c568d4761"


def jpush(**options: Any) -> Jpush:
    provider = Provider(
        kind="jpush", channel="push", options={"app_key": "key", "master_secret": "env:S", **options}, max_batch=1000
    )
    made = build("p1", provider, ENVIRON)[0]  # type: ignore[index]
    assert isinstance(made, Jpush)
    return made


JPUSH = jpush()


def batch(*addresses: str) -> list[Message]:
    return [message(f"m{i}", "push", to=to, expires_ms=int(NOW_S * 1000) + 90_000) for i, to in enumerate(addresses)]


def answers(receipts: list[Receipt]) -> list[Answer]:
    return [receipt.answer for receipt in receipts]


class TestRequest:
    def test_many_addresses_one_content(self) -> None:
        sent = JPUSH.request(batch("a1", "a2"), NOW_S)
        assert sent.url == "https://api.jpush.cn/v3/push"
        assert sent.headers["authorization"] == "Basic a2V5OnNlY3JldA=="
        body = json.loads(sent.body)
        assert body.keys() == {"platform", "audience", "notification", "options"}
        assert body["audience"] == {"registration_id": ["a1", "a2"]}
        more = {"jump_kind": "h5", "jump_url": "https://example.com"}
        assert body["notification"] == {
            "alert": "12.00",
            "android": {"alert": "12.00", "title": "Paid", "extras": more},
            "ios": {"alert": {"title": "Paid", "body": "12.00"}, "sound": "default", "extras": more},
        }
        assert (body["options"]["time_to_live"], body["options"]["apns_production"]) == (90, True)

    def test_one_message_is_named_and_a_native_jump_is_an_intent(self) -> None:
        fields = {"title": "a", "body": "b", "jump": {"kind": "native", "url": "app://x"}}
        body = json.loads(JPUSH.request([message("m1", "push", fields=fields)], NOW_S).body)
        assert body["notification"]["android"]["intent"] == {"url": "intent://x#Intent;scheme=app;end"}
        assert body["notification"]["android"]["extras"]["message"] == "m1"
        assert body["options"]["apns_collapse_id"] == "m1"

    def test_the_same_messages_have_the_same_cid_where_one_is_wanted(self) -> None:
        made = jpush(derived_cid=True, production=False)
        first, again, other = (json.loads(made.request(batch(*some), NOW_S).body) for some in (["a"], ["a"], "ab"))
        assert first["cid"] == again["cid"] != other["cid"]
        assert first["cid"].startswith("key-")
        assert len(first["cid"]) == len("key-") + 36
        assert first["options"]["apns_production"] is False
        assert "cid" not in json.loads(JPUSH.request(batch("a"), NOW_S).body)

    @pytest.mark.parametrize(
        ("url", "asked"),
        [
            (None, "https://report.jpush.cn/v3/status/message"),
            ("https://api.jpush.cn/", "https://report.jpush.cn/v3/status/message"),
            ("https://bjapi.push.jiguang.cn", "https://bjapi.push.jiguang.cn/v3/report/status/message"),
            ("http://proxy/jpush", "http://proxy/jpush/v3/status/message"),
        ],
    )
    def test_each_zone_is_asked_for_states_at_its_own_address(self, url: str | None, asked: str) -> None:
        assert jpush(url=url).status_request("1", ["a"], NOW_S).url == asked

    def test_what_looks_like_no_registration_id_travels_alone(self) -> None:
        assert JPUSH.parts(batch(ID, "no id!", ID + "1")) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("http", "code", "answer"),
    [
        (400, 1011, "invalid_recipient"),
        (400, 1002, "rejected"),
        (400, 1003, "rejected"),
        (401, 1004, "auth"),
        (403, 2007, "auth"),
        (429, 2002, "throttled"),
        (500, 1000, "transient"),
        (503, 1030, "transient"),
        (400, 7777, "rejected"),
        (500, 7777, "transient"),
    ],
)
def test_codes(http: int, code: int, answer: str) -> None:
    receipts = JPUSH.receipts(batch("a", "b"), reply(http, {"error": {"code": code, "message": "x"}}), NOW_S)
    assert [(r.answer, r.code) for r in receipts] == [(answer, str(code))] * 2


def test_answers_by_address_where_a_registration_id_is_malformed() -> None:
    body = {"error": {"code": 1003, "message": "The registration_id bbb is wrong"}}
    assert answers(JPUSH.receipts(batch("aaa", "bbb"), reply(400, body), NOW_S)) == ["transient", "invalid_recipient"]
    body = {"error": {"code": 1003, "message": "Illegal registration id"}}
    assert answers(JPUSH.receipts(batch("aaa"), reply(400, body), NOW_S)) == ["invalid_recipient"]


def test_the_pause_is_the_vendors() -> None:
    body = {"error": {"code": 2002, "message": "x"}}
    [receipt] = JPUSH.receipts(batch("a"), reply(429, body, x_rate_limit_reset="23"), NOW_S)
    assert receipt.retry_after_s == 23


def test_the_whole_way_and_what_became_of_it() -> None:
    def aurora(heard: Heard) -> tuple[int, Any]:
        assert heard.headers["authorization"] == "Basic a2V5OnNlY3JldA=="
        if heard.path == "/v3/push":
            return 200, {"sendno": "18", "msg_id": "1828256757"}
        return 200, {ID: {"status": 0}, ID + "1": {"status": 1}, ID + "2": {"status": 2}, ID + "3": {"status": 4}}

    async def scenario() -> None:
        async with vendor(aurora) as there:
            options = {"app_key": "key", "master_secret": "env:S", "url": there.url}
            messages = batch(ID, ID + "1", ID + "2", ID + "3")
            [receipts] = await send("jpush", options, ENVIRON, [messages], NOW_S)
            assert [(r.answer, r.ref) for r in receipts] == [("accepted", "1828256757")] * 4
            assert len(there.requests) == 1

            made, transport = build("p1", Provider("jpush", "push", options=options), ENVIRON)  # type: ignore[misc]
            assert isinstance(made, Polled)
            poll = Poll("p1")
            poll.sent(messages, receipts, NOW_S)
            assert poll.ask(NOW_S) is None
            assert poll.next_s() == NOW_S + STEPS_S[0]
            question = poll.ask(NOW_S + STEPS_S[0])
            assert question is not None
            asked = made.status_request(question.ref, list(question.addresses), question.sent_s)
            states = made.states(list(question.addresses), await transport.send(asked, 5))
            await transport.close()
            reports = poll.told(question, states, NOW_S + STEPS_S[0])
            assert [(r.id, r.status, r.dead, r.to) for r in reports] == [
                ("m0", "delivered", False, ID),
                ("m2", "undelivered", True, ID + "2"),
            ]
            assert there.requests[1].json == {
                "msg_id": 1828256757,
                "registration_ids": [ID, ID + "1", ID + "2", ID + "3"],
                "date": "2027-01-15",
            }
            assert poll.waiting == 2

    run(scenario())


_bad = st.sampled_from([b'{"a": 1}', b'{"a": {"status": 99}}', b'{"a": {"status": "0"}}', b"[]"])


@given(st.binary(max_size=40) | _bad)
def test_unreadable_states_are_none(body: bytes) -> None:
    assert JPUSH.states(["a"], Reply(200, {}, body)) == {}
