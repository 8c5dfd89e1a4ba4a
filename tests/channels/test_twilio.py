"""Twilio: requests against its field list, signatures against its own validator, answers, status callbacks, uplinks."""

import base64
import contextlib
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from channels import ADAPTERS, build, check
from channels.adapter import Adapter
from channels.kind import Callback, Heard, NotTrue
from channels.options import OptionsError
from channels.secret import Secret
from channels.twilio_callbacks import TwilioCallbacks, TwilioOptions, signature
from dispatcher.documents import Provider, UnsubscribeAnswer
from dispatcher.ident import message_id, time_prefix
from dispatcher.receipt import Answer, Receipt
from dispatcher.report import Report, Uplink
from tests.channels.messages import message, messages, reply
from tests.channels.vendors import NOW_S, Asked, exchange, is_sound

TOKEN = "12345"
SID = "SM0123456789abcdef0123456789abcdef"
OURS = message_id(time_prefix(1_700_000_000_000), "0123456789ABC", 7, "sms")
WRITTEN = {"account_sid": "AC1", "auth_token": "env:API_SECRET", "from": "+15005550006"}
CALLED = {**WRITTEN, "public_url": "https://us.example.com/in/", "callback_secret": "s3/cret"}
#: Of the API's description, as the design page `wire.md` lists them.
FIELDS = {
    "To", "From", "MessagingServiceSid", "Body", "MediaUrl", "ContentSid", "ContentVariables", "StatusCallback",
    "ValidityPeriod", "SmartEncoded", "ShortenUrls", "ScheduleType", "SendAt", "MaxPrice", "FallbackFrom",
}  # fmt: skip
URL = "https://us.example.com/v1/reports/p1/s"
STATUS = {
    "MessageSid": SID, "SmsSid": SID, "MessageStatus": "delivered", "SmsStatus": "delivered", "AccountSid": "AC1",
    "To": "+8613800000000", "From": "+15005550006", "ApiVersion": "2010-04-01", "NewField": "é +~*",
}  # fmt: skip
MO = {
    "MessageSid": SID, "SmsSid": SID, "SmsMessageSid": SID, "AccountSid": "AC1", "From": "+14155550182",
    "To": "+15005550006", "Body": "STOP 退订", "NumMedia": "0", "NumSegments": "1", "SmsStatus": "received",
    "FromCity": "", "ApiVersion": "2010-04-01",
}  # fmt: skip
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("a é+~*&=% ", max_size=12)


def provider(**options: Any) -> Provider:
    return Provider(kind="twilio", channel="sms", options=options)


def adapter(**options: Any) -> Adapter:
    way = build("p1", provider(**options), {"API_SECRET": TOKEN})
    assert isinstance(way, tuple)
    return way[0]


def options(public_url: str | None = None) -> TwilioOptions:
    return TwilioOptions(account_sid="AC1", auth_token=Secret(TOKEN), from_="+15005550006", public_url=public_url)


def posted(fields: Any, url: str = URL, sign: str | None = None, method: str = "POST") -> Callback:
    """A callback, signed by Twilio's own code."""
    body = urlencode(fields) if method == "POST" else ""
    signed = RequestValidator(TOKEN).compute_signature(url, dict(fields) if method == "POST" else {})
    query = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
    headers = {"x-twilio-signature": signed if sign is None else sign}
    return Callback(method, url, query, headers, body.encode(), NOW_S)


def heard(call: Callback, public_url: str | None = None) -> Heard:
    callbacks = ADAPTERS["twilio"].callbacks
    assert callbacks is not None
    told = callbacks.reports("p1", call, options(public_url))
    assert callbacks.uplinks("p1", call, options(public_url)) == told
    return told


