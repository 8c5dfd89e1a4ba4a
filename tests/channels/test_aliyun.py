"""Aliyun SMS: the signature against Alibaba's own library, requests, answers, batches, reports."""

import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest
from hypothesis import given
from hypothesis import strategies as st

from channels.adapter import Unsendable
from channels.aliyun import KIND, Aliyun, AliyunOptions, authorization, canonical_query
from channels.secret import Secret
from dispatcher.ident import message_id, time_prefix
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink
from tests.channels.messages import message, reply
from tests.channels.vendors import NOW_S, Asked, bodies, call, exchange, heard, is_sound

SECRET = "YourAccessKeySecret"
OPTIONS = AliyunOptions(access_key_id="YourAccessKeyId", access_key_secret=Secret(SECRET), signature="示例")
OURS = message_id(time_prefix(1_700_000_000_000), "0123456789ABC", 7, "sms")

_text = st.text(max_size=20) | st.text("aé你😀 +~*/%&='\"-_.", max_size=20)


def adapter() -> Aliyun:
    return Aliyun("p1", OPTIONS, lambda: "3156853299f313e23d1673dc12e1703d")


def numbered(count: int, **changes: Any) -> list[Message]:
    return [message(f"m{i}", to=f"+8613800000{i:03}", **changes) for i in range(count)]


def official(method: str, path: str, query: dict[str, str], headers: dict[str, str], key: str, secret: str) -> str:
    """Alibaba's own."""
    request = DaraRequest()
    request.method, request.pathname, request.query, request.headers = method, path, query, headers
    payload = headers["x-acs-content-sha256"]
    return str(Utils.get_authorization(request, "ACS3-HMAC-SHA256", payload, key, secret))


class TestSignature:
    def test_vector_of_the_documentation(self) -> None:
        query = {"ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", "RegionId": "cn-shanghai"}
        headers = {
            "host": "ecs.cn-shanghai.aliyuncs.com",
            "x-acs-action": "RunInstances",
            "x-acs-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "x-acs-date": "2023-10-26T10:22:32Z",
            "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
            "x-acs-version": "2014-05-26",
        }
        made = authorization("YourAccessKeyId", SECRET, "POST", "/", query, headers)
        assert made.endswith("Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0")

    @given(
        query=st.dictionaries(st.text("abzABZ_09.", min_size=1, max_size=9), _text, max_size=6),
        secret=_text,
        value=st.text("ab é你 ,;", max_size=9),
        digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    )
    def test_as_the_official_library(self, query: dict[str, str], secret: str, value: str, digest: str) -> None:
        headers = {"host": "dysmsapi.aliyuncs.com", "x-acs-x": value, "x-acs-content-sha256": digest, "accept": "a/b"}
        made = authorization("key", secret, "POST", "/", query, headers)
        assert made == official("POST", "/", query, headers, "key", secret)

    @given(texts=st.lists(st.tuples(_text, _text), min_size=1, max_size=4))
    def test_whole_requests_as_the_official_library(self, texts: list[tuple[str, str]]) -> None:
        batch = [
            message(f"m{i}", to=f"+86138000000{i:02}", params={"amount": amount}, fields={"signature": f"s{signature}"})
            for i, (amount, signature) in enumerate(texts)
        ]
        request = adapter().request(batch, NOW_S)
        query = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
        headers = dict(request.headers)
        given_ = headers.pop("authorization")
        assert given_ == official("POST", "/", query, headers, "YourAccessKeyId", SECRET)


class TestRequest:
    def test_one_message_is_a_send_sms(self) -> None:
        request = adapter().request([message(OURS)], NOW_S)
        assert request.url.startswith("https://dysmsapi.aliyuncs.com/?")
        assert dict(parse_qsl(urlsplit(request.url).query)) == {
            "PhoneNumbers": "8613800000000",
            "SignName": "示例",
            "TemplateCode": "SMS_1",
            "TemplateParam": '{"amount":"12.00"}',
            "OutId": OURS,
        }
        assert (request.method, request.body) == ("POST", b"")
        assert request.headers["x-acs-action"] == "SendSms"
        assert request.headers["x-acs-date"] == "2027-01-15T08:00:00Z"
        assert "content-type" not in request.headers

    def test_several_are_a_send_batch_sms(self) -> None:
        one, other = message("m0"), message("m1", to="+85251000000", params={"amount": "5 +~*"}, fields={"text": ""})
        request = adapter().request([one, other], NOW_S)
        assert dict(parse_qsl(urlsplit(request.url).query)) == {"TemplateCode": "SMS_1"}
        form = {name: json.loads(value) for [name, [value]] in parse_qs(request.body.decode()).items()}
        assert form == {
            "PhoneNumberJson": ["8613800000000", "85251000000"],
            "SignNameJson": ["示例", "示例"],
            "TemplateParamJson": ['{"amount":"12.00"}', '{"amount":"5 +~*"}'],
        }
        assert request.headers["x-acs-action"] == "SendBatchSms"
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"

    def test_nonces_differ(self) -> None:
        plain = Aliyun("p1", OPTIONS)
        nonces = {plain.request([message()], NOW_S).headers["x-acs-signature-nonce"] for _ in range(10)}
        assert len(nonces) == 10

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"vendor": None}, "no_template"),
            ({"vendor": {"tencent": ["1", []]}}, "no_template"),
            ({"vendor": {"aliyun": ["SMS_1", ["amount", "name"]]}}, "no_param: name"),
        ],
    )
    def test_what_the_vendor_cannot_take(self, changes: dict[str, Any], code: str) -> None:
        with pytest.raises(Unsendable, match=code) as raised:
            adapter().request([message(**changes)], NOW_S)
        assert raised.value.answer == "rejected"

    def test_a_signature_is_wanted(self) -> None:
        bare = Aliyun("p1", AliyunOptions(access_key_id="k", access_key_secret=Secret("s")))
        with pytest.raises(Unsendable, match="no_signature"):
            bare.request([message(fields={"text": "hi"})], NOW_S)


