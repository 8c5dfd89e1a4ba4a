"""Tencent Cloud SMS: the signature against Tencent's own library, requests, answers, batches, reports."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tencentcloud.common.abstract_client import AbstractClient
from tencentcloud.common.http.request import RequestInternal

from channels.adapter import Unsendable
from channels.secret import Secret
from channels.tencent import Tencent, TencentOptions, authorization, signed_with
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink
from tests.channels.messages import message, reply
from tests.channels.vendors import NOW_S, Asked, bodies, call, exchange, heard, is_sound

OPTIONS = TencentOptions(secret_id="AKID", secret_key=Secret("s3cret"), sdk_app_id="1400006666", signature="腾讯云")

_text = st.text(max_size=20) | st.text("aé你😀 +~*/%&='\"-_.", max_size=20)


def adapter() -> Tencent:
    return Tencent("p1", OPTIONS)


def numbered(count: int, **changes: Any) -> list[Message]:
    return [message(f"m{i}", to=f"+8613800000{i:03}", **changes) for i in range(count)]


def official(host: str, content_type: str, timestamp: str, body: bytes, secret: str, service: str = "sms") -> str:
    """The signature as Tencent's own library makes it."""
    header = {"Content-Type": content_type, "Host": host, "X-TC-Timestamp": timestamp}
    request = RequestInternal(host, "POST", "/", header, body)
    date = datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d")
    return str(AbstractClient._get_tc3_signature(None, {}, request, date, service, secret))


class TestSignature:
    def test_vector_of_the_documentation(self) -> None:
        body = b'{"Limit": 1, "Filters": [{"Values": ["\\u672a\\u547d\\u540d"], "Name": "instance-name"}]}'
        digest = hashlib.sha256(body).hexdigest()
        assert digest == "35e9c5b0e3ae67532d3c9f17ead6c90222632e5b1ff7f6e89887f1398934f064"
        canonical = (
            "POST\n/\n\ncontent-type:application/json; charset=utf-8\nhost:cvm.tencentcloudapi.com\n"
            f"x-tc-action:describeinstances\n\ncontent-type;host;x-tc-action\n{digest}"
        )
        scope = "2019-02-25/cvm/tc3_request"
        to_sign = f"TC3-HMAC-SHA256\n1551113065\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        made = signed_with("*" * 32, "2019-02-25", "cvm", to_sign)
        assert made == "10b1a37a7301a02ca19a647ad722d5e43b4b3cff309d421d85b46093f6ab6c4f"

    @given(body=st.binary(max_size=60), secret=_text, at=st.integers(0, 4_000_000_000), host=st.text("ab.-:8"))
    def test_as_the_official_library(self, body: bytes, secret: str, at: int, host: str) -> None:
        made = authorization("AKID", secret, host, body, at, "sms")
        date = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        assert made == (
            f"TC3-HMAC-SHA256 Credential=AKID/{date}/sms/tc3_request, SignedHeaders=content-type;host, "
            f"Signature={official(host, 'application/json', str(at), body, secret)}"
        )

    @given(amount=_text, signature=_text, at=st.integers(0, 4_000_000_000))
    def test_whole_requests_as_the_official_library(self, amount: str, signature: str, at: int) -> None:
        one = message(params={"amount": amount}, fields={"text": "", "signature": signature})
        request = adapter().request([one], float(at))
        named = {name: request.headers[name] for name in ("host", "content-type", "x-tc-timestamp")}
        wanted = official(*named.values(), request.body, "s3cret")
        assert request.headers["authorization"].endswith(f", Signature={wanted}")


class TestRequest:
    def test_as_documented(self) -> None:
        request = adapter().request(numbered(2), NOW_S)
        assert (request.method, request.url) == ("POST", "https://sms.tencentcloudapi.com/")
        assert json.loads(request.body) == {
            "PhoneNumberSet": ["+8613800000000", "+8613800000001"],
            "SmsSdkAppId": "1400006666",
            "SignName": "示例",
            "TemplateId": "1110",
            "TemplateParamSet": ["12.00"],
        }
        assert request.headers["x-tc-action"] == "SendSms"
        assert request.headers["x-tc-version"] == "2021-01-11"
        assert request.headers["x-tc-region"] == "ap-guangzhou"
        assert request.headers["x-tc-timestamp"] == "1800000000"

    def test_only_china_wants_a_signature(self) -> None:
        bare = Tencent("p1", TencentOptions(secret_id="k", secret_key=Secret("s"), sdk_app_id="1"))
        with pytest.raises(Unsendable, match="no_signature"):
            bare.request([message(fields={"text": "hi"})], NOW_S)
        abroad = bare.request([message(fields={"text": "hi"}, to="+14155550100")], NOW_S)
        assert json.loads(abroad.body)["SignName"] == ""


