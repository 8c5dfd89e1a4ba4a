"""Huawei Cloud Message & SMS: the signature against Huawei's own library, requests, answers, batches, reports."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import given
from hypothesis import strategies as st

from channels.huawei_sms import PATH, HuaweiOptions, HuaweiSms, authorization
from channels.kind import Callback, NotTrue
from channels.secret import Secret
from dispatcher.ident import message_id, time_prefix
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink
from tests.channels.messages import message, reply
from tests.channels.vendors import NOW_S, Asked, bodies, call, exchange, heard, is_sound

OPTIONS = HuaweiOptions(app_key="c8RW", app_secret=Secret("s3cret"), sender="8821", signature="华为云")
OURS = message_id(time_prefix(1_700_000_000_000), "0123456789ABC", 7, "sms")
URL = "https://d.example.com/v1/reports/p1/s?a=1&b="

_text = st.text(max_size=20) | st.text("aé你😀 +~*/%&='\"-_.", max_size=20)


def adapter() -> HuaweiSms:
    return HuaweiSms("p1", OPTIONS)


def numbered(count: int, **changes: Any) -> list[Message]:
    return [message(f"m{i}", to=f"+8613800000{i:03}", **changes) for i in range(count)]


def official(
    method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes, key: str, secret: str
) -> str:
    """Huawei's own."""
    request = SdkRequest(method, "https", headers["host"], path, None, list(query), dict(headers), body)
    return str(Signer(BasicCredentials(key, secret)).sign(request).header_params["Authorization"])


class TestSignature:
    @given(
        path=st.lists(st.text("ab~é*+ ", min_size=1, max_size=5), max_size=3),
        query=st.dictionaries(_text, _text, max_size=4),
        value=st.text("ab é你,;", max_size=9),
        body=st.binary(max_size=40),
        secret=_text.filter(bool),
    )
    def test_as_the_official_library(
        self, path: list[str], query: dict[str, str], value: str, body: bytes, secret: str
    ) -> None:
        uri, pairs = "/" + "/".join(path), list(query.items())
        headers = {"host": "smsapi.example.com:443", "x-sdk-date": "20270115T080000Z", "x-a": value}
        made = authorization("c8RW", secret, "POST", uri, pairs, headers, body)
        assert made == official("POST", uri, pairs, headers, body, "c8RW", secret)

    @given(texts=st.lists(st.tuples(_text, _text), min_size=1, max_size=3))
    def test_whole_requests_as_the_official_library(self, texts: list[tuple[str, str]]) -> None:
        batch = [
            message(f"m{i}", params={"amount": amount}, fields={"text": "", "signature": signature})
            for i, (amount, signature) in enumerate(texts)
        ]
        request = adapter().request(batch, NOW_S)
        headers = dict(request.headers)
        given_ = headers.pop("authorization")
        assert given_ == official("POST", PATH, [], headers, request.body, "c8RW", "s3cret")


class TestRequest:
    def test_as_documented(self) -> None:
        batch = [message("m0"), message("m1", to="+8613900000000", params={"amount": "9"}, fields={"text": ""})]
        request = adapter().request(batch, NOW_S)
        assert (request.method, request.url) == (
            "POST",
            "https://smsapi.cn-north-4.myhuaweicloud.com/sms/batchSendDiffSms/v1",
        )
        assert json.loads(request.body) == {
            "from": "8821",
            "smsContent": [
                {"to": ["+8613800000000"], "templateId": "8ff5", "templateParas": ["12.00"], "signature": "示例"},
                {"to": ["+8613900000000"], "templateId": "8ff5", "templateParas": ["9"], "signature": "华为云"},
            ],
        }
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-sdk-date"] == "20270115T080000Z"

    def test_a_single_one_carries_our_id(self) -> None:
        assert json.loads(adapter().request([message(OURS)], NOW_S).body)["extend"] == OURS


class TestParts:
    def test_no_number_twice_and_what_has_no_template(self) -> None:
        batch = [*numbered(3), message("m3"), message("m4", to="+8613900000000", vendor=None)]
        assert adapter().parts(batch) == [[0, 1, 2], [3], [4]]

    def test_five_hundred_at_most(self) -> None:
        assert [len(part) for part in adapter().parts(numbered(501))] == [500, 1]

    def test_a_request_stays_below_the_size_it_may_have(self) -> None:
        batch = numbered(100, params={"amount": "长" * 500})
        parts = adapter().parts(batch)
        assert sorted(place for part in parts for place in part) == list(range(100))
        sizes = [len(adapter().request([batch[place] for place in part], NOW_S).body) for part in parts]
        assert max(sizes) <= 64 * 1024
        assert len(parts) == 3


