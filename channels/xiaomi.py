"""The provider kind `xiaomi`: Xiaomi push, v3.

Source: design page `wire.md`, section 12.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

import msgspec

from channels.adapter import Reply, Request
from channels.answers import Verdict, by_code
from channels.kind import Callback, Heard, Kind
from channels.loose import BEIJING
from channels.options import Options, OptionsError, url_faults
from channels.push import (
    alike,
    document,
    extras,
    find_of,
    inner,
    intent_of,
    jump_of,
    life_s,
    number_of,
    report,
    tag_of,
    text_of,
    verdict_of,
)
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, ReportStatus

_URL: Final = "https://api.xmpush.xiaomi.com"
_MOST: Final = 1000  # registration ids a request
_LONGEST_LIFE_S: Final = 14 * 86_400
_DAY_QUOTA: Final = "10034"

#: `code` of a reply; a code outside goes by the HTTP status.
_CODES: Final = by_code({
    "invalid_recipient": "10029 65003",
    "throttled": "10027 26004 10002 10034",
    "auth": "21301 21302 21303 22000 22006 22007 22022 10031 10036",
    "rejected": "10008 10016 10017 65008 65009 65036 65037 65038 27001 26006",
    "transient": "-1 1 10001 10003 20301 22102 26003 65029",
})
#: `type` of a receipt -> status, and whether the target will never work. 2, clicked, was delivered.
_TYPES: Final[dict[int, tuple[ReportStatus, bool]]] = {
    1: ("delivered", False),
    2: ("delivered", False),
    16: ("undelivered", True),  # not found, or not valid any more
    32: ("undelivered", False),  # push is switched off
    64: ("undelivered", False),  # filtered
    128: ("undelivered", False),  # the day's limit
}
_WANTED_TYPES: Final = sum(_TYPES) - 2  # clicks are not asked for


class XiaomiOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`public_url`: the dispatcher's own address as the vendor reaches it; with it, receipts are asked for.
    `channel_id`: the notification channel, which the vendor's quotas go by."""

    app_secret: Secret
    package: str
    public_url: str | None = None
    channel_id: str | None = None


class Xiaomi:
    """One application. A request carries one content for many registration ids."""

    def __init__(self, provider: str, options: XiaomiOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = (options.url or _URL).rstrip("/") + "/v3/message/regid"
        self._callback = ""
        if options.public_url and options.callback_secret:
            way = f"/v1/reports/{quote(provider, safe='')}/{quote(options.callback_secret, safe='')}"
            self._callback = options.public_url.rstrip("/") + way

    def __repr__(self) -> str:
        return f"Xiaomi({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        return alike(messages, _MOST)

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        headers = {
            "authorization": f"key={self._options.app_secret.reveal()}",
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            "user-agent": "dispatcher",
        }
        return Request("POST", self._url, headers, urlencode(self._form(messages, now_s)).encode())

    def _form(self, messages: Sequence[Message], now_s: float) -> dict[str, str]:
        fields, tag = messages[0].fields, tag_of(messages)
        form = {
            "registration_id": ",".join([message.to for message in messages]),
            "restricted_package_name": self._options.package,
            "title": fields["title"],
            "description": fields["body"],
            "payload": msgspec.json.encode(extras(messages)).decode(),
            "pass_through": "0",
            "notify_type": "-1",
            "notify_id": str(number_of(tag)),  # without one it would replace any other notification
            "time_to_live": str(life_s(messages, now_s, _LONGEST_LIFE_S) * 1000),
            "extra.jobkey": sha256(tag.encode()).hexdigest()[:20],  # a phone shows the first message of a key only
            **_click(messages[0]),
        }
        if self._options.channel_id:
            form["extra.channel_id"] = self._options.channel_id
        if self._callback:
            form |= {"extra.callback": self._callback, "extra.callback.type": str(_WANTED_TYPES)}
            if len(messages) == 1:
                form["extra.callback.param"] = messages[0].id
        return form

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document(reply.body)
        code, ref = text_of(found.get("code")), text_of(inner(found, "data").get("id"))
        if reply.status == 200 and code == "0" and found.get("result") == "ok":
            several = len(messages) > 1 and ref != "" and self._callback != ""  # alone, the report names our id
            return [
                Receipt(m.id, "accepted", self._provider, ref or None, find=find_of(ref, m.to) if several else None)
                for m in messages
            ]
        return _verdict(messages, reply, code, now_s).receipts(messages, self._provider)


def _click(message: Message) -> dict[str, str]:
    kind, url = jump_of(message)
    if kind == "h5":
        return {"extra.notify_effect": "3", "extra.web_uri": url}
    if kind == "native":
        return {"extra.notify_effect": "2", "extra.intent_uri": intent_of(url)}
    return {"extra.notify_effect": "1"}


def _verdict(messages: Sequence[Message], reply: Reply, code: str, now_s: float) -> Verdict:
    verdict = verdict_of(reply, code, _CODES, now_s)
    if verdict.answer == "invalid_recipient" and len(messages) > 1:
        return Verdict("transient", code)  # one of them is; that is no reason to take all for dead
    return Verdict("throttled", code, _until_midnight_s(now_s)) if code == _DAY_QUOTA else verdict


def _until_midnight_s(now_s: float) -> float:
    now = datetime.fromtimestamp(now_s, BEIJING)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()


class XiaomiCallbacks:
    """Receipts: a form whose field `data` is a JSON object by message id. The vendor signs nothing."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        try:
            form = parse_qs(call.body.decode(), max_num_fields=16)
        except ValueError:
            return Heard(status=400)
        found = document(form.get("data", [""])[0].encode(errors="replace"))
        if not found:
            return Heard(status=400)
        return Heard([one for ref, item in found.items() for one in _reports(provider, ref, inner(item))])

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        return Heard(status=404)


def _reports(provider: str, ref: str, item: dict[str, Any]) -> Iterator[Report]:
    type_ = item.get("type")
    known = _TYPES.get(type_) if isinstance(type_, int) else None
    targets = item.get("targets")
    if known is None or not isinstance(targets, str):
        return
    code = text_of(item.get("errorCode")) or str(type_)
    for target in filter(None, (part.strip() for part in targets.split(","))):
        yield report(provider, known, item.get("param"), ref, target, code, item.get("timestamp"))


def _build(provider: str, options: Options) -> Xiaomi:
    assert isinstance(options, XiaomiOptions)
    if options.public_url is not None:
        for why in url_faults(options.public_url, allow_private=True):
            raise OptionsError([("options.public_url", why)])
    return Xiaomi(provider, options)


KIND: Final = Kind(options=XiaomiOptions, channels=("push",), build=_build, most=_MOST, callbacks=XiaomiCallbacks())