class TestParts:
    def test_equal_templates_parameters_and_shores(self) -> None:
        batch = numbered(7)
        batch[1] = message("m1", to="+85251000000")
        batch[2] = message("m2", params={"amount": "9"})
        batch[3] = message("m3", vendor=None)
        batch[4] = message("m4", fields={"text": "", "signature": "其他"})
        assert adapter().parts(batch) == [[0, 5, 6], [1], [2], [3], [4]]

    def test_two_hundred_at_most(self) -> None:
        assert [len(part) for part in adapter().parts(numbered(401))] == [200, 200, 1]


def status(i: int, code: str = "Ok", **changes: Any) -> dict[str, Any]:
    number = f"+8613800000{i:03}"
    return {"SerialNo": f"s{i}", "PhoneNumber": number, "Fee": 1, "Code": code, "Message": "", **changes}


def answered(count: int, response: Any, http: int = 200) -> list[Receipt]:
    return adapter().receipts(numbered(count), reply(http, json.dumps({"Response": response}).encode()), NOW_S)


def of_code(code: str) -> Receipt:
    """The same code tells the same of a number and of a whole request."""
    [receipt] = answered(1, {"SendStatusSet": [status(0, code)]})
    assert answered(1, {"Error": {"Code": code, "Message": ""}, "RequestId": "r"}) == [receipt]
    return receipt


class TestReceipts:
    def test_each_number_has_its_own(self) -> None:
        told = [status(2, "FailedOperation.ContainSensitiveWord"), status(0, Fee=3), 7, status(0, "InternalError")]
        assert answered(3, {"SendStatusSet": told, "RequestId": "r"}) == [
            Receipt("m0", "accepted", "p1", "s0", find="s0", segments=3),
            Receipt("m1", "unknown", "p1", code="missing in the reply"),
            Receipt("m2", "rejected", "p1", code="FailedOperation.ContainSensitiveWord"),
        ]

    @pytest.mark.parametrize(
        ("code", "answer"),
        [
            ("InvalidParameterValue.IncorrectPhoneNumber", "invalid_recipient"),
            ("FailedOperation.PhoneNumberInBlacklist", "invalid_recipient"),
            ("InvalidParameterValue.ContentLengthLimit", "rejected"),
            ("MissingParameter.EmptyPhoneNumberSet", "rejected"),
            ("LimitExceeded.PhoneNumberCountLimit", "rejected"),
            ("AuthFailure.SecretIdNotFound", "auth"),
            ("AuthFailure.SignatureExpire", "transient"),
            ("UnauthorizedOperation.IndividualUserMarketingSmsPermissionDeny", "auth"),
            ("FailedOperation.InsufficientBalanceInSmsPackage", "auth"),
            ("InternalError.Timeout", "transient"),
            ("InternalError", "transient"),
            ("Who.Knows", "rejected"),
        ],
    )
    def test_codes(self, code: str, answer: str) -> None:
        receipt = of_code(code)
        assert (receipt.answer, receipt.code) == (answer, code)

    @pytest.mark.parametrize(
        ("code", "wait_s", "narrow"),
        [
            ("LimitExceeded.PhoneNumberThirtySecondLimit", 30, True),
            ("LimitExceeded.PhoneNumberOneHourLimit", 3600, True),
            ("LimitExceeded.PhoneNumberDailyLimit", 86_400, True),
            ("FailedOperation.MarketingSendTimeConstraint", 16 * 3600, True),  # it is 16:00 in Beijing
            ("LimitExceeded.AppDailyLimit", 8 * 3600, False),
            ("RequestLimitExceeded", 1, False),
            ("RequestLimitExceeded.UinLimitExceeded", 1, False),
        ],
    )
    def test_limits(self, code: str, wait_s: float, narrow: bool) -> None:
        receipt = of_code(code)
        assert (receipt.answer, receipt.retry_after_s, receipt.narrow) == ("throttled", wait_s, narrow)

    @pytest.mark.parametrize("response", [None, [], {}, {"SendStatusSet": {}}, {"Error": 7}])
    def test_an_unreadable_success_is_unknown(self, response: Any) -> None:
        assert [r.answer for r in answered(2, response)] == ["unknown", "unknown"]

    def test_a_batch_does_not_suffer_for_one_of_it(self) -> None:
        vendor = adapter()
        body = b'{"Response":{"Error":{"Code":"InvalidParameterValue.IncorrectPhoneNumber"}}}'
        receipts = vendor.receipts(numbered(2), reply(200, body), NOW_S)
        assert [(r.answer, r.narrow) for r in receipts] == [("throttled", True)] * 2
        assert vendor.parts(numbered(4)) == [[0], [1], [2, 3]]


