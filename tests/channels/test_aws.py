"""The kinds `aws_sns` and `aws_eum`: what they send, against what botocore sends, and what they make of replies."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import botocore.session
import msgspec
import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import given
from hypothesis import strategies as st

from channels import ADAPTERS, build
from channels.adapter import Adapter, Request
from channels.options import OptionsError
from channels.secret import Secret
from channels.sigv4 import Keys, Service, signed
from dispatcher.documents import Provider
from dispatcher.receipt import Answer, Receipt
from tests.channels.messages import message, messages, reply

NOW_S = 1_800_000_000.0
ENVIRON = {"KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.sampled_from(
    ["a b+c~d*e", "您好 & 再见", "\U0001f600", "x=1&y=%20"]
)


def adapter(kind: str, **options: Any) -> Adapter:
    options = {"access_key_id": "AKIA1", "secret_access_key": "env:KEY", "region": "eu-west-1", **options}
    way = build("p1", Provider(kind=kind, channel="sms", options=options), ENVIRON)
    assert isinstance(way, tuple)
    return way[0]


class Captured(Exception):
    """Raised in place of sending."""


class Vendor:
    """A botocore client that sends nothing; the request it would have sent is kept."""

    def __init__(self, service: str) -> None:
        session = botocore.session.get_session()
        self.client = session.create_client(
            service, "eu-west-1", aws_access_key_id="AKIA1", aws_secret_access_key=ENVIRON["KEY"]
        )
        self.client.meta.events.register("before-send", self._keep)
        self.sent: Any = None

    def _keep(self, request: Any, **_: Any) -> AWSResponse:
        self.sent = request
        raise Captured

    def request(self, operation: str, **parameters: Any) -> Any:
        with pytest.raises(Captured):
            getattr(self.client, operation)(**parameters)
        return self.sent


@pytest.fixture(scope="module")
def sns() -> Iterator[Vendor]:
    vendor = Vendor("sns")
    yield vendor
    vendor.client.close()


@pytest.fixture(scope="module")
def eum() -> Iterator[Vendor]:
    vendor = Vendor("pinpoint-sms-voice-v2")
    yield vendor
    vendor.client.close()


def told(sent: Any) -> dict[str, str]:
    return {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in sent.headers.items()
    }


def signs_alike(sent: Any, name: str) -> None:
    """Our signature of botocore's own request is botocore's."""
    headers = told(sent)
    names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    plain = {one: headers[one] for one in names if one not in ("host", "x-amz-date")}
    body = sent.body if isinstance(sent.body, bytes) else sent.body.encode()
    moment = datetime.strptime(headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    keys = Keys("AKIA1", Secret(ENVIRON["KEY"]))
    again = signed("POST", sent.url, plain, body, keys, Service(name, "eu-west-1"), moment)
    assert again["authorization"] == headers["authorization"]


class TestRequest:
    @given(text=_texts, sender=st.none() | st.just("ACME"), type_=st.sampled_from(["notice", "marketing"]))
    def test_sns_is_what_botocore_sends(self, sns: Vendor, text: str, sender: str | None, type_: str) -> None:
        options = {} if sender is None else {"sender_id": sender}
        request = adapter("aws_sns", **options).request([message(fields={"text": text}, type=type_)], NOW_S)
        sort = "Promotional" if type_ == "marketing" else "Transactional"
        attributes = {"AWS.SNS.SMS.SMSType": {"DataType": "String", "StringValue": sort}}
        if sender is not None:
            attributes["AWS.SNS.SMS.SenderID"] = {"DataType": "String", "StringValue": sender}
        sent = sns.request("publish", PhoneNumber="+8613800000000", Message=text, MessageAttributes=attributes)
        body = sent.body if isinstance(sent.body, str) else sent.body.decode()
        assert parse_qs(request.body.decode(), strict_parsing=True) == parse_qs(body, strict_parsing=True)
        assert (request.method, request.url) == (sent.method, sent.url)
        assert request.headers["content-type"] == told(sent)["content-type"]
        signs_alike(sent, "sns")

    @given(text=_texts.filter(str.strip), identity=st.none() | st.just("pool-1"), left_s=st.integers(-5, 300_000))
    def test_eum_is_what_botocore_sends(self, eum: Vendor, text: str, identity: str | None, left_s: int) -> None:
        options = {} if identity is None else {"origination_identity": identity, "configuration_set": "reports"}
        expires_ms = int(NOW_S + left_s) * 1000
        one = message(fields={"text": text}, type="verification", expires_ms=expires_ms)
        request = adapter("aws_eum", **options).request([one], NOW_S)
        more = {} if identity is None else {"OriginationIdentity": identity, "ConfigurationSetName": "reports"}
        sent = eum.request(
            "send_text_message",
            DestinationPhoneNumber="+8613800000000",
            MessageBody=text,
            MessageType="TRANSACTIONAL",
            TimeToLive=min(max(left_s, 5), 259_200),
            Context={"message": one.id},
            **more,
        )
        assert msgspec.json.decode(request.body) == msgspec.json.decode(sent.body)
        assert (request.method, request.url) == (sent.method, sent.url)
        for name in ("content-type", "x-amz-target"):
            assert request.headers[name] == told(sent)[name]
        signs_alike(sent, "sms-voice")

    @pytest.mark.parametrize("kind", ["aws_sns", "aws_eum"])
    @pytest.mark.parametrize(("region", "text"), [("CN", "【示例】hi"), ("DE", "[示例]hi")])
    def test_signature_is_in_front(self, kind: str, region: str, text: str) -> None:
        one = message(fields={"text": "hi", "signature": "示例"}, region=region)
        assert text in body_of(adapter(kind).request([one], NOW_S))

    @pytest.mark.parametrize("kind", ["aws_sns", "aws_eum"])
    def test_bad_region_is_refused(self, kind: str) -> None:
        with pytest.raises(OptionsError, match=r"options\.region"):
            adapter(kind, region="evil.example.com/")


def body_of(request: Request) -> str:
    if request.body.startswith(b"{"):
        return str(msgspec.json.decode(request.body)["MessageBody"])
    return parse_qs(request.body.decode())["Message"][0]


def sns_error(code: str, text: str = "no") -> bytes:
    return (
        '<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{text}</Message></Error><RequestId>r1</RequestId></ErrorResponse>"
    ).encode()


class TestReceipts:
    def test_sns_gives_a_reference(self) -> None:
        body = (
            b'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>'
            b"567910cd-659e-55d4-8ccb-5aaf14679dc0</MessageId></PublishResult></PublishResponse>"
        )
        ref = "567910cd-659e-55d4-8ccb-5aaf14679dc0"
        found = adapter("aws_sns").receipts(messages(1), reply(200, body), NOW_S)
        assert found == [Receipt("m0", "accepted", "p1", ref)]

    def test_eum_gives_a_reference(self) -> None:
        found = adapter("aws_eum").receipts(messages(1), reply(200, b'{"MessageId":"e1"}'), NOW_S)
        assert found == [Receipt("m0", "accepted", "p1", "e1")]

    @pytest.mark.parametrize("kind", ["aws_sns", "aws_eum"])
    @pytest.mark.parametrize("body", [b"", b"{}", b"<PublishResponse/>", b"\xff"])
    def test_unreadable_success_is_unknown(self, kind: str, body: bytes) -> None:
        assert [r.answer for r in adapter(kind).receipts(messages(2), reply(200, body), NOW_S)] == ["unknown"] * 2

    @pytest.mark.parametrize(
        ("status", "code", "text", "answer"),
        [
            (400, "InvalidParameter", "Invalid parameter: PhoneNumber Reason: +1 is not valid", "invalid_recipient"),
            (400, "InvalidParameter", "Invalid parameter: Message too long", "rejected"),
            (400, "ParameterValueInvalid", "phone number is not supported", "invalid_recipient"),
            (400, "OptedOut", "", "invalid_recipient"),
            (429, "Throttled", "", "throttled"),
            (400, "Throttling", "Rate exceeded", "throttled"),
            (400, "KMSThrottling", "", "throttled"),
            (403, "AuthorizationError", "", "auth"),
            (403, "SignatureDoesNotMatch", "", "auth"),
            (403, "ExpiredToken", "", "auth"),
            (400, "MissingAuthenticationToken", "", "auth"),
            (500, "InternalError", "", "transient"),
            (400, "NewlyInvented", "", "rejected"),
            (503, "NewlyInvented", "", "transient"),
        ],
    )
    def test_sns_errors(self, status: int, code: str, text: str, answer: Answer) -> None:
        [found] = adapter("aws_sns").receipts(messages(1), reply(status, sns_error(code, text)), NOW_S)
        assert (found.answer, found.code) == (answer, code)

    @pytest.mark.parametrize(
        ("status", "type_", "reason", "answer"),
        [
            (400, "ThrottlingException", None, "throttled"),
            (402, "ServiceQuotaExceededException", "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT", "auth"),
            (400, "AccessDeniedException", "ACCOUNT_DISABLED", "auth"),
            (400, "AccessDeniedException", None, "auth"),
            (400, "ConflictException", "DESTINATION_PHONE_NUMBER_OPTED_OUT", "invalid_recipient"),
            (400, "ConflictException", "DESTINATION_PHONE_NUMBER_NOT_VERIFIED", "invalid_recipient"),
            (400, "ConflictException", "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION", "rejected"),
            (400, "ConflictException", "DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE", "rejected"),
            (400, "ValidationException", "COUNTRY_NOT_ENABLED", "rejected"),
            (400, "ValidationException", "NEWLY_INVENTED", "rejected"),
            (500, "InternalServerException", None, "transient"),
            (400, "UnrecognizedClientException", None, "auth"),
            (400, "NewlyInvented", None, "rejected"),
        ],
    )
    def test_eum_errors(self, status: int, type_: str, reason: str | None, answer: Answer) -> None:
        body = {"__type": f"com.amazonaws.sms#{type_}", "Message": "no", **({"Reason": reason} if reason else {})}
        [found] = adapter("aws_eum").receipts(messages(1), reply(status, msgspec.json.encode(body)), NOW_S)
        assert (found.answer, found.code) == (answer, reason or type_)
        [header] = adapter("aws_eum").receipts(
            messages(1), reply(status, b"{}", x_amzn_errortype=f"{type_}:http://internal"), NOW_S
        )
        assert header.code == type_

    def test_every_error_of_the_model_has_an_answer(self, sns: Vendor, eum: Vendor) -> None:
        for kind, vendor, operation in (("aws_sns", sns, "Publish"), ("aws_eum", eum, "SendTextMessage")):
            shapes = vendor.client.meta.service_model.operation_model(operation).error_shapes
            assert len(shapes) > 5
            for shape in shapes:
                code = shape.metadata.get("error", {}).get("code", shape.name)
                body = sns_error(code) if kind == "aws_sns" else msgspec.json.encode({"__type": code})
                [found] = adapter(kind).receipts(messages(1), reply(418, body), NOW_S)
                [other] = adapter(kind).receipts(messages(1), reply(504, body), NOW_S)
                assert (found.answer, other.code) == (other.answer, code), f"{code} is not in the table"

    @pytest.mark.parametrize("kind", ["aws_sns", "aws_eum"])
    def test_wait_is_taken(self, kind: str) -> None:
        body = sns_error("Throttling") if kind == "aws_sns" else b'{"__type":"ThrottlingException"}'
        [found] = adapter(kind).receipts(messages(1), reply(400, body, retry_after="7"), NOW_S)
        assert (found.answer, found.retry_after_s) == ("throttled", 7.0)


def test_both_take_what_sns_posts() -> None:
    assert ADAPTERS["aws_sns"].callbacks is ADAPTERS["aws_eum"].callbacks is not None