def told(i: int, status: str = "000000", **changes: Any) -> dict[str, Any]:
    number = f"+8613800000{i:03}"
    return {"total": 1, "originTo": number, "smsMsgId": f"s{i}", "countryId": "CN", "status": status, **changes}


def answered(count: int, http: int = 200, **document: Any) -> list[Receipt]:
    return adapter().receipts(numbered(count), reply(http, json.dumps(document).encode()), NOW_S)


class TestReceipts:
    def test_each_number_has_its_own(self) -> None:
        result = [told(1, "E200028"), told(0, total=2), 7]
        assert answered(3, 400, code="E000510", description="fails", result=result) == [
            Receipt("m0", "accepted", "p1", "s0", find="s0", segments=2),
            Receipt("m1", "rejected", "p1", code="E200028"),
            Receipt("m2", "unknown", "p1", code="missing in the reply"),
        ]

    def test_a_single_one_is_found_by_our_id(self) -> None:
        assert answered(1, code="000000", result=[told(0)])[0] == Receipt("m0", "accepted", "p1", "s0", segments=1)

    @pytest.mark.parametrize(
        ("code", "answer"),
        [
            ("E000001", "auth"),
            ("E000020", "auth"),
            ("E000102", "auth"),
            ("E000112", "auth"),
            ("E000620", "auth"),
            ("E000623", "auth"),
            ("E000000", "rejected"),
            ("E000503", "rejected"),
            ("E200015", "rejected"),
            ("E999999", "rejected"),
        ],
    )
    @pytest.mark.parametrize("http", [200, 400])
    def test_codes(self, code: str, answer: str, http: int) -> None:
        [receipt] = answered(1, http, code=code)
        assert receipt.answer == answer

    @pytest.mark.parametrize("document", [{}, {"code": "000000"}, {"code": "000000", "result": "x"}, {"code": []}])
    def test_an_unreadable_success_is_unknown(self, document: dict[str, Any]) -> None:
        assert [r.answer for r in answered(2, **document)] == ["unknown", "unknown"]

    def test_a_batch_does_not_suffer_for_one_of_it(self) -> None:
        vendor = adapter()
        receipts = vendor.receipts(numbered(2), reply(400, b'{"code":"E000000"}'), NOW_S)
        assert [(r.answer, r.narrow) for r in receipts] == [("throttled", True)] * 2
        assert vendor.parts(numbered(4)) == [[0], [1], [2, 3]]
        assert [r.answer for r in answered(2, 401, code="E000102")] == ["auth", "auth"]


def signed(body: bytes, date: str = "20270115T080000Z", secret: str = "s3cret", **changes: str) -> Callback:
    """A request of the vendor, signed by Huawei's own library, of which something is changed afterwards."""
    headers = {"content-type": "application/json", "host": "d.example.com", "x-sdk-date": date}
    signature = official("POST", "/v1/reports/p1/s", [("a", "1"), ("b", "")], headers, body, "c8RW", secret)
    return call(body, URL, **{"accept": "*/*", **headers, "authorization": signature, **changes})