class TestRequest:
    def form(self, written: dict[str, Any], **changes: Any) -> dict[str, str]:
        request = adapter(**written).request([message(OURS, **changes)], NOW_S)
        assert request.url == "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json"
        assert request.headers["authorization"] == "Basic " + base64.b64encode(f"AC1:{TOKEN}".encode()).decode()
        found = parse_qsl(request.body.decode(), strict_parsing=True)
        assert len(dict(found)) == len(found)
        assert dict(found).keys() <= FIELDS
        return dict(found)

    def test_from_a_number(self) -> None:
        expires_ms = int(NOW_S + 300) * 1000
        assert self.form(WRITTEN, fields={"text": "hi", "signature": "Us"}, expires_ms=expires_ms) == {
            "To": "+8613800000000", "From": "+15005550006", "Body": "[Us]hi", "ValidityPeriod": "300",
        }  # fmt: skip

    def test_from_a_messaging_service(self) -> None:
        found = self.form({"account_sid": "AC1", "auth_token": "env:API_SECRET", "messaging_service_sid": "MG1"})
        assert (found.get("From"), found["MessagingServiceSid"]) == (None, "MG1")

    def test_names_its_callback(self) -> None:
        assert self.form(CALLED)["StatusCallback"] == f"https://us.example.com/in/v1/reports/p1/s3%2Fcret?id={OURS}"

    @given(text=_text.filter(bool), left_s=st.integers(-10, 100_000))
    def test_any_text(self, text: str, left_s: int) -> None:
        found = self.form(WRITTEN, fields={"text": text}, expires_ms=int(NOW_S + left_s) * 1000)
        assert (found["Body"], found["ValidityPeriod"]) == (text, str(min(max(left_s, 1), 36_000)))

    @pytest.mark.parametrize(
        ("changes", "path"),
        [
            ({"from": None}, "options.from"),
            ({"messaging_service_sid": "MG1"}, "options.from"),
            ({"public_url": "us.example.com"}, "options.public_url"),
        ],
    )
    def test_options_that_contradict(self, changes: dict[str, Any], path: str) -> None:
        with pytest.raises(OptionsError) as error:
            adapter(**{**WRITTEN, **changes})
        assert [where for where, _ in error.value.errors] == [path]

    def test_from_is_called_as_twilio_calls_it(self) -> None:
        assert check(provider(**WRITTEN)) == []
        assert check(provider(**{**WRITTEN, "from_": "+1"})) == [("options.from_", "unknown option")]


class TestReceipts:
    def made(self, **changes: Any) -> bytes:
        fields = {"sid": SID, "status": "queued", "num_segments": "2", "price": None, "error_code": None}
        return json.dumps({**fields, **changes}).encode()

    def test_over_a_socket(self) -> None:
        def answers(asked: Asked) -> tuple[int, bytes]:
            assert (asked.method, asked.target) == ("POST", "/2010-04-01/Accounts/AC1/Messages.json")
            assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
            assert dict(parse_qsl(asked.body.decode()))["Body"] == "[示例]尊敬的张三，已支付12.00元。"
            return 201, self.made()

        receipts, asked = exchange("twilio", WRITTEN, TOKEN, messages(1), answers, rounds=2)
        assert receipts == [Receipt("m0", "accepted", "p1", SID, find=SID, segments=2)]
        assert len(asked) == 2

    def test_our_id_in_the_callback_needs_no_other_key(self) -> None:
        [found] = adapter(**CALLED).receipts(messages(1), reply(201, self.made()), NOW_S)
        assert (found.answer, found.ref, found.find) == ("accepted", SID, None)

    @pytest.mark.parametrize(("told", "segments"), [("0", None), ("3", 3), (4, 4), (None, None), ("²", None)])
    def test_segments(self, told: Any, segments: int | None) -> None:
        [found] = adapter(**WRITTEN).receipts(messages(1), reply(201, self.made(num_segments=told)), NOW_S)
        assert found.segments == segments

    def test_failed_at_once(self) -> None:
        body = self.made(status="failed", error_code=21610)
        [found] = adapter(**WRITTEN).receipts(messages(1), reply(201, body), NOW_S)
        assert (found.answer, found.code, found.find) == ("invalid_recipient", "21610", None)

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"sid":7}'])
    def test_unreadable_success_is_unknown(self, body: bytes) -> None:
        assert [r.answer for r in adapter(**WRITTEN).receipts(messages(1), reply(201, body), NOW_S)] == ["unknown"]

    @pytest.mark.parametrize(
        ("status", "code", "answer"),
        [
            (400, 21211, "invalid_recipient"),
            (400, 21614, "invalid_recipient"),
            (400, 21610, "invalid_recipient"),
            (400, 21408, "rejected"),
            (400, 21617, "rejected"),
            (400, 21608, "rejected"),
            (400, 21999, "rejected"),
            (429, 20429, "throttled"),
            (400, 14107, "throttled"),
            (401, 20003, "auth"),
            (404, 20404, "auth"),
            (403, 20005, "auth"),
            (500, 20500, "transient"),
            (503, 20503, "transient"),
        ],
    )
    def test_errors(self, status: int, code: int, answer: Answer) -> None:
        body = json.dumps({"code": code, "message": "no", "more_info": "", "status": status}).encode()
        [found] = adapter(**WRITTEN).receipts(messages(1), reply(status, body), NOW_S)
        assert (found.answer, found.code) == (answer, str(code))

    def test_wait_is_taken(self) -> None:
        [found] = adapter(**WRITTEN).receipts(messages(1), reply(429, b'{"code":20429}', retry_after="3"), NOW_S)
        assert (found.answer, found.retry_after_s) == ("throttled", 3.0)


