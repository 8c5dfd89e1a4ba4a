"""The provider kind `huawei_push`: Huawei Push Kit, v1 (Android and HMS).

Source: design page `wire.md`, section 11.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from channels.adapter import Reply, Request, Token
from channels.answers import Verdict, by_code
from channels.kind import Callback, Heard, Kind, NotTrue
from channels.loose import items_of
from channels.oauth import FORM, token_of
from channels.options import Options
from channels.push import (
    alike,
    document,
    find_of,
    inner,
    intent_of,
    jump_of,
    life_s,
    milliseconds,
    report,
    tag_of,
    text_of,
    verdict_of,
)
from channels.secret import Secret
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.report import Report, ReportStatus

_URL: Final = "https://push-api.cloud.huawei.com"
_TOKEN_URL: Final = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
_MOST: Final = 1000  # tokens a request
_LONGEST_LIFE_S: Final = 15 * 86_400
#: A callback's signature covers the time and not the body, so an old one is worth nothing.
_OLDEST_CALL_S: Final = 900.0

_ACCEPTED: Final = "80000000"
_PARTIAL: Final = "80100000"
_STALE: Final = frozenset({"80200001", "80200003", "80200005"})
#: `code` of a reply; a code outside goes by the HTTP status. 80300002, "no permission", is as often a setting of the
#: application as the token's, so it kills no address.
_CODES: Final = by_code({
    "invalid_recipient": "80300007",  # all tokens
    "auth": "80200001 80200003 80200005",
    "rejected": "80100001 80100003 80300002 80300008 80300010",
    "transient": "81000001",
})
#: Why a token was left out of a partial success: these say that it will never work; the others speak of the account.
_DEAD: Final = frozenset({"tokenFormatError", "noRight", "tokenPlatformNotSupport"})
#: `status` of a receipt -> status, and whether the token will never work. Any other is `undelivered`.
_STATUSES: Final[dict[str, tuple[ReportStatus, bool]]] = {
    "0": ("delivered", False),
    "2": ("undelivered", True),  # not installed
    "5": ("undelivered", True),  # the token is not on the device
    "27": ("sent", False),  # kept for when the device is there
}


class HuaweiPushOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`token_url`: where access tokens are asked for, below `url` when only that is given. With a `callback_key`
    receipts must be signed with it, in the name of `callback_user`."""

    app_id: str
    app_secret: Secret
    token_url: str | None = None
    callback_user: str = ""
    callback_key: Secret | None = None


_encode: Final = msgspec.json.Encoder().encode


