"""What SNS posts: signatures of AWS's own and of a key made here, delivery events, users' messages, subscriptions."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from channels.aws_eum import AwsEum, AwsEumOptions
from channels.kind import Callback, Heard, Missing, NotTrue
from channels.options import OptionsError
from channels.secret import Secret
from channels.sns import CALLBACKS, is_true
from dispatcher.ident import message_id, time_prefix
from dispatcher.report import Report, Uplink

NOW_S = 1_800_000_000.0
HOST = "https://sns.eu-west-1.amazonaws.com"
PAGE = f"{HOST}/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:sms"
OURS = message_id(time_prefix(1_700_000_000_000), "0123456789ABC", 7, "sms")
OPTIONS = AwsEumOptions(access_key_id="AKIA1", secret_access_key=Secret("s"), region="eu-west-1")
KEY = rsa.generate_private_key(65537, 2048)

#: Two notifications as AWS signed them in 2022, with its certificate in data/sns.pem. Source: aws/aws-sdk-ruby,
#: gems/aws-sdk-sns/spec/message_verifier_spec.rb.
AWS_SIGNED = [
    {
        "Type": "Notification",
        "MessageId": "792cda85-518f-5dd3-9163-81d851212f3a",
        "TopicArn": "arn:aws:sns:us-east-2:295079676684:publish-and-verify-892f85fe-4836-424d-8188-ab85bef0f362",
        "Message": "Hello world",
        "Timestamp": "2022-07-28T21:23:58.317Z",
        "SignatureVersion": "1",
        "Signature": "ghtf+deOBAzHJJZ6s6CdRLfTQAlcGzq9naoFM1wi0CJiq//uVRuZnamrkWNF0fhouMFvuLVRwcz8PZLUMSfnmd5VpdTKpTyiK"
        "my1qJAZXma0w+yi7G+I33hD1Jyk1Nbym2n0kqp3fVu2aoooiN2ZeLAT2bH0/BtjLSfN1yAOKNoprco4qV9gGUZinXJdj9a1YdNhDR2jKi33l"
        "dlsVtEXAtiaDklGEk7DgRKX38GerBPiLg3FdtgY6KC7cdeGpU/dGK+4hjc83Ive1HoFkAwqhpgInM2sMytBosoiXfCmOKmU4xeGD0gHDNZTl"
        "JUJQDlzw8Eag0H9f/5zXF9d3uy0YQ==",
    },
    {
        "Type": "Notification",
        "MessageId": "17dea24b-55c2-540b-8362-f916557af765",
        "TopicArn": "arn:aws:sns:us-east-2:295079676684:publish-and-verify-62674b1d-4295-426b-88e7-5fb75652a04e",
        "Message": "Hello world",
        "Timestamp": "2022-07-28T21:24:08.324Z",
        "SignatureVersion": "2",
        "Signature": "CXVqp9PfZAL+4JHS3Zxo1PFbQsvnOjvmYhtIf17TWpwc+iIVas8kZ8GopuzVzVMdatE7rCl/O4P91Zp05Dwz8lk8dLhfp8gSu"
        "3Njlzxlyrmzo9x3va3Jb7zFnedgS2GKnZWHGBdwTXho+TosNUE+3e10OMSlwN5XGDwX7+R3WL+rn+AXmFAqp3alg27sYa55h1dLE9cGszGPj"
        "ScPdtF3BmZsUDMx9wSdNKsCk+vSvE8yBjnCmUl7laSFj3LzPVrlSwgNYCF3kYnNAkah7NplK4SFhJYLwS0HCVCQJKa8rVbQLf9cBTu60U402"
        "mrgy0bN8xWoyimzbYbrOMJjalqkUg==",
    },
]
AWS_CERTIFICATE = (Path(__file__).parent / "data" / "sns.pem").read_bytes()


def certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, KEY.public_key(), 1, at, at + timedelta(days=9))
    return made.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


CERTIFICATE = certificate()
_NOTIFIED = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMED = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


def enveloped(message: Any, type_: str = "Notification", version: str = "2", **changes: Any) -> dict[str, Any]:
    """An envelope, signed as SNS signs."""
    envelope = {
        "Type": type_,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-11-24T12:00:00.250Z",
        "SignatureVersion": version,
        "SigningCertURL": PAGE,
        **changes,
    }
    names = _NOTIFIED if type_ == "Notification" else _CONFIRMED
    text = "".join(f"{name}\n{envelope[name]}\n" for name in names if envelope.get(name) is not None)
    hash_ = hashes.SHA1() if version == "1" else hashes.SHA256()
    envelope["Signature"] = base64.b64encode(KEY.sign(text.encode(), padding.PKCS1v15(), hash_)).decode()
    return envelope


def heard(envelope: Any, options: AwsEumOptions = OPTIONS, known: bool = True) -> Heard:
    body = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    fetched = {PAGE: CERTIFICATE} if known else {}
    call = Callback("POST", "https://us.example.com/v1/reports/p1/s", {}, {}, body, NOW_S, fetched)
    both = [read("p1", call, options) for read in (CALLBACKS.reports, CALLBACKS.uplinks)]
    assert both[0] == both[1]
    return both[0]


def event(type_: str = "TEXT_DELIVERED", **changes: Any) -> dict[str, Any]:
    """As the user guide has it."""
    return {
        "eventType": type_,
        "eventVersion": "1.0",
        "eventTimestamp": 1_782_000_000_123,
        "isFinal": True,
        "originationPhoneNumber": "+12065550142",
        "destinationPhoneNumber": "+14255550156",
        "isoCountryCode": "US",
        "messageId": "862a8790-60c0-4430-9b2b-658bdexample",
        "messageEncoding": "GSM",
        "messageType": "TRANSACTIONAL",
        "messageStatus": "DELIVERED",
        "context": {"message": OURS},
        "totalMessageParts": 2,
        "totalMessagePrice": 0.09,
        "totalCarrierFee": 0.01,
        **changes,
    }


def report(type_: str = "TEXT_DELIVERED", **changes: Any) -> Report:
    [found] = heard(enveloped(event(type_, **changes))).items
    assert isinstance(found, Report)
    return found


class TestSignature:
    @pytest.mark.parametrize("envelope", AWS_SIGNED, ids=["sha1", "sha256"])
    def test_of_aws_own(self, envelope: dict[str, str]) -> None:
        assert is_true(envelope, AWS_CERTIFICATE)
        for name in ("Type", "MessageId", "TopicArn", "Message", "Timestamp"):
            assert not is_true({**envelope, name: envelope[name] + "x"}, AWS_CERTIFICATE)
        other = "1" if envelope["SignatureVersion"] == "2" else "2"
        assert not is_true({**envelope, "SignatureVersion": other}, AWS_CERTIFICATE)
        assert not is_true(envelope, CERTIFICATE)

    @pytest.mark.parametrize("version", ["1", "2"])
    @pytest.mark.parametrize("subject", [None, "Amazon SNS"])
    def test_of_a_notification(self, version: str, subject: str | None) -> None:
        envelope = enveloped(event(), version=version, Subject=subject)
        assert len(heard(envelope).items) == 1
        for changed in (
            {**envelope, "Message": json.dumps(event("TEXT_INVALID"))},
            {**envelope, "Signature": base64.b64encode(b"x" * 256).decode()},
            {**envelope, "Signature": "not base64"},
            {**envelope, "Signature": None},
            {**envelope, "SignatureVersion": "3"},
            {**envelope, "Type": "UnsubscribeConfirmation"},
        ):
            with pytest.raises(NotTrue):
                heard(changed)

    @pytest.mark.parametrize(
        "url",
        [
            "http://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
            "https://u@sns.eu-west-1.amazonaws.com/a.pem",
            "https://evil.example/sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.x.y.amazonaws.com/a.pem",
            "https://bucket.s3.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem?Action=x",
            "https://sns.eu-west-1.amazonaws.com/a.pem#x",
            "https://sns.eu-west-1.amazonaws.com/../a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.txt",
            "https://[sns.eu-west-1.amazonaws.com/a.pem",
            "",
            None,
        ],
    )
    def test_certificate_is_asked_of_sns_only(self, url: str | None) -> None:
        with pytest.raises(NotTrue):
            heard(enveloped(event(), SigningCertURL=url), known=False)

    def test_certificate_is_asked_for(self) -> None:
        with pytest.raises(Missing) as missing:
            heard(enveloped(event()), known=False)
        assert missing.value.url == PAGE

    def test_one_that_is_at_hand_is_not_asked_for(self) -> None:
        options = msgspec.structs.replace(OPTIONS, signing_certificate=CERTIFICATE.decode())
        assert len(heard(enveloped(event()), options, known=False).items) == 1
        other = msgspec.structs.replace(OPTIONS, signing_certificate=AWS_CERTIFICATE.decode())
        with pytest.raises(NotTrue):
            heard(enveloped(event()), other)
        with pytest.raises(NotTrue):
            heard(enveloped(event(), SigningCertURL="https://example.com/a.pem"), options, known=False)

    @pytest.mark.parametrize("pem", ["", "no", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"])
    def test_what_is_no_certificate_is_refused_by_its_name(self, pem: str) -> None:
        with pytest.raises(OptionsError, match=r"options\.signing_certificate: must be a certificate in PEM"):
            AwsEum("p1", msgspec.structs.replace(OPTIONS, signing_certificate=pem))

    @pytest.mark.parametrize("page", [b"", b"<html>", CERTIFICATE[:200]])
    def test_a_page_that_is_no_certificate(self, page: bytes) -> None:
        assert not is_true(enveloped(event()), page)

    def test_other_topics_are_refused_where_one_is_named(self) -> None:
        options = AwsEumOptions(
            access_key_id="AKIA1", secret_access_key=Secret("s"), region="eu-west-1", topic_arn=TOPIC
        )
        assert len(heard(enveloped(event()), options).items) == 1
        with pytest.raises(NotTrue):
            heard(enveloped(event(), TopicArn=TOPIC + "2"), options)


class TestReports:
    def test_delivered(self) -> None:
        assert report() == Report(
            "p1", "delivered", OURS, None, "+14255550156", "TEXT_DELIVERED",
            1_782_000_000_123, 2, 0.09 + 0.01,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("type_", "final", "status", "dead"),
        [
            ("TEXT_SENT", False, "sent", False),
            ("TEXT_SUCCESSFUL", True, "sent", False),
            ("TEXT_UNKNOWN", True, "sent", False),
            ("TEXT_INVALID", True, "undelivered", True),
            ("TEXT_INVALID", False, "sent", False),
            ("TEXT_INVALID_MESSAGE", True, "undelivered", False),
            ("TEXT_UNREACHABLE", True, "undelivered", False),
            ("TEXT_CARRIER_UNREACHABLE", False, "sent", False),
            ("TEXT_BLOCKED", True, "undelivered", False),
            ("TEXT_CARRIER_BLOCKED", True, "undelivered", False),
            ("TEXT_SPAM", True, "undelivered", False),
            ("TEXT_TTL_EXPIRED", True, "undelivered", False),
            ("TEXT_PROTECT_BLOCKED", True, "undelivered", False),
        ],
    )
    def test_every_event(self, type_: str, final: bool, status: str, dead: bool) -> None:
        found = report(type_, isFinal=final)
        assert (found.status, found.code, found.dead) == (status, type_, dead)

    @pytest.mark.parametrize("type_", ["TEXT_QUEUED", "TEXT_PENDING", "VOICE_COMPLETED", "TEXT_NEW", 7, None])
    def test_others_are_heard_and_say_nothing(self, type_: Any) -> None:
        found = heard(enveloped(event(type_)))
        assert (found.status, list(found.items)) == (200, [])

    @pytest.mark.parametrize("context", [{}, None, {"message": "of another"}, {"message": 7}, []])
    def test_without_our_id_it_is_found_by_theirs(self, context: Any) -> None:
        found = report(context=context)
        assert (found.id, found.find) == (None, "862a8790-60c0-4430-9b2b-658bdexample")


class TestOthers:
    def test_message_of_a_user(self) -> None:
        told = {
            "originationNumber": "+14255550182",
            "destinationNumber": "+12125550101",
            "messageKeyword": "JOIN",
            "messageBody": "退订",
            "inboundMessageId": "cae173d2-66b9-564c-8309-21f858e9fb84",
            "previousPublishedMessageId": "wJalrXUtnFEMI",
        }
        at_ms = int(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1000) + 250
        [found] = heard(enveloped(told)).items
        assert found == Uplink(
            "p1", "", "+14255550182", "退订", "+12125550101", at_ms, "cae173d2-66b9-564c-8309-21f858e9fb84"
        )

    def test_subscription_is_confirmed(self) -> None:
        url = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336412f37"
        found = heard(enveloped("You have chosen", "SubscriptionConfirmation", SubscribeURL=url, Token="2336412f37"))
        assert (found.status, found.visit, list(found.items)) == (200, url, [])

    @pytest.mark.parametrize("url", ["https://evil.example/", "http://sns.eu-west-1.amazonaws.com/", f"{HOST}/a b", ""])
    def test_nothing_else_is_visited(self, url: str) -> None:
        found = heard(enveloped("You have chosen", "SubscriptionConfirmation", SubscribeURL=url, Token="t"))
        assert (found.status, found.visit) == (400, None)

    def test_the_end_of_a_subscription_is_left_at_that(self) -> None:
        found = heard(enveloped("Bye", "UnsubscribeConfirmation", SubscribeURL=f"{HOST}/?Action=x", Token="t"))
        assert (found.status, found.visit) == (200, None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_odd = {name: _json for name in event()} | {
    "eventType": st.sampled_from(["TEXT_DELIVERED", "TEXT_INVALID"]) | _json,
    "originationNumber": _json,
    "messageBody": _json,
    "inboundMessageId": _json,
}


class TestFuzz:
    @given(st.binary(max_size=64) | _json.map(lambda found: json.dumps(found).encode()) | st.just(b"[" * 100_000))
    def test_any_body_is_refused(self, body: bytes) -> None:
        try:
            assert heard(body) == Heard(status=400, content_type="text/plain")
        except NotTrue:
            assert body.lstrip()[:1] == b"{"

    @given(st.fixed_dictionaries({}, optional=_odd) | _json | st.text(max_size=20))
    def test_any_message_of_sns_is_taken(self, told: Any) -> None:
        found = heard(enveloped(told))
        assert found.status == 200
        for item in found.items:
            assert isinstance(item, Report | Uplink)
            if isinstance(item, Report):
                assert (item.id is None) != (item.find is None)
                assert item.at_ms >= 0
                assert item.price is None or item.price >= 0

    @given(st.sampled_from(sorted(enveloped(event()))), _json)
    def test_any_change_is_refused(self, name: str, value: Any) -> None:
        envelope = enveloped(event())
        if value == envelope[name]:
            return
        with pytest.raises((NotTrue, Missing)):
            heard({**envelope, name: value})
