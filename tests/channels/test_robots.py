"""Members and groups of office platforms: the kinds `wecom`, `wecom_robot`, `dingtalk` and `feishu`."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import ADAPTERS, build, check, mask
from channels.adapter import Adapter, NoToken, Splits, Tokened, Unsendable
from channels.dingtalk import signature as dingtalk_signature
from channels.feishu import signature as feishu_signature
from channels.secret import Secret
from channels.wecom import Wecom, WecomOptions
from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from tests.channels.messages import message, messages, reply

NOW_S = 1_800_000_000.0
#: Made by openssl: `dgst -sha256 -hmac` of secret `SECabc` and this time.
DINGTALK_SIGN = "s70k7/iqeFJrhlEAPSnI9WrGLqC5YHz9Hg5m2rQkeQk="
FEISHU_SIGN = "C9CS4U/7ctJ0Ea5EnmeM3Y1YFHOLBBtiJqM0dqsRJpU="
URL = "https://robots.example.com/send?access_token=t1"
ROBOTS = ["dingtalk", "feishu", "wecom_robot"]


def robot(kind: str, secret: str | None = None, url: str = URL) -> Adapter:
    options = {"url": "env:ROBOT", **({"secret": "env:SECRET"} if secret else {})}
    made = build("p1", Provider(kind, "webhook", options=options), {"ROBOT": url, "SECRET": secret or ""})
    assert isinstance(made, tuple)
    return made[0]


def posted(adapter: Adapter, body: Any) -> tuple[str, dict[str, Any]]:
    request = adapter.request([message("m1", "webhook", fields={"body": body})], NOW_S)
    assert request.method == "POST"
    return request.url, msgspec.json.decode(request.body)


def answer(adapter: Adapter, body: Any, status: int = 200, **headers: str) -> Receipt:
    [receipt] = adapter.receipts(messages(1, "webhook"), reply(status, msgspec.json.encode(body), **headers), NOW_S)
    return receipt


class TestRobots:
    def test_text_of_any_body(self) -> None:
        plain = {"msgtype": "text", "text": {"content": "部署完成"}}
        for kind in ("dingtalk", "wecom_robot"):
            assert posted(robot(kind), {"text": "部署完成"}) == (URL, plain)
        assert posted(robot("feishu"), {"text": "ok"}) == (URL, {"msg_type": "text", "content": {"text": "ok"}})

    @pytest.mark.parametrize("body", [{"order": "1"}, {"text": ""}, {"text": {"content": "x"}}])
    def test_a_body_without_text_is_shown_as_json(self, body: Any) -> None:
        _, found = posted(robot("dingtalk"), body)
        assert msgspec.json.decode(found["text"]["content"]) == body

    def test_a_message_in_the_robots_words_goes_out_as_it_is(self) -> None:
        own = {"msgtype": "markdown", "markdown": {"title": "t", "text": "# t"}, "at": {"isAtAll": False}}
        for kind in ("dingtalk", "wecom_robot"):
            assert posted(robot(kind), own)[1] == own
        card = {"msg_type": "interactive", "card": {"elements": []}}
        assert posted(robot("feishu"), card)[1] == card

    def test_dingtalk_signs_in_the_address(self) -> None:
        assert dingtalk_signature("SECabc", 1_800_000_000_000) == DINGTALK_SIGN
        url, _ = posted(robot("dingtalk", "SECabc"), {"text": "x"})
        query = parse_qs(urlsplit(url).query, strict_parsing=True)
        assert query == {"access_token": ["t1"], "timestamp": ["1800000000000"], "sign": [DINGTALK_SIGN]}
        assert "?timestamp=" in posted(robot("dingtalk", "SECabc", "https://x.example.com/r"), {"text": "x"})[0]

    def test_feishu_signs_in_the_body(self) -> None:
        assert feishu_signature("SECabc", 1_800_000_000) == FEISHU_SIGN
        url, body = posted(robot("feishu", "SECabc"), {"msg_type": "text", "content": {"text": "x"}, "sign": "stale"})
        assert url == URL
        assert body == {
            "timestamp": "1800000000", "sign": FEISHU_SIGN, "msg_type": "text", "content": {"text": "x"},
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("kind", "answers"),
        [
            ("dingtalk", {"accepted": "0", "throttled": "130101", "auth": "300001 310000 400013 400101",
                          "transient": "-1", "rejected": "40035 7"}),
            ("feishu", {"accepted": "0", "throttled": "11232 99991400", "auth": "19001 19021 19022",
                        "rejected": "9499 19024 7"}),
            ("wecom_robot", {"accepted": "0", "throttled": "45009", "auth": "93000", "rejected": "40058 7"}),
        ],
    )  # fmt: skip
    def test_codes(self, kind: str, answers: dict[str, str]) -> None:
        name = "code" if kind == "feishu" else "errcode"
        told = {
            code: answer(robot(kind), {name: int(code), "msg": "m", "errmsg": "m"}).answer
            for codes in answers.values() for code in codes.split()
        }  # fmt: skip
        assert told == {code: word for word, codes in answers.items() for code in codes.split()}

    @pytest.mark.parametrize("kind", ROBOTS)
    def test_a_zero_with_a_status_that_is_none_is_no_success(self, kind: str) -> None:
        assert answer(robot(kind), {"errcode": 0, "code": 0}, 500).answer == "transient"

    def test_a_dingtalk_robot_is_silent_for_ten_minutes(self) -> None:
        assert answer(robot("dingtalk"), {"errcode": 130101}).retry_after_s == 600

    def test_a_missing_keyword_is_the_texts_fault(self) -> None:
        told = answer(robot("dingtalk"), {"errcode": 310000, "errmsg": "keywords not in content"})
        assert (told.answer, told.code) == ("rejected", "310000")
        assert answer(robot("dingtalk"), {"errcode": 310000, "errmsg": "sign not match"}).answer == "auth"

    def test_feishu_says_when_to_come_back(self) -> None:
        told = answer(robot("feishu"), {"code": 99991400}, 429, x_ogw_ratelimit_reset="7")
        assert (told.answer, told.code, told.retry_after_s) == ("throttled", "99991400", 7)
        assert answer(robot("feishu"), {"code": 9499, "msg": "Bad Request"}, 400).answer == "rejected"
        assert answer(robot("feishu"), {"StatusCode": 0, "StatusMessage": "success"}).answer == "accepted"

    @pytest.mark.parametrize("kind", ROBOTS)
    def test_the_address_is_a_secret(self, kind: str) -> None:
        open_ = Provider(kind, "webhook", options={"url": URL})
        assert [path for path, _ in check(open_)] == ["options.url"]
        assert mask(open_.options, kind) == {"url": "***"}
        assert mask({"url": "env:ROBOT"}, kind) == {"url": "env:ROBOT"}

    def test_channels(self) -> None:
        assert {kind: ADAPTERS[kind].channels for kind in (*ROBOTS, "wecom")} == {
            "dingtalk": ("webhook",), "feishu": ("webhook",), "wecom_robot": ("webhook",), "wecom": ("wechat",),
        }  # fmt: skip


OPTIONS = WecomOptions(corp_id="ww 1", corp_secret=Secret("s&1"), agent_id=1000002)
DATA = {"template_id": "T", "data": {"first": {"value": "已支付"}, "k": "12.00"}, "url": "https://example.com"}


def to(*members: str, **fields: Any) -> list[Message]:
    return [message(f"m{i}", "wechat", to=member, fields={**DATA, **fields}) for i, member in enumerate(members)]


class TestWecom:
    def test_one_text_to_several_members(self) -> None:
        adapter = Wecom("p1", OPTIONS)
        adapter.use("T/1")
        request = adapter.request(to("zhang", "li"), NOW_S)
        assert request.url == "https://qyapi.weixin.qq.com/cgi-bin/message/send?access_token=T%2F1"
        assert msgspec.json.decode(request.body) == {
            "touser": "zhang|li", "msgtype": "text", "agentid": 1000002, "safe": 0, "enable_duplicate_check": 1,
            "text": {"content": "已支付\n12.00\nhttps://example.com"}, "duplicate_check_interval": 1800,
        }  # fmt: skip

    def test_content_is_the_text_where_there_is_one(self) -> None:
        data = {"content": {"value": "hi"}, "k": "x"}
        request = Wecom("p1", OPTIONS).request(to("zhang", data=data, url=None), NOW_S)
        assert msgspec.json.decode(request.body)["text"] == {"content": "hi"}

    def test_parts_are_of_equal_text_and_have_no_member_twice(self) -> None:
        adapter = Wecom("p1", OPTIONS)
        assert isinstance(adapter, Splits)
        batch = [*to("a", "b", "A"), *to("a", "c", url="https://other.example.com"), *to("@all", "x|y")]
        assert adapter.parts(batch) == [[0, 1], [2], [3, 4], [5], [6]]

    def test_many_members_are_parted(self) -> None:
        assert [len(part) for part in Wecom("p1", OPTIONS).parts(to(*map(str, range(2_001))))] == [1000, 1000, 1]

    @given(st.lists(st.sampled_from(["a", "A", "b", "c", "@all", "a|b"]), max_size=12), st.data())
    def test_parts_hold_every_place_once(self, members: list[str], data: st.DataObject) -> None:
        urls = data.draw(st.lists(st.sampled_from(["u1", "u2"]), min_size=len(members), max_size=len(members)))
        batch = [to(member, url=url)[0] for member, url in zip(members, urls, strict=True)]
        parts = Wecom("p1", OPTIONS).parts(batch)
        assert sorted(place for part in parts for place in part) == list(range(len(batch)))
        for part in parts:
            assert len({batch[place].fields["url"] for place in part}) == 1
            assert len({batch[place].to.casefold() for place in part}) == len(part)

    @pytest.mark.parametrize("member", ["@all", "a|b", "|"])
    def test_nobody_sends_to_everybody(self, member: str) -> None:
        with pytest.raises(Unsendable) as raised:
            Wecom("p1", OPTIONS).request(to(member), NOW_S)
        assert raised.value.answer == "invalid_recipient"

    def test_members_unknown_inside_a_success(self) -> None:
        body = {"errcode": 0, "errmsg": "ok", "msgid": "M1", "invaliduser": "zhang|wu", "unlicenseduser": "qian"}
        told = Wecom("p1", OPTIONS).receipts(
            to("Zhang", "li", "qian", "wu"), reply(200, msgspec.json.encode(body)), NOW_S
        )
        assert told == [
            Receipt("m0", "invalid_recipient", "p1", "M1", "invaliduser"),
            Receipt("m1", "accepted", "p1", "M1"),
            Receipt("m2", "rejected", "p1", "M1", "unlicenseduser"),
            Receipt("m3", "invalid_recipient", "p1", "M1", "invaliduser"),
        ]

    @pytest.mark.parametrize(
        ("codes", "word"),
        [
            ("40003 81013 60111 82001", "invalid_recipient"),
            ("40014 42001 40001 40056 48002 301002 60011 60020", "auth"),
            ("45009 45033 -1", "throttled"),
            ("45002 85002 12345", "rejected"),
        ],
    )
    def test_codes(self, codes: str, word: str) -> None:
        for code in codes.split():
            body = b'{"errcode":%s}' % code.encode()
            told = Wecom("p1", OPTIONS).receipts(to("a", "b"), reply(200, body), NOW_S)
            assert [(r.answer, r.code) for r in told] == [(word, code)] * 2

    def test_token(self) -> None:
        adapter = Wecom("p1", OPTIONS)
        assert isinstance(adapter, Tokened)
        request = adapter.token_request(NOW_S)
        assert request.method == "GET"
        assert request.url == "https://qyapi.weixin.qq.com/cgi-bin/gettoken?corpid=ww%201&corpsecret=s%261"
        body = b'{"errcode":0,"errmsg":"ok","access_token":"T","expires_in":7200}'
        assert adapter.token_of(reply(200, body), NOW_S).expires_s == NOW_S + 7200
        with pytest.raises(NoToken) as raised:
            adapter.token_of(reply(200, b'{"errcode":40001,"errmsg":"invalid credential"}'), NOW_S)
        assert (raised.value.answer, str(raised.value)) == ("auth", "no token: 40001")
        assert adapter.is_stale(reply(200, b'{"errcode":42001}'))
        assert not adapter.is_stale(reply(200, b'{"errcode":0}'))
