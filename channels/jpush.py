"""The provider kind `jpush`: Aurora (Jiguang) push, REST API v3.

Source: design page `wire.md`, section 9. It posts no reports to ordinary accounts: `status_request` asks for them
(`channels.poll`).
"""

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from channels.adapter import Reply, Request
from channels.answers import Verdict, bounded_retry_after_s, by_code
from channels.kind import Kind
from channels.loose import BEIJING
from channels.options import Options
from channels.poll import State
from channels.push import alike, document, extras, inner, intent_of, jump_of, life_s, tag_of, text_of, verdict_of
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt

_URL: Final = "https://api.jpush.cn"
#: Where a zone is asked for delivery states. Anything else that stands for the vendor does so under one address.
_REPORT_URLS: Final = {
    _URL: "https://report.jpush.cn/v3",
    "https://bjapi.push.jiguang.cn": "https://bjapi.push.jiguang.cn/v3/report",
}
_MOST: Final = 1000  # registration ids a request
_LONGEST_LIFE_S: Final = 10 * 86_400
#: What a registration id looks like; anything else travels alone, since one that is malformed fails its whole request.
_REGISTRATION_ID: Final = re.compile(r"[0-9a-zA-Z]{11,64}", re.ASCII)
_CIDS: Final = uuid.UUID("3f0bd8a5-0b5e-4d57-93c4-2a4f5d4c9a10")

#: `error.code`
_CODES: Final = by_code({
    "invalid_recipient": "1011",  # none of the targets exists
    "throttled": "2002 1012 2005",
    "auth": "1004 1008 2003 2004 2006 2007",
    "rejected": "1001 1002 1003 1005 1009 1020",  # 1003 unless it speaks of a registration id
    "transient": "1000 1030",
})
#: `status` of one registration id in `POST /v3/status/message`; 3, not a target, and 4, their fault, say nothing.
_STATES: Final[dict[int, State]] = {
    0: State("delivered"),
    1: State("sent", "1"),  # not yet
    2: State("undelivered", "2", dead=True),  # none of this application
}


class JpushOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`production`: which of Apple's two services iOS messages go to. `derived_cid`: send an idempotency key made of
    the message ids; the vendor documents only keys that it gave out itself."""

    app_key: str
    master_secret: Secret
    production: bool = True
    derived_cid: bool = False


_encode: Final = msgspec.json.Encoder().encode


class Jpush:
    """One application."""

    def __init__(self, provider: str, options: JpushOptions) -> None:
        self._provider = provider
        self.account = options.app_key
        self._production = options.production
        self._derived_cid = options.derived_cid
        url = (options.url or _URL).rstrip("/")
        self._url = f"{url}/v3/push"
        self._status_url = f"{_REPORT_URLS.get(url, f'{url}/v3')}/status/message"
        login = base64.b64encode(f"{options.app_key}:{options.master_secret.reveal()}".encode()).decode()
        self._headers = {
            "authorization": f"Basic {login}",
            "content-type": "application/json",
            "user-agent": "dispatcher",
        }

    def __repr__(self) -> str:
        return f"Jpush({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        return alike(messages, _MOST, lambda address: _REGISTRATION_ID.fullmatch(address) is None)

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        tag = tag_of(messages)
        body: dict[str, Any] = {
            "platform": "all",
            "audience": {"registration_id": [message.to for message in messages]},
            "notification": _notification(messages),
            "options": {
                "time_to_live": life_s(messages, now_s, _LONGEST_LIFE_S),
                "apns_production": self._production,
                "apns_collapse_id": tag,  # a repeated one replaces the first
            },
        }
        if self._derived_cid:  # in the form of the vendor's own
            body["cid"] = f"{self.account}-{uuid.uuid5(_CIDS, tag)}"
        return Request("POST", self._url, self._headers, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document(reply.body)
        ref = text_of(found.get("msg_id"))
        if reply.status == 200 and ref:
            return [Receipt(message.id, "accepted", self._provider, ref) for message in messages]
        verdict = _verdict(reply, inner(found, "error"), now_s)
        if verdict.code == "1003":
            return self._malformed(messages, text_of(inner(found, "error").get("message")))
        return verdict.receipts(messages, self._provider)

    def _malformed(self, messages: Sequence[Message], why: str) -> list[Receipt]:
        """A parameter is wrong. Where it is a registration id, the others were not sent for it."""
        wrong = [message.to in why for message in messages]
        if len(messages) == 1 and "registration" in why.lower():
            wrong = [True]
        others: Answer = "transient" if any(wrong) else "rejected"
        return [
            Receipt(message.id, "invalid_recipient" if bad else others, self._provider, code="1003")
            for message, bad in zip(messages, wrong, strict=True)
        ]

    # -- what became of them (`channels.poll.Polled`)

    def status_request(self, ref: str, addresses: Sequence[str], sent_s: float) -> Request:
        day = datetime.fromtimestamp(sent_s, BEIJING).date().isoformat()
        number = int(ref) if ref.isascii() and ref.isdigit() else ref
        body = {"msg_id": number, "registration_ids": list(addresses), "date": day}
        return Request("POST", self._status_url, self._headers, _encode(body))

    def states(self, addresses: Sequence[str], reply: Reply) -> Mapping[str, State]:
        found = document(reply.body) if reply.status == 200 else {}
        said = {address: inner(found, address).get("status") for address in addresses}
        return {address: _STATES[n] for address, n in said.items() if isinstance(n, int) and n in _STATES}


def _notification(messages: Sequence[Message]) -> dict[str, Any]:
    fields = messages[0].fields
    title, body, more = fields["title"], fields["body"], extras(messages)
    android: dict[str, Any] = {"alert": body, "title": title, "extras": more}
    kind, url = jump_of(messages[0])
    if kind == "native":
        android["intent"] = {"url": intent_of(url)}
    ios = {"alert": {"title": title, "body": body}, "sound": "default", "extras": more}
    return {"alert": body, "android": android, "ios": ios}


def _verdict(reply: Reply, error: dict[str, Any], now_s: float) -> Verdict:
    """`X-Rate-Limit-Reset`: seconds until the vendor counts anew."""
    verdict = verdict_of(reply, text_of(error.get("code")), _CODES, now_s)
    reset = reply.headers.get("x-rate-limit-reset", "")
    if verdict.answer == "throttled" and reset.isascii() and reset.isdigit() and len(reset) < 10:
        return Verdict("throttled", verdict.code, bounded_retry_after_s(float(reset)))
    return verdict


def _build(provider: str, options: Options) -> Jpush:
    assert isinstance(options, JpushOptions)
    return Jpush(provider, options)


KIND: Final = Kind(options=JpushOptions, channels=("push",), build=_build, most=_MOST)