class TestSignature:
    def test_the_documents_example(self) -> None:
        fields = {
            "CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
            "To": "+18005551212",
        }  # fmt: skip
        listed = {name: [value] for name, value in fields.items()}
        url = "https://mycompany.com/myapp.php?foo=1&bar=2"
        assert signature(TOKEN, url, listed) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="

    @given(st.dictionaries(_text, _text, max_size=5), st.sampled_from([URL, URL + "?id=1&b=%20+~", URL + "?a"]))
    def test_twilio_signs_alike(self, fields: dict[str, str], url: str) -> None:
        listed = {name: [value] for name, value in fields.items()}
        assert signature(TOKEN, url, listed) == RequestValidator(TOKEN).compute_signature(url, fields)

    def test_repeated_values_are_signed_once_and_in_order(self) -> None:
        class Many(dict[str, list[str]]):
            def getall(self, name: str) -> list[str]:
                return self[name]

        many = Many(b=["2", "1", "2"], a=[""])
        assert signature(TOKEN, URL, many) == RequestValidator(TOKEN).compute_signature(URL, many)

    @pytest.mark.parametrize("signed", ["https://us.example.com:443/v1/x?a=1", "https://us.example.com/v1/x?a=1"])
    @pytest.mark.parametrize("called", ["https://us.example.com:443/v1/x?a=1", "https://us.example.com/v1/x?a=1"])
    def test_with_and_without_the_port(self, signed: str, called: str) -> None:
        call = posted(STATUS, called, RequestValidator(TOKEN).compute_signature(signed, STATUS))
        assert len(heard(call).items) == 1

    def test_the_public_address_counts(self) -> None:
        public = "https://us.example.com/in"
        sign = RequestValidator(TOKEN).compute_signature(f"{public}/v1/reports/p1/s?id={OURS}", STATUS)
        call = posted(STATUS, f"http://10.0.0.7:8080/v1/reports/p1/s?id={OURS}", sign)
        assert len(heard(call, public).items) == 1
        with pytest.raises(NotTrue):
            heard(call)

    @pytest.mark.parametrize("sign", ["", "x", "RSOYDt4T1cUTdK1PDd93/VVr8B8=", "é\udc80"])
    def test_wrong_ones_are_refused(self, sign: str) -> None:
        with pytest.raises(NotTrue):
            heard(posted(STATUS, sign=sign))

    @given(st.sampled_from(sorted(STATUS)), _text)
    def test_any_change_is_refused(self, name: str, value: str) -> None:
        changed = {**STATUS, name: value}
        if changed != STATUS:
            with pytest.raises(NotTrue):
                heard(posted(changed, sign=RequestValidator(TOKEN).compute_signature(URL, STATUS)))