class TestParts:
    def test_one_template_a_request(self) -> None:
        batch = numbered(4)
        batch[1] = message("m1", vendor={"aliyun": ["SMS_2", []]})
        batch[2] = message("m2", vendor=None)
        assert adapter().parts(batch) == [[0, 3], [1], [2]]

    def test_no_number_twice_and_a_hundred_at_most(self) -> None:
        assert adapter().parts([*numbered(2), *numbered(2)]) == [[0, 1], [2, 3]]
        assert [len(part) for part in adapter().parts(numbered(201))] == [100, 100, 1]


def answered(count: int, status: int = 200, **told: Any) -> list[Receipt]:
    return adapter().receipts(numbered(count), reply(status, json.dumps(told).encode()), NOW_S)


class TestReceipts:
    def test_accepted(self) -> None:
        assert answered(1, Code="OK", BizId="9^0") == [Receipt("m0", "accepted", "p1", "9^0")]
        assert answered(2, Code="OK", BizId="9^0") == [
            Receipt("m0", "accepted", "p1", "9^0", find="9^0|13800000000"),
            Receipt("m1", "accepted", "p1", "9^0", find="9^0|13800000001"),
        ]

    @pytest.mark.parametrize(
        ("code", "answer"),
        [
            ("isv.MOBILE_NUMBER_ILLEGAL", "invalid_recipient"),
            ("isv.SMS_TEMPLATE_ILLEGAL", "rejected"),
            ("isv.AMOUNT_NOT_ENOUGH", "auth"),
            ("SignatureDoesNotMatch", "auth"),
            ("isp.SYSTEM_ERROR", "transient"),
            ("SignatureNonceUsed", "transient"),
            ("isv.WHO_KNOWS", "rejected"),
        ],
    )
    def test_codes(self, code: str, answer: str) -> None:
        [receipt] = answered(1, Code=code, Message="m")
        assert (receipt.answer, receipt.code, receipt.narrow) == (answer, code, False)

    @pytest.mark.parametrize(
        ("code", "why", "wait_s", "narrow"),
        [
            ("isv.BUSINESS_LIMIT_CONTROL", "触发分钟级流控Permits:1", 60, True),
            ("isv.BUSINESS_LIMIT_CONTROL", "触发小时级流控Permits:5", 3600, True),
            ("isv.BUSINESS_LIMIT_CONTROL", "触发天级流控Permits:10", 86_400, True),
            ("isv.BUSINESS_LIMIT_HOUR", "", 3600, True),
            ("Throttling.User", "", 1, False),
            ("isv.DAY_LIMIT_CONTROL", "", 8 * 3600, False),  # it is 16:00 in Beijing
            ("isv.MONTH_LIMIT_CONTROL", "", 86_400, False),
        ],
    )
    def test_limits(self, code: str, why: str, wait_s: float, narrow: bool) -> None:
        [receipt] = answered(1, Code=code, Message=why)
        assert (receipt.answer, receipt.retry_after_s, receipt.narrow) == ("throttled", wait_s, narrow)

    def test_a_gateway_failure_is_read_too(self) -> None:
        assert answered(1, 400, Code="Throttling")[0].answer == "throttled"
        assert answered(1, 500, Code="NewWord")[0].answer == "transient"
        assert answered(1, 403, Code="NewWord")[0].answer == "auth"

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"Code":7.5e400}', b'{"Code":[]}'])
    def test_an_unreadable_success_is_unknown(self, body: bytes) -> None:
        assert adapter().receipts(numbered(1), reply(200, body), NOW_S)[0].answer == "unknown"

    def test_a_batch_does_not_suffer_for_one_of_it(self) -> None:
        vendor = adapter()
        batch = numbered(3)
        receipts = vendor.receipts(batch, reply(200, b'{"Code":"isv.MOBILE_NUMBER_ILLEGAL"}'), NOW_S)
        assert [(r.answer, r.code, r.narrow) for r in receipts] == [
            ("throttled", "in a batch: isv.MOBILE_NUMBER_ILLEGAL", True)
        ] * 3
        assert vendor.parts([*batch, message("m9"), message("m8", to="+8613900000000")]) == [[0], [1], [2], [3, 4]]