class TestCallbacks:
    REPORT = {
        "user_receive_time": "2015-10-17 08:03:04",
        "nationcode": "86",
        "mobile": "13811110000",
        "report_status": "SUCCESS",
        "errmsg": "DELIVRD",
        "description": "用户短信送达成功",
        "sid": "s0",
    }
    UPLINK = {
        "extend": "00",
        "mobile": "13811110000",
        "nationcode": "86",
        "sign": "s",
        "text": "TD",
        "time": 1_457_336_869,
    }

    def test_reports(self) -> None:
        abroad = {"nationcode": "1", "mobile": "4155550100"}
        failed = {**self.REPORT, **abroad, "report_status": "FAIL", "errmsg": "UNDELIV"}
        told = heard("tencent", OPTIONS, call(json.dumps([self.REPORT, failed, {"sid": 5}, 7]).encode()))
        assert list(told.items) == [
            Report("p1", "delivered", None, "s0", "+8613811110000", "DELIVRD", 1_445_040_184_000),
            Report("p1", "undelivered", None, "s0", "+14155550100", "UNDELIV", 1_445_040_184_000),
        ]
        assert (told.status, json.loads(told.body)) == (200, {"result": 0, "errmsg": "OK"})

    def test_uplinks(self) -> None:
        told = heard("tencent", OPTIONS, call(json.dumps(self.UPLINK).encode()))
        [uplink] = told.items
        assert isinstance(uplink, Uplink)
        assert (uplink.sender, uplink.text, uplink.to, uplink.at_ms) == (
            "+8613811110000",
            "TD",
            "00",
            1_457_336_869_000,
        )
        again = heard("tencent", OPTIONS, call(json.dumps(self.UPLINK).encode())).items[0]
        other = heard("tencent", OPTIONS, call(json.dumps({**self.UPLINK, "time": 5}).encode())).items[0]
        assert isinstance(other, Uplink)
        assert (again == uplink, other.key != uplink.key) == (True, True)

    @pytest.mark.parametrize("body", [b"", b"{}", b"a=b", b"\xff"])
    def test_garbage(self, body: bytes) -> None:
        told = heard("tencent", OPTIONS, call(body))
        assert (told.status, list(told.items)) == (400, [])

    @given(bodies({name: [value] for name, value in {**REPORT, **UPLINK}.items()}))
    def test_fuzz(self, body: bytes) -> None:
        assert is_sound(heard("tencent", OPTIONS, call(body)))


def test_whole_way() -> None:
    """Link, adapter, lean transport and sockets, to a vendor that checks signatures with Tencent's own library."""

    def answers(asked: Asked) -> tuple[int, bytes]:
        headers = asked.headers
        wanted = official(headers["host"], headers["content-type"], headers["x-tc-timestamp"], asked.body, "s3cret")
        if not headers["authorization"].endswith(f"Signature={wanted}"):
            return 200, b'{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure"}}}'
        results = [
            {
                "PhoneNumber": number,
                "SerialNo": f"s-{number}",
                "Fee": 2,
                "Code": "LimitExceeded.PhoneNumberDailyLimit" if number.endswith("2") else "Ok",
            }
            for number in json.loads(asked.body)["PhoneNumberSet"]
        ]
        return 200, json.dumps({"Response": {"SendStatusSet": results[::-1], "RequestId": "r"}}).encode()

    batch = numbered(5)
    batch[3] = message("m3", params={"amount": "9"})
    batch[4] = message("m4", vendor=None)
    options = {"secret_id": "AKID", "secret_key": "env:API_SECRET", "sdk_app_id": "1400006666"}
    receipts, asked = exchange("tencent", options, "s3cret", batch, answers)
    assert [(r.id, r.answer, r.find) for r in receipts] == [
        ("m0", "accepted", "s-+8613800000000"),
        ("m1", "accepted", "s-+8613800000001"),
        ("m2", "throttled", None),
        ("m3", "accepted", "s-+8613800000000"),
        ("m4", "rejected", None),
    ]
    assert len(asked) == 2
