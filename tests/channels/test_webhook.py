"""The webhook protocol (design page `api.md`) and its signature (Standard Webhooks)."""

from typing import Any

import msgspec
import pytest

from channels import ADAPTERS
from channels.standard_webhooks import is_signed, sign, signature, signing_key
from channels.webhook import Webhook, batch_id
from dispatcher.receipt import Receipt
from tests.channels.messages import message, messages, reply

NOW_S = 1_800_000_000.0
PLAIN = Webhook("p1", "https://gateway.example.com/send")


def sent(channel: str, **changes: Any) -> dict[str, Any]:
    request = PLAIN.request([message("m1", channel, **changes)], NOW_S)
    assert (request.method, request.url) == ("POST", "https://gateway.example.com/send")
    assert request.headers["content-type"] == "application/json"
    [one] = msgspec.json.decode(request.body)["messages"]
    return dict(one)


def answered(count: int, body: Any) -> list[Receipt]:
    return PLAIN.receipts(messages(count), reply(200, msgspec.json.encode(body)), NOW_S)


def words(receipts: list[Receipt]) -> list[str]:
    return [receipt.answer for receipt in receipts]


class TestRequest:
    def test_sms_has_exactly_the_fields_of_the_contract(self) -> None:
        assert sent("sms") == {
            "id": "m1",
            "channel": "sms",
            "to": "+8613800000000",
            "type": "notice",
            "title": None,
            "text": "尊敬的张三，已支付12.00元。",
            "signature": "示例",
            "params": {"amount": "12.00"},
            "template": "pay_ok",
            "line": "wallet",
        }

    def test_sms_without_signature(self) -> None:
        assert sent("sms", fields={"text": "hi"})["signature"] is None

    def test_push(self) -> None:
        one = sent("push", extra={"vendor": "fcm"})
        assert (one["title"], one["text"]) == ("Paid", "12.00")
        assert one["fields"] == {"jump": {"kind": "h5", "url": "https://example.com"}}
        assert one["extra"] == {"vendor": "fcm"}

    def test_email(self) -> None:
        one = sent("email")
        assert (one["title"], one["text"], one["fields"]) == ("Paid", "12.00", {"html": "<b>12.00</b>"})

    @pytest.mark.parametrize("channel", ["wechat", "webhook"])
    def test_others_carry_their_fields(self, channel: str) -> None:
        one = sent(channel)
        assert (one["title"], one["text"]) == (None, None)
        assert one["fields"] == message("m1", channel).fields

    def test_every_channel_is_delivered(self) -> None:
        assert ADAPTERS["webhook"].channels == ("sms", "push", "wechat", "email", "webhook")


class TestReceipts:
    def test_matched_by_id_whatever_the_order(self) -> None:
        receipts = answered(
            3,
            {
                "results": [
                    {"id": "m2", "answer": "invalid_recipient", "code": "GONE"},
                    {"id": "m0", "answer": "accepted", "ref": "r0"},
                    {"id": "m1", "answer": "throttled", "retry_after_s": 1.5},
                ]
            },
        )
        assert receipts == [
            Receipt("m0", "accepted", "p1", "r0", None, find="r0"),
            Receipt("m1", "throttled", "p1", None, None, 1.5),
            Receipt("m2", "invalid_recipient", "p1", None, "GONE"),
        ]

    def test_missing_id_is_unknown(self) -> None:
        assert words(answered(2, {"results": [{"id": "m1", "answer": "accepted"}]})) == ["unknown", "accepted"]

    @pytest.mark.parametrize("status", [200, 202, 204])
    @pytest.mark.parametrize("body", [b"", b"\r\n"])
    def test_empty_body_is_accepted_for_all(self, status: int, body: bytes) -> None:
        assert words(PLAIN.receipts(messages(2), reply(status, body), NOW_S)) == ["accepted", "accepted"]

    @pytest.mark.parametrize("body", [b"<html>", b"[]", b"1", b'{"ok":true}', b'{"results":7}', b"\xff"])
    def test_unreadable_body_is_unknown(self, body: bytes) -> None:
        assert words(PLAIN.receipts(messages(2), reply(200, body), NOW_S)) == ["unknown", "unknown"]

    @pytest.mark.parametrize("word", ["delivered", "refused", "", "ACCEPTED"])
    def test_unknown_word_is_rejected(self, word: str) -> None:
        assert words(answered(1, {"results": [{"id": "m0", "answer": word}]})) == ["rejected"]

    def test_bad_result_costs_only_itself(self) -> None:
        receipts = answered(
            3, {"results": [7, {"id": "m0", "answer": 5}, {"id": "m1", "answer": "accepted", "ref": 12}]}
        )
        assert [(r.answer, r.ref) for r in receipts] == [("rejected", None), ("accepted", "12"), ("unknown", None)]

    def test_first_word_on_an_id_counts(self) -> None:
        both = [{"id": "m0", "answer": "accepted", "ref": "r"}, {"id": "m0", "answer": "rejected"}]
        assert words(answered(1, {"results": both})) == ["accepted"]
        assert words(answered(1, {"results": [*both, 7]})) == ["accepted"]


class TestSignature:
    #: The example of the Standard Webhooks libraries' own tests.
    SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    BODY = b'{"test": 2432232314}'

    def test_known_vector(self) -> None:
        key = signing_key(self.SECRET)
        assert signature(key, self.ID, "1614265330", self.BODY) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_request_is_signed_over_its_bytes(self) -> None:
        key = signing_key(self.SECRET)
        request = Webhook("p1", "https://x", key).request(messages(3), NOW_S)
        assert request.headers["webhook-timestamp"] == str(int(NOW_S))
        assert is_signed(key, request.headers, request.body, NOW_S + 10)
        assert not is_signed(key, request.headers, request.body + b" ", NOW_S)
        assert not is_signed(key, request.headers, request.body, NOW_S + 301)
        assert not is_signed(b"other", request.headers, request.body, NOW_S)

    def test_one_of_several_signatures_is_enough(self) -> None:
        headers = sign(b"k", "id", 5, b"body")
        headers["webhook-signature"] = f"v1,xyz v2,é {headers['webhook-signature']}"
        assert is_signed(b"k", headers, b"body", 5)

    @pytest.mark.parametrize("timestamp", ["", "²", "-5", "5.0", "9" * 400])
    def test_bad_timestamp(self, timestamp: str) -> None:
        assert not is_signed(b"k", {**sign(b"k", "id", 5, b""), "webhook-timestamp": timestamp}, b"", 5)

    def test_id_is_stable_for_the_same_messages(self) -> None:
        assert batch_id(messages(1)) == "m0"
        assert batch_id(messages(3)) == batch_id(messages(3)) != batch_id(messages(2))

    def test_unsigned_without_a_secret(self) -> None:
        assert not any(name.startswith("webhook-") for name in PLAIN.request(messages(1), NOW_S).headers)
