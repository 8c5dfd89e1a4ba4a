"""The provider kind `wechat`: an official account's template and subscription messages, a mini program's subscription
messages.

Wire facts, codes and their classes: design page `wire.md`, section 13.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, by_code
from channels.errcode import JSON, Account, document_of, verdict_of
from channels.kind import Callback, Heard, Kind, NotTrue
from channels.loose import items_of, word
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.wechat_envelope import Document, decrypt, is_signed, key_of
from channels.wechat_envelope import document_of as posted
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.report import Report, Uplink

ENDPOINT: Final = "https://api.weixin.qq.com"
_PATHS: Final = {
    "template": "/cgi-bin/message/template/send",
    "subscribe": "/cgi-bin/message/subscribe/bizsend",
    "mini": "/cgi-bin/message/subscribe/send",
}
_STALE: Final = frozenset({"40001", "40014", "41001", "42001"})
#: A user who has given no more grants (43101) is reached again once the address is registered anew.
_ANSWERS: Final = by_code(
    {
        "invalid_recipient": "40003 40031 41009 43004 43101 48002 50005 65302",
        "auth": "40001 40013 40014 41001 42001 48001 48004 48008 50001 50002",
        "throttled": "45009 45011",
        "transient": "-1 61450",
        "rejected": "40033 40037 41028 41029 41030 45002 47001 47003",
    }
)
_LONGEST_TEXT: Final = 4096
_THANKS: Final = Heard(body=b"success", content_type="text/plain")
_GARBAGE: Final = Heard(body=b"unreadable", content_type="text/plain", status=400)
_encode: Final = msgspec.json.Encoder().encode


class WechatOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`token` and `encoding_aes_key` are those of the account's message push, for callbacks; with the latter only
    encrypted ones are taken."""

    app_id: str
    app_secret: Secret
    token: Secret | None = None
    encoding_aes_key: Secret | None = None
    product: Literal["template", "subscribe", "mini"] = "template"


class Wechat(Account):
    """One account. A request carries one message."""

    def __init__(self, provider: str, options: WechatOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = (options.url or ENDPOINT).rstrip("/")
        super().__init__(f"{self._url}{_PATHS[options.product]}", _ANSWERS, _STALE)

    def __repr__(self) -> str:
        return f"Wechat({self._provider!r})"

    # -- access token (`channels.adapter.Tokened`)

    def token_request(self, now_s: float) -> Request:
        """The stable token: asking for it takes none away from others who use the account."""
        body = {
            "grant_type": "client_credential",
            "appid": self._options.app_id,
            "secret": self._options.app_secret.reveal(),
            "force_refresh": False,
        }
        return Request("POST", f"{self._url}/cgi-bin/stable_token", JSON, _encode(body))

    # -- messages

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        message = messages[0]
        fields, product = message.fields, self._options.product
        body: dict[str, Any] = {"touser": message.to, "template_id": fields["template_id"]}
        if url := fields.get("url"):
            body["url" if product == "template" else "page"] = url
        if product == "template":
            body["client_msg_id"] = message.id  # a repeated one is not delivered again within ten minutes
        if product == "mini":
            body |= {"miniprogram_state": "formal", "lang": "zh_CN"}
        body["data"] = {
            name: value if isinstance(value, dict) else {"value": value} for name, value in fields["data"].items()
        }
        return Request("POST", self._send_url, JSON, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document_of(reply)
        verdict = verdict_of(reply, found, _ANSWERS, now_s)
        if verdict.answer != "accepted":
            return verdict.receipts(messages, self._provider)
        ref = word(found.get("msgid"), LONGEST_WORD)
        return [Receipt(message.id, "accepted", self._provider, ref, find=ref) for message in messages]


class WechatCallbacks:
    """Reports and users' messages come to one address, which may be either of ours."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        assert isinstance(options, WechatOptions)
        token, query = options.token.reveal() if options.token is not None else "", call.query
        stamp, nonce = query.get("timestamp", ""), query.get("nonce", "")
        if not token or not is_signed(query.get("signature"), token, stamp, nonce):
            raise NotTrue
        if call.method == "GET":  # the vendor asks whether somebody is here
            return Heard(body=query.get("echostr", "").encode("utf-8", "replace"), content_type="text/plain")
        document = posted(call.body)
        if options.encoding_aes_key is not None:
            key = key_of(options.encoding_aes_key.reveal())
            document = _opened(key, document, call, options.app_id, (token, stamp, nonce))
        if document is None:
            return _GARBAGE
        items = _reports(provider, document) if word(document.get("MsgType")) == "event" else _texts(provider, document)
        return Heard(items, _THANKS.body, _THANKS.content_type)

    uplinks = reports


def _opened(
    key: bytes, document: Document | None, call: Callback, app_id: str, signed: tuple[str, str, str]
) -> Document | None:
    encrypted = document.get("Encrypt") if document is not None else None
    if not isinstance(encrypted, str) or not is_signed(call.query.get("msg_signature"), *signed, encrypted):
        raise NotTrue
    try:
        return posted(decrypt(key, encrypted, app_id))
    except ValueError:
        raise NotTrue from None


def _reports(provider: str, document: Document) -> list[Report]:
    event = word(document.get("Event"))
    if event == "TEMPLATESENDJOBFINISH":
        status = word(document.get("Status"))
        return _report(provider, document, document.get("MsgID"), status == "success", status)
    if event != "subscribe_msg_sent_event":
        return []
    inner = document.get("SubscribeMsgSentEvent", document)
    listed = inner.get("List") if isinstance(inner, dict) else None
    return [
        report
        for item in items_of(listed if isinstance(listed, list) else [listed])
        for report in _report(provider, document, item.get("MsgID"), _is_zero(item), word(item.get("ErrorCode")))
    ]


def _is_zero(item: Document) -> bool:
    return word(item.get("ErrorCode")) == "0"


def _report(provider: str, document: Document, id_: Any, delivered: bool, code: str | None) -> list[Report]:
    find = word(id_, LONGEST_WORD)
    if find is None or code is None:
        return []
    to, at_ms = word(document.get("FromUserName")), _at_ms(document)
    if delivered:
        return [Report(provider, "delivered", find=find, to=to, at_ms=at_ms)]
    return [Report(provider, "undelivered", find=find, to=to, code=code, at_ms=at_ms)]


def _texts(provider: str, document: Document) -> list[Uplink]:
    sender, text = word(document.get("FromUserName")), word(document.get("Content"), _LONGEST_TEXT)
    if word(document.get("MsgType")) != "text" or sender is None or text is None:
        return []
    to, at_ms = word(document.get("ToUserName")) or "", _at_ms(document)
    key = word(document.get("MsgId")) or f"{sender} {at_ms}"
    return [Uplink(provider, "wechat", sender, text, to, at_ms, key)]


def _at_ms(document: Document) -> int:
    """`CreateTime`, epoch seconds."""
    text = word(document.get("CreateTime")) or ""
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) <= 11 else 0


def _build(provider: str, options: Options) -> Wechat:
    assert isinstance(options, WechatOptions)
    if options.encoding_aes_key is not None:
        try:
            key_of(options.encoding_aes_key.reveal())
        except ValueError as error:
            raise OptionsError([("options.encoding_aes_key", str(error))]) from None
    return Wechat(provider, options)


KIND: Final = Kind(options=WechatOptions, channels=("wechat",), build=_build, callbacks=WechatCallbacks())
