"""Xiaomi push: the form, answers, receipts."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import OptionsError, build
from channels.kind import Callback, Heard
from channels.push import find_of
from channels.secret import Secret
from channels.xiaomi import KIND, Xiaomi, XiaomiOptions
from dispatcher.documents import Provider
from dispatcher.ident import message_id
from dispatcher.message import Message
from dispatcher.report import Report
from tests.channels.messages import message
from tests.channels.vendor import Heard as Asked
from tests.channels.vendor import reply, send, vendor
from tests.support import run

NOW_S = 1_800_000_000.0  # 16:00 in Beijing
OURS = message_id("01J0000000", "A" * 13, 3, "push")
PUBLIC = {"public_url": "https://d.example.com/", "callback_secret": "s/1"}
CALLBACKS = KIND.callbacks
assert CALLBACKS is not None


def xiaomi(**options: Any) -> Xiaomi:
    provider = Provider("xiaomi", "push", options={"app_secret": "env:S", "package": "com.x", **options})
    made = build("p1", provider, {"S": "secret"})[0]  # type: ignore[index]
    assert isinstance(made, Xiaomi)
    return made


def batch(*addresses: str) -> list[Message]:
    return [message(f"m{i}", "push", to=to, expires_ms=int(NOW_S * 1000) + 90_000) for i, to in enumerate(addresses)]


def form(made: Xiaomi, messages: list[Message]) -> dict[str, str]:
    return dict(parse_qsl(made.request(messages, NOW_S).body.decode(), strict_parsing=True))


class TestRequest:
    def test_many_addresses_one_content(self) -> None:
        sent = xiaomi().request(batch("a", "b"), NOW_S)
        assert sent.url == "https://api.xmpush.xiaomi.com/v3/message/regid"
        assert sent.headers["authorization"] == "key=secret"
        wire = form(xiaomi(channel_id="c9"), batch("a", "b"))
        assert 0 <= int(wire.pop("notify_id")) < 1 << 31
        assert len(wire.pop("extra.jobkey")) == 20
        assert wire == {
            "registration_id": "a,b",
            "restricted_package_name": "com.x",
            "title": "Paid",
            "description": "12.00",
            "payload": '{"jump_kind":"h5","jump_url":"https://example.com"}',
            "pass_through": "0",
            "notify_type": "-1",
            "time_to_live": "90000",
            "extra.notify_effect": "3",
            "extra.web_uri": "https://example.com",
            "extra.channel_id": "c9",
        }

    def test_receipts_are_asked_for_where_the_vendor_can_reach_us(self) -> None:
        one = form(xiaomi(**PUBLIC), batch("a"))
        assert one["extra.callback"] == "https://d.example.com/v1/reports/p1/s%2F1"
        assert (one["extra.callback.type"], one["extra.callback.param"]) == ("241", "m0")
        assert "extra.callback.param" not in form(xiaomi(**PUBLIC), batch("a", "b"))
        assert "extra.callback" not in form(xiaomi(), batch("a"))

    def test_a_repeated_message_has_the_same_keys_and_another_has_others(self) -> None:
        first, again, other = (form(xiaomi(), some) for some in (batch("a"), batch("a"), batch("a", "b")))
        for name in ("notify_id", "extra.jobkey"):
            assert first[name] == again[name] != other[name]

    def test_jumps(self) -> None:
        fields = {"title": "a", "body": "b", "jump": {"kind": "native", "url": "app://x"}}
        wire = form(xiaomi(), [message("m", "push", fields=fields)])
        assert (wire["extra.notify_effect"], wire["extra.intent_uri"]) == ("2", "intent://x#Intent;scheme=app;end")
        assert form(xiaomi(), [message("m", "push", fields={"title": "a", "body": "b"})])["extra.notify_effect"] == "1"

    def test_a_public_url_that_is_none(self) -> None:
        with pytest.raises(OptionsError, match="public_url"):
            xiaomi(public_url="d.example.com")


class TestReceipts:
    def test_all_taken(self) -> None:
        said = reply(200, {"result": "ok", "code": 0, "data": {"id": "X1"}, "trace_id": "t"})
        told = xiaomi(**PUBLIC).receipts(batch("a", "b"), said, NOW_S)
        assert [(r.answer, r.ref, r.find) for r in told] == [
            ("accepted", "X1", find_of("X1", "a")),
            ("accepted", "X1", find_of("X1", "b")),
        ]
        assert xiaomi(**PUBLIC).receipts(batch("a"), said, NOW_S)[0].find is None
        assert xiaomi().receipts(batch("a", "b"), said, NOW_S)[0].find is None, "no report will come"

    @pytest.mark.parametrize(
        ("code", "answer"),
        [
            (10029, "invalid_recipient"),
            (10027, "throttled"),
            (21301, "auth"),
            (22022, "auth"),
            (65009, "rejected"),
            (26006, "rejected"),
            (-1, "transient"),
            (20301, "transient"),
            (4711, "rejected"),
        ],
    )
    def test_codes(self, code: int, answer: str) -> None:
        [receipt] = xiaomi().receipts(batch("a"), reply(200, {"result": "error", "code": code, "reason": "x"}), NOW_S)
        assert (receipt.answer, receipt.code) == (answer, str(code))

    def test_one_dead_address_does_not_kill_the_others(self) -> None:
        told = xiaomi().receipts(batch("a", "b"), reply(200, {"result": "error", "code": 65003}), NOW_S)
        assert [r.answer for r in told] == ["transient"] * 2

    def test_the_days_quota_comes_back_at_midnight_in_beijing(self) -> None:
        [receipt] = xiaomi().receipts(batch("a"), reply(200, {"result": "error", "code": 10034}), NOW_S)
        assert (receipt.answer, receipt.retry_after_s) == ("throttled", 8 * 3600)


def heard(body: bytes) -> Heard:
    options = XiaomiOptions(app_secret=Secret("s"), package="com.x")
    assert CALLBACKS is not None
    return CALLBACKS.reports("p1", Callback("POST", "https://d/x", {}, {}, body, NOW_S), options)


def posted(data: Any) -> bytes:
    return urlencode({"data": json.dumps(data)}).encode()


class TestReports:
    def test_every_target_is_a_report(self) -> None:
        found = heard(
            posted({
                "X1": {"type": 1, "targets": "a,b", "timestamp": 1_700_000_000_000, "barStatus": "Enable"},
                "X2": {"type": 16, "targets": "c", "param": OURS, "errorCode": 10029},
                "X3": {"type": 64, "targets": " d ,"},
            })
        )
        assert found.status == 200
        at_ms = 1_700_000_000_000
        assert list(found.items) == [
            Report("p1", "delivered", find=find_of("X1", "a"), to="a", at_ms=at_ms),
            Report("p1", "delivered", find=find_of("X1", "b"), to="b", at_ms=at_ms),
            Report("p1", "undelivered", id=OURS, to="c", code="10029", dead=True),
            Report("p1", "undelivered", find=find_of("X3", "d"), to="d", code="64"),
        ]

    @given(
        st.binary(max_size=40)
        | st.dictionaries(
            st.text(max_size=4),
            st.none()
            | st.dictionaries(
                st.sampled_from(["type", "targets", "param", "timestamp", "errorCode"]),
                st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=1),
            ),
            max_size=3,
        ).map(posted)
    )
    def test_garbage(self, body: bytes) -> None:
        found = heard(body)
        assert found.status in (200, 400)
        assert found.status == 200 or not found.items

    def test_a_thousand_targets(self) -> None:
        assert len(heard(posted({"X": {"type": 1, "targets": ",".join(["r" * 60] * 1000)}})).items) == 1000


def test_the_whole_way() -> None:
    def script(asked: Asked) -> tuple[int, Any]:
        assert asked.headers["authorization"] == "key=secret"
        if asked.form["registration_id"] == "gone":
            return 200, {"result": "error", "code": 10029, "reason": "invalid"}
        return 200, {"result": "ok", "code": 0, "data": {"id": f"X-{asked.form['registration_id']}"}}

    async def scenario() -> None:
        async with vendor(script) as there:
            options = {"app_secret": "env:S", "package": "com.x", "url": there.url}
            text = {"title": "标题 +&=", "body": "~*' 内容"}
            mixed = [*batch("a", "b"), message("m2", "push", to="gone", fields=text)]
            [told] = await send("xiaomi", options, {"S": "secret"}, [mixed], NOW_S)
            assert [(r.id, r.answer, r.ref) for r in told] == [
                ("m0", "accepted", "X-a,b"),
                ("m1", "accepted", "X-a,b"),
                ("m2", "invalid_recipient", None),
            ]
            [other] = [asked.form for asked in there.requests if asked.form["registration_id"] == "gone"]
            assert (other["title"], other["description"]) == (text["title"], text["body"])

    run(scenario())