class TestCallbacks:
    REPORT = {
        "phone_number": "13811110000",
        "send_time": "2017-01-01 00:00:00",
        "report_time": "2017-01-01 08:00:10",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "用户接收成功",
        "sms_size": "2",
        "biz_id": "12345",
        "out_id": OURS,
    }

    def test_reports(self) -> None:
        failed = {**self.REPORT, "success": False, "err_code": "MK:0001", "out_id": "", "sms_size": "x"}
        told = heard("aliyun", OPTIONS, call(json.dumps([self.REPORT, 7, failed, {}]).encode()))
        assert list(told.items) == [
            Report("p1", "delivered", OURS, None, "+8613811110000", "DELIVERED", 1_483_228_810_000, 2),
            Report("p1", "undelivered", None, "12345|13811110000", "+8613811110000", "MK:0001", 1_483_228_810_000),
        ]
        assert (told.status, json.loads(told.body)) == (200, {"code": 0, "msg": "接收成功"})

    @pytest.mark.parametrize("spelt", ["13800000001", "8613800000001", "+8613800000001", "008613800000001"])
    def test_a_batch_is_found_however_the_number_is_spelt(self, spelt: str) -> None:
        item = {**self.REPORT, "out_id": None, "biz_id": "9^0", "phone_number": spelt}
        [report] = heard("aliyun", OPTIONS, call(json.dumps([item]).encode())).items
        assert isinstance(report, Report)
        assert report.find == answered(2, Code="OK", BizId="9^0")[1].find

    def test_uplinks(self) -> None:
        body = b'[{"phone_number":"13811110000","content":"TD","send_time":"2017-01-01 08:00:00","dest_code":"1069",'
        told = heard("aliyun", OPTIONS, call(body + b'"sequence_id":1234567890}]'))
        assert list(told.items) == [
            Uplink("p1", "sms", "+8613811110000", "TD", "1069", 1_483_228_800_000, "1234567890")
        ]

    @pytest.mark.parametrize("body", [b"", b"{}", b"a=b", b"\xff"])
    def test_garbage(self, body: bytes) -> None:
        told = heard("aliyun", OPTIONS, call(body))
        assert (told.status, list(told.items)) == (400, [])

    @given(bodies({**{name: [value] for name, value in REPORT.items()}, "content": ["TD"], "sequence_id": [1, "1"]}))
    def test_fuzz(self, body: bytes) -> None:
        assert is_sound(heard("aliyun", OPTIONS, call(body)))


class TestWholeWay:
    """Link, adapter, lean transport and sockets, to a vendor that checks signatures with Alibaba's own library."""

    def send(self, batch: list[Message], told: dict[str, Any], rounds: int = 1) -> tuple[list[Receipt], list[Asked]]:
        def answers(asked: Asked) -> tuple[int, bytes]:
            query = dict(parse_qsl(urlsplit(asked.target).query, keep_blank_values=True))
            headers = {name: value for name, value in asked.headers.items() if name.startswith(("x-acs", "host"))}
            headers |= {name: asked.headers[name] for name in ("accept", "content-type") if name in asked.headers}
            good = asked.headers["authorization"] == official("POST", "/", query, headers, "LTAI", "s3cret")
            return (200, json.dumps(told).encode()) if good else (400, b'{"Code":"SignatureDoesNotMatch"}')

        options = {"access_key_id": "LTAI", "access_key_secret": "env:API_SECRET"}
        return exchange("aliyun", options, "s3cret", batch, answers, rounds)

    def test_batches_by_template_and_what_has_none(self) -> None:
        batch = numbered(5)
        batch[1] = message("m1", vendor=None)
        batch[3] = message("m3", vendor={"aliyun": ["SMS_2", []]})
        receipts, asked = self.send(batch, {"Code": "OK", "BizId": "9^0"})
        assert [r.answer for r in receipts] == ["accepted", "rejected", "accepted", "accepted", "accepted"]
        assert receipts[1] == Receipt("m1", "rejected", "p1", code="no_template")
        assert [r.find for r in receipts[2:]] == ["9^0|13800000002", None, "9^0|13800000004"]
        assert sorted(one.headers["x-acs-action"] for one in asked) == ["SendBatchSms", "SendSms"]

    def test_a_refused_batch_goes_singly(self) -> None:
        receipts, asked = self.send(numbered(3), {"Code": "isv.MOBILE_NUMBER_ILLEGAL"}, rounds=2)
        assert [one.headers["x-acs-action"] for one in asked] == ["SendBatchSms"] + ["SendSms"] * 3
        assert [r.answer for r in receipts] == ["invalid_recipient"] * 3


def test_most() -> None:
    assert KIND.most == 100
    assert canonical_query({"b": " +~*/", "a": "你"}) == "a=%E4%BD%A0&b=%20%2B~%2A%2F"