class TestHeard:
    def report(self, url: str = URL, **changes: str) -> Report:
        [found] = heard(posted({**STATUS, **changes}, url)).items
        assert isinstance(found, Report)
        return found

    def test_delivered(self) -> None:
        told = heard(posted(STATUS))
        assert (told.status, told.content_type) == (200, "text/xml")
        assert list(told.items) == [Report("p1", "delivered", None, SID, "+8613800000000", "delivered")]

    def test_our_id_wins(self) -> None:
        found = self.report(f"{URL}?id={OURS}")
        assert (found.id, found.find) == (OURS, None)
        other = self.report(f"{URL}?id=of-another")
        assert (other.id, other.find) == (None, SID)

    @pytest.mark.parametrize(
        ("status", "code", "wanted", "dead"),
        [
            ("sent", "", "sent", False),
            ("read", "", "delivered", False),
            ("undelivered", "30005", "undelivered", True),
            ("undelivered", "30006", "undelivered", True),
            ("undelivered", "30003", "undelivered", False),
            ("failed", "30008", "undelivered", False),
            ("failed", "21211", "undelivered", True),
            ("canceled", "", "undelivered", False),
        ],
    )
    def test_every_status(self, status: str, code: str, wanted: str, dead: bool) -> None:
        found = self.report(MessageStatus=status, ErrorCode=code)
        assert (found.status, found.code, found.dead) == (wanted, code or status, dead)

    @pytest.mark.parametrize("status", ["queued", "accepted", "scheduled", "sending", "newly_invented"])
    def test_others_are_heard_and_say_nothing(self, status: str) -> None:
        told = heard(posted({**STATUS, "MessageStatus": status}))
        assert (told.status, list(told.items)) == (200, [])

    @pytest.mark.parametrize("method", ["POST", "GET"])
    def test_message_of_a_user(self, method: str) -> None:
        url = "https://us.example.com/v1/uplinks/p1/s"
        told = heard(posted(MO, url if method == "POST" else f"{url}?{urlencode(MO)}", method=method))
        assert list(told.items) == [Uplink("p1", "", "+14155550182", "STOP 退订", "+15005550006", 0, SID)]
        assert (told.content_type, told.body) == ("text/xml", b'<?xml version="1.0" encoding="UTF-8"?><Response/>')

    def test_who_unsubscribes_may_be_answered(self) -> None:
        fields = {"MessageSid": SID, "SmsStatus": "received", "From": "+14155550182", "To": "+15005550006"}
        for text, answer, body in (
            (" stop ", "Done & dusted", b"<Response><Message>Done &amp; dusted</Message></Response>"),
            ("stop it", "Done", b"<Response/>"),
            ("stop", None, b"<Response/>"),
        ):
            set_up = msgspec.structs.replace(options(), unsubscribe_answer=answer)
            told = TwilioCallbacks().uplinks("p1", posted({**fields, "Body": text}), set_up)
            assert told.body.endswith(body)
            assert len(told.items) == 1

    def test_nobody_is_answered_twice(self) -> None:
        written = provider(**WRITTEN, unsubscribe_answer="Done")
        assert check(written) == []
        both = msgspec.structs.replace(written, unsubscribe_answer=UnsubscribeAnswer("bye"))
        assert [path for path, _ in check(both)] == ["unsubscribe_answer"]

    @pytest.mark.parametrize("fields", [{}, {"MessageSid": SID}, {"MessageStatus": "sent"}])
    def test_what_says_nothing_is_refused(self, fields: dict[str, str]) -> None:
        assert heard(posted(fields)) == Heard(status=400, content_type="text/plain")


class TestFuzz:
    @given(st.binary(max_size=64) | st.just(b"&" * 100_000) | st.just(b"a=1&" * 1_000), st.text(max_size=8))
    def test_any_unsigned_call_is_refused(self, body: bytes, sign: str) -> None:
        with contextlib.suppress(NotTrue):
            assert heard(Callback("POST", URL, {}, {"x-twilio-signature": sign}, body, NOW_S)).status == 400

    @given(st.dictionaries(st.sampled_from(sorted({**STATUS, **MO, "ErrorCode": ""})), _text | st.just("received")))
    def test_any_signed_call_is_answered(self, fields: dict[str, str]) -> None:
        told = heard(posted(fields))
        assert told.status in (200, 400)
        for item in told.items:
            assert isinstance(item, Uplink) or (item.id is None) != (item.find is None)

    def test_a_sound_one_is_sound(self) -> None:
        assert is_sound(heard(posted(MO)))
        assert is_sound(heard(posted(STATUS)))
