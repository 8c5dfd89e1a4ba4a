"""The provider kind `webhook`: any HTTP service that speaks the protocol of the design page `api.md`.

Requests are signed as Standard Webhooks where there is a secret, and so are the reports and uplinks that come back.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, Verdict, bounded_retry_after_s, receipt_of_status
from channels.kind import Kind
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.standard_webhooks import sign, signing_key
from channels.webhook_callbacks import WebhookCallbacks
from dispatcher.kinds import CHANNELS
from dispatcher.message import Message
from dispatcher.receipt import ANSWERS, Answer, Receipt

#: The words a provider may use; `refused` is the dispatcher's own.
_WORDS: Final[dict[str, Answer]] = {word: word for word in ANSWERS if word != "refused"}
_MISSING: Final = Verdict("unknown", "missing in the reply")
_UNREADABLE: Final = Verdict("unknown", "unreadable reply")


class WebhookOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` takes the messages; with a `secret` every request is signed. `reports_by`: what delivery reports name; with
    "id" only our own, no reference has to be kept for them."""

    url: str
    secret: Secret | None = None
    allow_private: bool = False
    reports_by: Literal["ref", "id"] = "ref"


class WireMessage(Struct, gc=False):
    """One message on the wire. `fields` holds what `title`, `text` and `signature` cannot; `extra` is the address's."""

    id: str
    channel: str
    to: str
    type: str
    title: str | None
    text: str | None
    signature: str | None
    params: dict[str, str]
    template: str
    line: str
    fields: dict[str, Any] | UnsetType = UNSET
    extra: dict[str, str] | UnsetType = UNSET


class WireBatch(Struct, gc=False):
    messages: list[WireMessage]


class WireResult(Struct, gc=False):
    """The provider's word on one message, as the protocol has it."""

    id: str
    answer: str
    ref: str | None = None
    code: str | None = None
    retry_after_s: float | None = None


class WireResults(Struct):
    results: list[WireResult]


_HEADERS: Final = {"content-type": "application/json", "user-agent": "dispatcher"}
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(WireResults).decode
_decode_any: Final = msgspec.json.Decoder().decode

_Shown = tuple[str | None, str | None, str | None, dict[str, Any] | UnsetType]


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any] | UnsetType:
    return {name: value for name, value in fields.items() if name not in names} or UNSET


def _sms(fields: dict[str, Any]) -> _Shown:
    return None, fields["text"], fields.get("signature"), UNSET


def _push(fields: dict[str, Any]) -> _Shown:
    return fields["title"], fields["body"], None, _without(fields, "title", "body")


def _email(fields: dict[str, Any]) -> _Shown:
    return fields["subject"], fields.get("text"), None, _without(fields, "subject", "text")


def _other(fields: dict[str, Any]) -> _Shown:
    return None, None, None, fields


#: channel -> title, text, signature and the other fields of a message (`dispatcher.message.Message.fields`).
_SHOWN: Final[dict[str, Callable[[dict[str, Any]], _Shown]]] = {"sms": _sms, "push": _push, "email": _email}


def wire_message(message: Message) -> WireMessage:
    """One message as the provider reads it."""
    title, text, signature, fields = _SHOWN.get(message.channel, _other)(message.fields)
    return WireMessage(
        message.id,
        message.channel,
        message.to,
        message.type,
        title,
        text,
        signature,
        message.params,
        message.template,
        message.line,
        fields,
        message.extra or UNSET,
    )


class Webhook:
    """One provider of kind `webhook`."""

    def __init__(self, provider: str, url: str, key: bytes | None = None, finds: bool = True) -> None:
        self._provider = provider
        self._finds = finds  # whether reports may name the reference
        self._url = url
        self._key = key

    def __repr__(self) -> str:
        return f"Webhook({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        body = _encode(WireBatch([wire_message(message) for message in messages]))
        headers = _HEADERS
        if self._key is not None:
            headers = headers | sign(self._key, batch_id(messages), int(now_s), body)
        return Request("POST", self._url, headers, body)

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        if not 200 <= reply.status < 300:
            verdict = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
            return verdict.receipts(messages, self._provider)
        if not reply.body.strip():
            return Verdict("accepted").receipts(messages, self._provider)
        results = _read_results(reply.body)
        if results is None:
            # Not `rejected`, though the status table says so of unknown codes: a 2xx says that something was taken,
            # and which of the messages it was is just what cannot be read.
            return _UNREADABLE.receipts(messages, self._provider)
        return [self._receipt(message.id, results.get(message.id)) for message in messages]

    def _receipt(self, id_: str, result: WireResult | None) -> Receipt:
        if result is None:
            return Receipt(id_, _MISSING.answer, self._provider, None, _MISSING.code)
        answer = _WORDS.get(result.answer)
        if answer == "accepted":
            ref = _short(result.ref)
            find = ref if self._finds and ref != id_ else None
            return Receipt(id_, "accepted", self._provider, ref, _short(result.code), None, find)
        wait_s = None if result.retry_after_s is None else bounded_retry_after_s(result.retry_after_s)
        code = result.code if answer is not None else result.code or f"unknown answer {result.answer!r}"
        return Receipt(id_, answer or "rejected", self._provider, _short(result.ref), _short(code), wait_s)


def _short(word: str | None) -> str | None:
    return word[:LONGEST_WORD] if word else None


def _read_results(body: bytes) -> dict[str, WireResult] | None:
    """The results by message id, the first word on an id counts; None when the body is not of this protocol."""
    try:
        results = _decode(body).results
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _read_loosely(body)
    results.reverse()
    return {result.id: result for result in results}


def _read_loosely(body: bytes) -> dict[str, WireResult] | None:
    """As `_read_results`, when a part is of the wrong type: a bad result costs only itself."""
    try:
        document = _decode_any(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    items = document.get("results") if isinstance(document, dict) else None
    if not isinstance(items, list):
        return None
    results = [_loose_result(item) for item in items if isinstance(item, dict)]
    results.reverse()
    return {result.id: result for result in results}


def _loose_result(item: dict[str, Any]) -> WireResult:
    wait_s = item.get("retry_after_s")
    return WireResult(
        _word(item.get("id")) or "",
        _word(item.get("answer")) or "",
        _word(item.get("ref")),
        _word(item.get("code")),
        wait_s if isinstance(wait_s, float) else _seconds(wait_s),
    )


def _word(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _seconds(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | str) else None
    except (ValueError, OverflowError):
        return None


def batch_id(messages: Sequence[Message]) -> str:
    """`webhook-id`: the same for the same messages, so that a receiver can tell a repeated request."""
    if len(messages) == 1:
        return messages[0].id
    return "batch_" + hashlib.sha256("\n".join([message.id for message in messages]).encode()).hexdigest()[:32]


def _build(provider: str, options: Options) -> Webhook:
    assert isinstance(options, WebhookOptions)
    key = None
    if options.secret is not None:
        try:
            key = signing_key(options.secret.reveal())
        except ValueError as error:
            raise OptionsError([("options.secret", str(error))]) from None
    return Webhook(provider, options.url, key, options.reports_by == "ref")


KIND: Final = Kind(
    options=WebhookOptions, channels=CHANNELS, build=_build, most=1000, callbacks=WebhookCallbacks()
)
