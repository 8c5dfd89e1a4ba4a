"""The provider kind `huawei_sms`: Huawei Cloud Message & SMS, batchSendDiffSms/v1.

Wire facts: design page `wire.md`, section 3, and Huawei's pages api-msgsms sms_05_0002 and sms_05_0063. Signature:
SDK-HMAC-SHA256, the same bytes as `huaweicloudsdkcore` 3.1.219 makes; Huawei's SDK for this API takes the application's
key and secret as AK and SK. (X-WSSE, the other way, is written in two ways in the wild.)
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, Verdict, by_code, receipt_of_status
from channels.approved import Apart, Approved, approved, international, national, parts_of
from channels.kind import Callback, Heard, Kind, NotTrue
from channels.loose import form_of, items_of, json_of, time_ms, whole, word
from channels.options import Options
from channels.secret import Secret
from dispatcher.ident import place_of
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.report import Report, ReportStatus, Uplink

ENDPOINT: Final = "https://smsapi.cn-north-4.myhuaweicloud.com"
PATH: Final = "/sms/batchSendDiffSms/v1"
MOST: Final = 500  # numbers of a request
MOST_BYTES: Final = 60_000  # of a request's contents, which may have 64 KiB
CLOCK_S: Final = 900.0  # how far the two clocks may be apart

_ANSWERS: Final = by_code(
    {
        "accepted": "000000",
        # Too many numbers; parameters, template, protocol, signature; a number twice; the format of the request.
        "rejected": """E200015 E200028 E200029 E200030 E200031 E200033 E200034 E200037 E200041 E000000 E000503
            E000510""",
    }
)
#: Headers, keys, passwords, frozen accounts; then: not on the list of addresses, the account's quota.
_AUTH: Final = re.compile(r"E000(?!000)[01]\d\d|E0006[0-2]\d")
_UNREADABLE: Final = Verdict("unknown", "unreadable reply")
_MISSING: Final = Verdict("unknown", "missing in the reply")
_REPORTS: Final[dict[str, ReportStatus]] = {"DELIVRD": "delivered", "ACCEPTD": "sent", "UNKNOWN": "sent"}
_GARBAGE: Final = Heard(status=400)
_SIGNED: Final = re.compile(r"SDK-HMAC-SHA256 Access=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})")


class HuaweiOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sender`: the channel number; `signature` stands in where a template has none, generic templates need one."""

    app_key: str
    app_secret: Secret
    sender: str
    signature: str | None = None


def authorization(
    key: str, secret: str, method: str, path: str, query: Iterable[tuple[str, str]], headers: Mapping[str, str],
    body: bytes,
) -> str:  # fmt: skip
    """The header of SDK-HMAC-SHA256, which signs all `headers`; their names are in lower case, and they hold `host` and
    `x-sdk-date`. A body that `x-sdk-content-sha256` says is unsigned is."""
    names = sorted(headers)
    lines = "".join([f"{name}:{headers[name].strip()}\n" for name in names])
    asked = "&".join([f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query)])
    uri = quote(unquote(path), safe="/~").rstrip("/") + "/"
    payload = headers.get("x-sdk-content-sha256") if body else None
    payload = payload or hashlib.sha256(body).hexdigest()
    whole_ = f"{method}\n{uri}\n{asked}\n{lines}\n{';'.join(names)}\n{payload}"
    digest = hashlib.sha256(whole_.encode()).hexdigest()
    to_sign = f"SDK-HMAC-SHA256\n{headers['x-sdk-date']}\n{digest}"
    signature = hmac.digest(secret.encode(), to_sign.encode(), "sha256").hex()
    return f"SDK-HMAC-SHA256 Access={key}, SignedHeaders={';'.join(names)}, Signature={signature}"


