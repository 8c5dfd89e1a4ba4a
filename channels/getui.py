"""The provider kind `getui`: Getui push, REST API v2.

Source: design page `wire.md`, section 10.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from channels.adapter import NoToken, Reply, Request, Token
from channels.answers import by_code
from channels.kind import Callback, Heard, Kind, NotTrue
from channels.oauth import is_token, no_token
from channels.options import Options
from channels.push import (
    document,
    extras,
    find_of,
    inner,
    intent_of,
    jump_of,
    life_s,
    milliseconds,
    report,
    text_of,
    verdict_of,
)
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.report import Report, ReportStatus

_URL: Final = "https://restapi.getui.com"
_MOST: Final = 200  # messages of `push/single/batch/cid`
_LONGEST_LIFE_S: Final = 3 * 86_400
_DAY_S: Final = 86_400.0
_STALE: Final = "10001"

#: `code` of a reply; a code outside goes by the HTTP status.
_CODES: Final = by_code({
    "auth": "10001 10002 10003 10004 10005 10006 10007 10008 10009",
    "rejected": "20001",
})
#: What `data` says of one cid.
_RESULTS: Final[dict[str, Answer]] = {
    "successed_online": "accepted",
    "successed_offline": "accepted",
    "successed_ignore": "invalid_recipient",  # inactive: the vendor does not even try
}
#: `code` of a receipt -> status, and whether the address will never work.
_STATUSES: Final[dict[str, tuple[ReportStatus, bool]]] = {
    "200": ("delivered", False),
    "400": ("undelivered", False),  # APNs did not take it
    "401": ("undelivered", True),  # no such user
    "402": ("undelivered", True),  # inactive
    "500": ("undelivered", False),
}


class GetuiOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One application's keys; the app secret is the phone's, and no option."""

    app_id: str
    app_key: str
    master_secret: Secret


_encode: Final = msgspec.json.Encoder().encode