class TestCallbacks:
    REPORT = {
        "smsMsgId": "s0",
        "total": "1",
        "sequence": "1",
        "status": "DELIVRD",
        "source": "2",
        "updateTime": "2018-04-13T06:31:46Z",
        "orgCode": "000",
    }

    def test_a_form(self) -> None:
        form = {**self.REPORT, "extend": OURS, "to": "+8613800000000"}
        heard_ = heard("huawei_sms", OPTIONS, call(urlencode(form).encode()))
        assert list(heard_.items) == [
            Report("p1", "delivered", OURS, None, "+8613800000000", "DELIVRD", 1_523_601_106_000, 1)
        ]

    def test_many(self) -> None:
        reports = [self.REPORT, {**self.REPORT, "smsMsgId": "s1", "status": "E200022"}, {"smsMsgId": "s2"}, 7]
        heard_ = heard("huawei_sms", OPTIONS, call(json.dumps({"statusReportList": reports}).encode()))
        assert [(r.find, r.status, r.code) for r in heard_.items if isinstance(r, Report)] == [
            ("s0", "delivered", "DELIVRD"),
            ("s1", "undelivered", "E200022"),
        ]

    @pytest.mark.parametrize(
        ("status", "sequence", "wanted"),
        [
            ("DELIVRD", "1", "sent"),
            ("DELIVRD", "3", "delivered"),
            ("UNDELIV", "1", "undelivered"),
            ("ACCEPTD", "3", "sent"),
            ("UNKNOWN", "3", "sent"),
        ],
    )
    def test_segments(self, status: str, sequence: str, wanted: str) -> None:
        form = {**self.REPORT, "total": "3", "sequence": sequence, "status": status}
        [report] = heard("huawei_sms", OPTIONS, call(urlencode(form).encode())).items
        assert isinstance(report, Report)
        assert (report.status, report.segments) == (wanted, 3)

    def test_uplinks(self) -> None:
        form = {"smsMsgId": "u1", "from": "+8613811110000", "to": "1069", "body": "退订", "createTime": "x"}
        heard_ = heard("huawei_sms", OPTIONS, call(urlencode(form).encode()))
        assert list(heard_.items) == [Uplink("p1", "sms", "+8613811110000", "退订", "1069", 0, "u1")]

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"a=b", b"\xff"])
    def test_garbage(self, body: bytes) -> None:
        heard_ = heard("huawei_sms", OPTIONS, call(body))
        assert (heard_.status, list(heard_.items)) == (400, [])

    def test_a_signature_that_is_there_must_hold(self) -> None:
        body = json.dumps({"statusReportList": [self.REPORT]}).encode()
        assert len(heard("huawei_sms", OPTIONS, signed(body)).items) == 1
        true = signed(body)
        late = signed(body, date="20270115T074459Z")
        wrong = [
            signed(body, secret="other"),
            signed(body, authorization=""),
            signed(body, authorization=true.headers["authorization"].replace("c8RW", "c8RX")),
            signed(body, authorization="SDK-HMAC-SHA256 é"),
            signed(body, **{"x-sdk-date": "20270115T080001Z"}),
            signed(body, **{"x-sdk-date": "yesterday"}),
            late,
            Callback("POST", true.url, {}, true.headers, body + b" ", NOW_S),
            Callback("POST", true.url + "2", {}, true.headers, body, NOW_S),
            Callback("PUT", true.url, {}, true.headers, body, NOW_S),
        ]
        for callback in wrong:
            with pytest.raises(NotTrue):
                heard("huawei_sms", OPTIONS, callback)

    @given(header=st.text(max_size=40) | st.text("SDK-HMA256 Acces=c8RW,ignedr;x-t", max_size=90))
    def test_fuzz_of_signatures(self, header: str) -> None:
        with pytest.raises(NotTrue):
            heard("huawei_sms", OPTIONS, signed(b"{}", authorization=header))

    @given(bodies({**{name: [value] for name, value in REPORT.items()}, "from": ["+8613811110000"], "body": ["TD"],
                   "extend": [OURS]}, "statusReportList"))  # fmt: skip
    def test_fuzz(self, body: bytes) -> None:
        assert is_sound(heard("huawei_sms", OPTIONS, call(body)))


def test_whole_way() -> None:
    """Link, adapter, lean transport and sockets, to a vendor that checks signatures with Huawei's own library."""

    def answers(asked: Asked) -> tuple[int, bytes]:
        headers = {name: asked.headers[name] for name in ("content-type", "host", "x-sdk-date")}
        wanted = official("POST", asked.target, [], headers, asked.body, "c8RW", "s3cret")
        if asked.headers["authorization"] != wanted:
            return 401, b'{"code":"E000104","description":"app_secret"}'
        numbers = [content["to"][0] for content in json.loads(asked.body)["smsContent"]]
        result = [told(int(n[-3:]), "E200028" if n.endswith("2") else "000000", originTo=n) for n in numbers]
        return 200, json.dumps({"code": "000000", "description": "Success", "result": result[::-1]}).encode()

    batch = numbered(4)
    batch[3] = message("m3", vendor=None)
    options = {"app_key": "c8RW", "app_secret": "env:API_SECRET", "sender": "8821"}
    receipts, asked = exchange("huawei_sms", options, "s3cret", batch, answers)
    assert [(r.id, r.answer, r.find, r.code) for r in receipts] == [
        ("m0", "accepted", "s0", None),
        ("m1", "accepted", "s1", None),
        ("m2", "rejected", None, "E200028"),
        ("m3", "rejected", None, "no_template"),
    ]
    assert len(asked) == 1
    refused, _ = exchange("huawei_sms", options, "other", batch[:2], answers)
    assert [r.answer for r in refused] == ["auth", "auth"]