class HuaweiSms:
    """One application of an account.

    Each number has its status. A request that is refused as a whole is for something in one of its messages, as far as
    is known: they are answered `throttled`, and go alone when they come back.
    """

    def __init__(self, provider: str, options: HuaweiOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = (options.url or ENDPOINT).rstrip("/") + PATH
        split = urlsplit(self._url)
        self._host, self._path = split.netloc, split.path
        self._apart = Apart()

    def __repr__(self) -> str:
        return f"HuaweiSms({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        def size(message: Message) -> int:
            return len(_json(self._content(message))) + 1

        return parts_of(messages, lambda _: None, MOST, self._apart, size, MOST_BYTES)

    def _approved(self, message: Message) -> Approved:
        return approved(message, "huawei_sms", self._options.signature)

    def _content(self, message: Message) -> dict[str, Any]:
        found = self._approved(message)
        content = {"to": [message.to], "templateId": found.code, "templateParas": found.values}
        return {**content, "signature": found.signature} if found.signature else content

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        contents = [self._content(message) for message in messages]
        document: dict[str, Any] = {"from": self._options.sender, "smsContent": contents}
        if len(messages) == 1:
            document["extend"] = messages[0].id
        body = _json(document)
        headers = {
            "content-type": "application/json",
            "host": self._host,
            "x-sdk-date": datetime.fromtimestamp(int(now_s), UTC).strftime("%Y%m%dT%H%M%SZ"),
        }
        headers["authorization"] = authorization(
            self._options.app_key, self._options.app_secret.reveal(), "POST", self._path, (), headers, body
        )
        return Request("POST", self._url, headers, body)

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        told = json_of(reply.body)
        code = word(told.get("code"), LONGEST_WORD) if isinstance(told, dict) else None
        results = items_of(told.get("result")) if isinstance(told, dict) else []
        if results:
            by_number = {national(word(item.get("originTo")) or ""): item for item in reversed(results)}
            return [self._receipt(message, by_number.get(national(message.to)), len(messages)) for message in messages]
        answer = _answer(code) if code is not None else None
        if answer in (None, "accepted") and not 200 <= reply.status < 300:
            return receipt_of_status(reply.status, reply.headers, reply.body, now_s).receipts(messages, self._provider)
        if code is None or answer == "accepted":
            return _UNREADABLE.receipts(messages, self._provider)
        return self._refused(messages, Verdict(answer or "rejected", code))

    def _refused(self, messages: Sequence[Message], verdict: Verdict) -> list[Receipt]:
        if len(messages) > 1 and verdict.answer == "rejected":
            self._apart.add([message.id for message in messages])
            verdict = Verdict("throttled", f"in a batch: {verdict.code}", narrow=True)
        return verdict.receipts(messages, self._provider)

    def _receipt(self, message: Message, item: dict[str, Any] | None, count: int) -> Receipt:
        code = word(item.get("status"), LONGEST_WORD) if item is not None else None
        if item is None or code is None:
            return _MISSING.receipt(message.id, self._provider)
        answer = _answer(code) or "rejected"
        if answer != "accepted":
            return Verdict(answer, code).receipt(message.id, self._provider)
        ref = word(item.get("smsMsgId"), LONGEST_WORD)
        find = ref if count > 1 else None  # a single one's report brings our id
        return Receipt(message.id, answer, self._provider, ref, find=find, segments=whole(item.get("total")) or None)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _answer(code: str) -> Answer | None:
    return _ANSWERS.get(code) or ("auth" if _AUTH.fullmatch(code) else None)


class HuaweiCallbacks:
    """Reports come one a request as a form, or up to fifty as JSON; a user's message as a form.

    They are signed where the application says so, which only the request tells: a signature that is there must hold,
    and without one the address is the secret.
    """

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        assert isinstance(options, HuaweiOptions)
        if "authorization" in call.headers and not is_true(call, options.app_key, options.app_secret.reveal()):
            raise NotTrue("Authorization")
        items = _items(call.body)
        if items is None:
            return _GARBAGE
        heard = [_report(provider, item) or _uplink(provider, item) for item in items]
        return Heard([one for one in heard if one is not None])

    uplinks = reports


def is_true(call: Callback, key: str, secret: str) -> bool:
    """Whether the request's signature is the application's, and not older than the clocks may differ."""
    found = _SIGNED.fullmatch(call.headers.get("authorization", ""))
    if found is None:
        return False
    names = found[2].split(";")
    given = f"SDK-HMAC-SHA256 Access={found[1]}, SignedHeaders={found[2]}, Signature={found[3]}"
    try:
        split = urlsplit(call.url)
        known = {**call.headers, "host": split.netloc}
        if "x-sdk-date" not in names or any(name not in known for name in names):
            return False
        at = datetime.strptime(known["x-sdk-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        headers = {name: known[name] for name in names}
        query = parse_qsl(split.query, keep_blank_values=True)
        wanted = authorization(key, secret, call.method, split.path, query, headers, call.body)
        is_theirs = hmac.compare_digest(wanted.encode(), given.encode())
    except ValueError:  # no address, no date, or bytes that are no UTF-8: nothing that was ever signed
        return False
    return is_theirs and abs(at - call.now_s) <= CLOCK_S


def _items(body: bytes) -> list[dict[str, Any]] | None:
    document = json_of(body)
    if isinstance(document, dict):
        reports = document.get("statusReportList")
        return items_of(reports) if isinstance(reports, list) else None
    form: dict[str, Any] = dict(form_of(body))
    return [form] if "smsMsgId" in form else None


def _report(provider: str, item: dict[str, Any]) -> Report | None:
    """Each segment has a report of its own: the message is delivered with its last one, and lost with any of them."""
    ref, code = word(item.get("smsMsgId"), LONGEST_WORD), word(item.get("status"), LONGEST_WORD)
    if ref is None or code is None:
        return None
    extend = word(item.get("extend"))
    ours = extend if extend is not None and place_of(extend) is not None else None
    total = whole(item.get("total"))
    status = _REPORTS.get(code, "undelivered")
    if status == "delivered" and (whole(item.get("sequence")) or 1) < (total or 1):
        status = "sent"
    return Report(
        provider,
        status,
        ours,
        None if ours is not None else ref,
        international(word(item.get("to"))),
        code,
        time_ms(item.get("updateTime")),
        total or None,
    )


def _uplink(provider: str, item: dict[str, Any]) -> Uplink | None:
    sender, text = international(word(item.get("from"))), word(item.get("body"), 4096)
    if sender is None or text is None:
        return None
    at_ms, key = time_ms(item.get("createTime")), word(item.get("smsMsgId")) or ""
    return Uplink(provider, "sms", sender, text, word(item.get("to")) or "", at_ms, key)


def _build(provider: str, options: Options) -> HuaweiSms:
    assert isinstance(options, HuaweiOptions)
    return HuaweiSms(provider, options)


KIND: Final = Kind(options=HuaweiOptions, channels=("sms",), build=_build, most=MOST, callbacks=HuaweiCallbacks())