class Getui:
    """One application. Messages of different content share a request, those to one address do not."""

    def __init__(self, provider: str, options: GetuiOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = f"{(options.url or _URL).rstrip('/')}/v2/{quote(options.app_id, safe='')}"
        self._token = ""

    def __repr__(self) -> str:
        return f"Getui({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        """The reply names addresses, so each stands once in a request."""
        parts: list[list[int]] = []
        times: dict[str, int] = {}
        groups: dict[int, list[int]] = {}
        for place, message in enumerate(messages):
            times[message.to] = nth = times.get(message.to, 0) + 1
            part = groups.get(nth)
            if part is None or len(part) == _MOST:
                part = groups[nth] = []
                parts.append(part)
            part.append(place)
        return parts

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        headers = {"token": self._token, "content-type": "application/json", "user-agent": "dispatcher"}
        wires = [wire_message(message, now_s) for message in messages]
        if len(wires) == 1:
            return Request("POST", f"{self._url}/push/single/cid", headers, _encode(wires[0]))
        body = _encode({"is_async": False, "msg_list": wires})
        return Request("POST", f"{self._url}/push/single/batch/cid", headers, body)

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document(reply.body)
        code = text_of(found.get("code"))
        if code != "0" or reply.status != 200:
            return verdict_of(reply, code, _CODES, now_s).receipts(messages, self._provider)
        said = _results(found)
        return [self._receipt(message, said.get(message.to)) for message in messages]

    def _receipt(self, message: Message, said: tuple[str, str] | None) -> Receipt:
        if said is None:
            return Receipt(message.id, "unknown", self._provider, code="missing in the reply")
        task, result = said
        answer = _RESULTS.get(result, "rejected")
        if answer != "accepted":
            return Receipt(message.id, answer, self._provider, task, result)
        return Receipt(message.id, answer, self._provider, task, find=find_of(task, message.to))

    # -- the access token

    def token_request(self, now_s: float) -> Request:
        options, timestamp = self._options, str(int(now_s * 1000))
        signed = f"{options.app_key}{timestamp}{options.master_secret.reveal()}"
        sign = hashlib.sha256(signed.encode()).hexdigest()
        body = _encode({"sign": sign, "timestamp": timestamp, "appkey": options.app_key})
        return Request("POST", f"{self._url}/auth", {"content-type": "application/json"}, body)

    def token_of(self, reply: Reply, now_s: float) -> Token:
        found = document(reply.body)
        data = inner(found, "data")
        value = data.get("token")
        code = text_of(found.get("code"))
        if code != "0" or not isinstance(value, str) or not is_token(value):
            raise NoToken("auth", f"no token: {code}") if code in _CODES else no_token(reply, code, now_s)
        until_s = milliseconds(data.get("expire_time")) / 1000
        return Token(value, until_s if until_s > now_s else now_s + _DAY_S)

    def use(self, token: str) -> None:
        self._token = token

    def is_stale(self, reply: Reply) -> bool:
        return text_of(document(reply.body).get("code")) == _STALE


def wire_message(message: Message, now_s: float) -> dict[str, Any]:
    """One message as Getui reads it; `request_id`, 10 to 32 characters, is our id, so a
    repeated one is not pushed again."""
    title, body, more = message.fields["title"], message.fields["body"], extras([message])
    shown = {"title": title, "body": body, **_click(message, more)}
    aps = {"alert": {"title": title, "body": body}, "content-available": 0, "sound": "default"}
    return {
        "request_id": message.id,
        "settings": {"ttl": life_s([message], now_s, _LONGEST_LIFE_S) * 1000, "strategy": {"default": 1}},
        "audience": {"cid": [message.to]},
        "push_message": {"notification": shown},
        "push_channel": {
            "android": {"ups": {"notification": shown}},
            "ios": {
                "type": "notify",
                "payload": msgspec.json.encode(more).decode(),
                "aps": aps,
                "apns-collapse-id": message.id,
            },
        },
    }


def _click(message: Message, more: dict[str, str]) -> dict[str, str]:
    kind, url = jump_of(message)
    if kind == "h5":
        return {"click_type": "url", "url": url}
    if kind == "native":
        return {"click_type": "intent", "intent": intent_of(url)}
    return {"click_type": "payload", "payload": msgspec.json.encode(more).decode()}


def _results(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """cid -> (task, result)"""
    return {
        cid: (text_of(task), text_of(result))
        for task, cids in inner(found, "data").items()
        if isinstance(cids, dict)
        for cid, result in cids.items()
    }


class GetuiCallbacks:
    """Receipts: one JSON object a line, each signed."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        assert isinstance(options, GetuiOptions)
        lines = [document(line) for line in call.body.splitlines() if line.strip()]
        if not lines or not all(lines):
            return Heard(status=400)
        for line in lines:
            if not _is_signed(line, options):
                raise NotTrue
        return Heard([_report(provider, line) for line in lines], content_type="text/plain")

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        return Heard(status=404)


def sign(line: dict[str, Any], master_secret: str) -> str:
    """MD5 of four of its words and the secret, hex."""
    words = "".join(text_of(line.get(name)) for name in ("appid", "cid", "taskid", "msgid"))
    return hashlib.md5((words + master_secret).encode(errors="replace"), usedforsecurity=False).hexdigest()


def _is_signed(line: dict[str, Any], options: GetuiOptions) -> bool:
    given = text_of(line.get("sign")).lower().encode(errors="replace")
    return hmac.compare_digest(sign(line, options.master_secret.reveal()).encode(), given)


def _report(provider: str, line: dict[str, Any]) -> Report:
    code, task, cid = text_of(line.get("code")), text_of(line.get("taskid")), text_of(line.get("cid"))
    said = _STATUSES.get(code, ("undelivered", False))
    return report(provider, said, None, task, cid, code, line.get("recvtime"))


def _build(provider: str, options: Options) -> Getui:
    assert isinstance(options, GetuiOptions)
    return Getui(provider, options)


KIND: Final = Kind(options=GetuiOptions, channels=("push",), build=_build, most=_MOST, callbacks=GetuiCallbacks())
