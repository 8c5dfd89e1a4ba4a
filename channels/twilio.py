"""The provider kind `twilio`: the Messages API of 2010-04-01, one message a request.

Where `public_url` says how Twilio reaches us, each message names its own status callback, with our message id in it;
else the reports of a number or messaging service are found by their MessageSid.

Source: twilio/twilio-oai `twilio_api_v2010.json`; design page `wire.md`, section 4.
"""

import base64
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, Verdict, by_code, parse_retry_after, receipt_of_status
from channels.kind import Kind
from channels.options import Options, OptionsError, url_faults
from channels.twilio_callbacks import TwilioCallbacks, TwilioOptions
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.segments import signed

#: Since 2024-07 Twilio splits codes and advises against relying on all of them: others follow the status.
_ANSWERS: Final = by_code(
    {
        "invalid_recipient": "21211 21214 21217 21610 21612 21614",
        "throttled": "14107 20429 30001 30022 63018",
        "auth": "10001 20003 20005 20404 30002",
        "rejected": """21408 21602 21603 21606 21608 21617 21619 21620 21659 21660 21703
            30007 30034 63016""",
    }
)
#: Seconds a message may wait at Twilio.
_VALIDITY_S: Final = (1, 36_000)
_FAILED: Final = frozenset({"failed", "undelivered", "canceled"})


class _Words(Struct):
    """What a reply may hold: a message, or an error."""

    sid: str | None = None
    status: str | int | None = None  # an error's is a number
    num_segments: str | int | None = None
    error_code: str | int | None = None
    code: str | int | None = None


_decode: Final = msgspec.json.Decoder(_Words).decode


class Twilio:
    """One provider of kind `twilio`."""

    def __init__(self, provider: str, options: TwilioOptions) -> None:
        self._provider = provider
        sid, token = options.account_sid, options.auth_token.reveal()
        base = (options.url or "https://api.twilio.com").rstrip("/")
        self._url = f"{base}/2010-04-01/Accounts/{quote(sid, safe='')}/Messages.json"
        self._headers = {
            "authorization": "Basic " + base64.b64encode(f"{sid}:{token}".encode()).decode(),
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "user-agent": "dispatcher",
        }
        if options.messaging_service_sid:
            self._sender = ("MessagingServiceSid", options.messaging_service_sid)
        else:
            self._sender = ("From", options.from_ or "")
        self._callback = ""
        if options.public_url and options.callback_secret:
            place = f"{quote(provider, safe='')}/{quote(options.callback_secret, safe='')}"
            self._callback = f"{options.public_url.rstrip('/')}/v1/reports/{place}?id="

    def __repr__(self) -> str:
        return f"Twilio({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        message = messages[0]
        fields = message.fields
        left_s = int(message.expires_ms / 1000 - now_s)
        form = [
            ("To", message.to),
            self._sender,
            ("Body", signed(fields["text"], fields.get("signature"), message.region)),
            ("ValidityPeriod", str(min(max(left_s, _VALIDITY_S[0]), _VALIDITY_S[1]))),
        ]
        if self._callback:
            form.append(("StatusCallback", self._callback + quote(message.id, safe="")))
        return Request("POST", self._url, self._headers, urlencode(form).encode())

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        words = _read(reply.body)
        if not 200 <= reply.status < 300:
            return _refusal(words.code, reply, now_s).receipts(messages, self._provider)
        if not words.sid:  # a 2xx says that something was taken, so it may be on its way
            return Verdict("unknown", "unreadable reply").receipts(messages, self._provider)
        ref = words.sid[:LONGEST_WORD]
        code = None if words.error_code is None else str(words.error_code)[:LONGEST_WORD]
        answer: Answer = "accepted"
        if words.status in _FAILED:
            answer = _ANSWERS.get(code or "", "rejected")
        find = None if self._callback or answer != "accepted" else ref
        parts = _parts(words.num_segments)
        return [Receipt(m.id, answer, self._provider, ref, code, None, find, parts) for m in messages]


def _read(body: bytes) -> _Words:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _Words()


def _refusal(code: str | int | None, reply: Reply, now_s: float) -> Verdict:
    found = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
    if code is None:
        return found
    word = str(code)[:LONGEST_WORD]
    answer = _ANSWERS.get(word)
    if answer is None:
        return Verdict(found.answer, word, found.retry_after_s)
    wait_s = parse_retry_after(reply.headers.get("retry-after"), now_s) if answer == "throttled" else None
    return Verdict(answer, word, wait_s)


def _parts(value: str | int | None) -> int | None:
    """A messaging service answers 0: it does not know yet."""
    word = str(value)
    return int(word) or None if word.isascii() and word.isdigit() and len(word) < 4 else None


def _build(provider: str, options: Options) -> Twilio:
    assert isinstance(options, TwilioOptions)
    if bool(options.from_) == bool(options.messaging_service_sid):
        raise OptionsError([("options.from", "give either this or `messaging_service_sid`")])
    if options.public_url is not None:
        faults = url_faults(options.public_url, allow_private=True)
        if faults:
            raise OptionsError([("options.public_url", fault) for fault in faults])
    return Twilio(provider, options)


KIND: Final = Kind(options=TwilioOptions, channels=("sms",), build=_build, callbacks=TwilioCallbacks())