class HuaweiPush:
    """One application. A request carries one content for many tokens."""

    def __init__(self, provider: str, options: HuaweiPushOptions) -> None:
        self._provider = provider
        self._options = options
        url = (options.url or _URL).rstrip("/")
        self._url = f"{url}/v1/{quote(options.app_id, safe='')}/messages:send"
        self._token_url = options.token_url or (f"{url}/oauth2/v3/token" if options.url else _TOKEN_URL)
        self._authorization = ""

    def __repr__(self) -> str:
        return f"HuaweiPush({self._provider!r})"

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        return alike(messages, _MOST)

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        headers = {
            "authorization": self._authorization,
            "content-type": "application/json",
            "user-agent": "dispatcher",
        }
        body = {"validate_only": False, "message": wire_message(messages, now_s)}
        return Request("POST", self._url, headers, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document(reply.body)
        code, ref = text_of(found.get("code")), text_of(found.get("requestId"))
        if reply.status == 200 and code == _ACCEPTED:
            return [self._accepted(messages, message, ref) for message in messages]
        if reply.status == 200 and code == _PARTIAL:
            return self._partial(messages, ref, _left_out(found.get("msg")))
        return _verdict(reply, code, now_s).receipts(messages, self._provider)

    def _accepted(self, messages: Sequence[Message], message: Message, ref: str) -> Receipt:
        find = find_of(ref, message.to) if len(messages) > 1 and ref else None  # alone, the report names our id
        return Receipt(message.id, "accepted", self._provider, ref or None, find=find)

    def _partial(self, messages: Sequence[Message], ref: str, left_out: Mapping[str, str] | None) -> list[Receipt]:
        if left_out is None:  # some were taken, and nobody knows which
            return Verdict("unknown", _PARTIAL).receipts(messages, self._provider)
        receipts = []
        for message in messages:
            why = left_out.get(message.to)
            if why is None:
                receipts.append(self._accepted(messages, message, ref))
            else:
                answer: Answer = "invalid_recipient" if why in _DEAD else "rejected"
                receipts.append(Receipt(message.id, answer, self._provider, ref or None, why))
        return receipts

    # -- the access token

    def token_request(self, now_s: float) -> Request:
        options = self._options
        form = {
            "grant_type": "client_credentials",
            "client_id": options.app_id,
            "client_secret": options.app_secret.reveal(),
        }
        return Request("POST", self._token_url, FORM, urlencode(form).encode())

    def token_of(self, reply: Reply, now_s: float) -> Token:
        return token_of(reply, now_s)

    def use(self, token: str) -> None:
        self._authorization = f"Bearer {token}"

    def is_stale(self, reply: Reply) -> bool:
        return reply.status == 401 or text_of(document(reply.body).get("code")) in _STALE


def wire_message(messages: Sequence[Message], now_s: float) -> dict[str, Any]:
    """One content for the tokens of all. With the same tag a repeated notification replaces the first; what the
    receipts bring back, `bi_tag`, is the id of a message that is alone."""
    first = messages[0]
    title, body = first.fields["title"], first.fields["body"]
    android: dict[str, Any] = {
        "urgency": "NORMAL" if first.lane == BULK else "HIGH",
        "ttl": f"{life_s(messages, now_s, _LONGEST_LIFE_S)}s",
        "notification": {"title": title, "body": body, "tag": tag_of(messages), "click_action": _click(first)},
    }
    if len(messages) == 1:
        android["bi_tag"] = first.id
    return {
        "notification": {"title": title, "body": body},
        "android": android,
        "token": [message.to for message in messages],
    }


def _click(message: Message) -> dict[str, Any]:
    kind, url = jump_of(message)
    if kind == "h5":
        return {"type": 2, "url": url}
    return {"type": 1, "intent": intent_of(url)} if kind == "native" else {"type": 3}


def _left_out(message: object) -> dict[str, str] | None:
    """token -> why, of a partial success: `{"illegal_tokens": [...]}`, or `{"illegalTokens": {why: [...]}}`. None when
    it does not say."""
    told = document(message.encode(errors="replace")) if isinstance(message, str) else inner(message)
    tokens = told.get("illegal_tokens")
    groups = {"tokenFormatError": tokens} if isinstance(tokens, list) else told.get("illegalTokens")
    if not isinstance(groups, dict):
        return None
    return {
        token: text_of(why)
        for why, some in groups.items()
        if isinstance(some, list)
        for token in some
        if isinstance(token, str)
    }


def _verdict(reply: Reply, code: str, now_s: float) -> Verdict:
    verdict = verdict_of(reply, code, _CODES, now_s)
    if reply.status == 503 and code not in _CODES:  # its flow control
        return Verdict("throttled", verdict.code, verdict.retry_after_s)
    return verdict


class HuaweiPushCallbacks:
    """Receipts, up to 100 a call."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        assert isinstance(options, HuaweiPushOptions)
        if options.callback_key is not None and not _is_signed(call, options.callback_user, options.callback_key):
            raise NotTrue
        statuses = document(call.body).get("statuses")
        if not isinstance(statuses, list):
            return Heard(body=b'{"code":"1","message":"unreadable"}', status=400)
        reports = [_report(provider, item) for item in items_of(statuses)]
        return Heard(reports, b'{"code":"0","message":"success"}')

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        return Heard(status=404)


def signature(timestamp: str, nonce: str, user: str, key: str) -> str:
    """`value` of the header `X-HUAWEI-CALLBACK-ID`."""
    signed = f"{timestamp}{nonce}{user}".encode(errors="replace")
    return base64.b64encode(hmac.digest(key.encode(), signed, "sha256")).decode()


def _is_signed(call: Callback, user: str, key: Secret) -> bool:
    parts = [part.partition("=") for part in call.headers.get("x-huawei-callback-id", "").split(";")]
    found = {name.strip(): value.strip() for name, _, value in parts}
    timestamp = found.get("timestamp", "")
    wanted = signature(timestamp, found.get("nonce", ""), user, key.reveal())
    if not hmac.compare_digest(wanted.encode(), found.get("value", "").encode(errors="replace")):
        return False
    return abs(milliseconds(timestamp) / 1000 - call.now_s) <= _OLDEST_CALL_S


def _report(provider: str, item: dict[str, Any]) -> Report:
    code, ref, token = (text_of(item.get(name)) for name in ("status", "requestId", "token"))
    said = _STATUSES.get(code, ("undelivered", False))
    return report(provider, said, item.get("biTag"), ref, token, code, item.get("timestamp"))


def _build(provider: str, options: Options) -> HuaweiPush:
    assert isinstance(options, HuaweiPushOptions)
    return HuaweiPush(provider, options)


KIND: Final = Kind(
    options=HuaweiPushOptions, channels=("push",), build=_build, most=_MOST, callbacks=HuaweiPushCallbacks()
)
