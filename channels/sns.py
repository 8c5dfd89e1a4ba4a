"""What Amazon SNS posts to an HTTPS subscription: signed envelopes with delivery events and users' messages inside.

Source: docs.aws.amazon.com, SNS developer guide, "Verifying the signatures of Amazon SNS messages"; End User Messaging
SMS user guide, "Event format" and "Two-way SMS payload"; design page `wire.md`, section 5.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509 import load_pem_x509_certificate

from channels.answers import LONGEST_WORD
from channels.aws import AwsOptions
from channels.kind import Callback, Heard, Missing, NotTrue
from channels.options import Options
from dispatcher.ident import place_of
from dispatcher.report import Report, ReportStatus, Uplink

#: The name of our message id in an event's `context`.
CONTEXT_KEY: Final = "message"

_CONFIRMATIONS: Final = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
#: Type -> the names whose values are signed, in this order, those that are there.
_SIGNED: Final[dict[str, tuple[str, ...]]] = {
    "Notification": _NOTIFICATION,
    **dict.fromkeys(_CONFIRMATIONS, ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")),
}
_HASHES: Final = {"1": SHA1, "2": SHA256}
_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,32}\.amazonaws\.com")
_PAGE: Final = re.compile(r"/[A-Za-z0-9_-]{1,200}\.pem")
_LONGEST_TEXT: Final = 4_096
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_REFUSED: Final = Heard(status=400, content_type="text/plain")
_HEARD: Final = Heard(content_type="text/plain")

#: Events that say more than that the message waits (TEXT_QUEUED, TEXT_PENDING). A failure that is not final, and one
#: that nobody knows more of after 72 hours, is no more than `sent`.
_EVENTS: Final[dict[str, ReportStatus]] = {
    "TEXT_SENT": "sent",
    "TEXT_SUCCESSFUL": "sent",
    "TEXT_UNKNOWN": "sent",
    "TEXT_DELIVERED": "delivered",
    "TEXT_BLOCKED": "undelivered",
    "TEXT_CARRIER_BLOCKED": "undelivered",
    "TEXT_CARRIER_UNREACHABLE": "undelivered",
    "TEXT_INVALID": "undelivered",
    "TEXT_INVALID_MESSAGE": "undelivered",
    "TEXT_PROTECT_BLOCKED": "undelivered",
    "TEXT_SPAM": "undelivered",
    "TEXT_TTL_EXPIRED": "undelivered",
    "TEXT_UNREACHABLE": "undelivered",
}
_DEAD: Final = "TEXT_INVALID"

_decode: Final = msgspec.json.Decoder().decode


class SnsCallbacks:
    """Reports and uplinks come as the topic is set up, to one address or to two, so both addresses take both."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        """Delivery events of a configuration set."""
        return _heard(provider, call, options)

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        """Messages to a two-way number."""
        return _heard(provider, call, options)


CALLBACKS: Final = SnsCallbacks()


def _heard(provider: str, call: Callback, options: Options) -> Heard:
    envelope = _object(call.body)
    if envelope is None:
        return _REFUSED
    signed = {name: value for name, value in envelope.items() if isinstance(value, str)}
    assert isinstance(options, AwsOptions)
    if options.topic_arn is not None and signed.get("TopicArn") != options.topic_arn:
        raise NotTrue
    page = signed.get("SigningCertURL", "")
    if not _is_of_sns(page, _PAGE):
        raise NotTrue
    pinned = options.signing_certificate
    certificate = call.fetched.get(page) if pinned is None else pinned.encode()
    if certificate is None:
        raise Missing(page)
    if not is_true(signed, certificate):
        raise NotTrue
    if signed["Type"] == "Notification":
        item = _item(provider, signed)
        return _HEARD if item is None else Heard([item], content_type="text/plain")
    return _confirmation(signed)


def _confirmation(envelope: Mapping[str, str]) -> Heard:
    """A subscription is confirmed; the end of one, which offers to begin it anew, is only heard."""
    url = envelope.get("SubscribeURL", "")
    if envelope["Type"] != "SubscriptionConfirmation":
        return _HEARD
    return Heard(content_type="text/plain", visit=url) if _is_of_sns(url, None) else _REFUSED


def is_true(envelope: Mapping[str, str], certificate: bytes) -> bool:
    """Whether the envelope's signature is by the key of this certificate (PEM); the caller knows that it is SNS's."""
    names, hash_ = _SIGNED.get(envelope.get("Type", "")), _HASHES.get(envelope.get("SignatureVersion", ""))
    if names is None or hash_ is None:
        return False
    text = "".join([f"{name}\n{envelope[name]}\n" for name in names if name in envelope])
    try:
        signature = base64.b64decode(envelope.get("Signature", ""), validate=True)
        key = load_pem_x509_certificate(certificate).public_key()
        if not isinstance(key, RSAPublicKey):
            return False
        key.verify(signature, text.encode(), PKCS1v15(), hash_())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _is_of_sns(url: str, page: re.Pattern[str] | None) -> bool:
    """Whether a URL is on a host of SNS, and its path one of these pages'."""
    try:
        split = urlsplit(url)
    except ValueError:
        return False
    if split.scheme != "https" or not _HOST.fullmatch(split.netloc) or not url.isascii() or any(c <= " " for c in url):
        return False
    return page is None or (page.fullmatch(split.path) is not None and url.endswith(split.path))


def _item(provider: str, envelope: Mapping[str, str]) -> Report | Uplink | None:
    told = _object(envelope.get("Message", ""))
    if told is None:
        return None
    if "eventType" in told:
        return _report(provider, told)
    return _uplink(provider, told, _moment_ms(envelope.get("Timestamp", "")))


def _report(provider: str, event: Mapping[str, Any]) -> Report | None:
    type_ = event["eventType"]
    status = _EVENTS.get(type_) if isinstance(type_, str) else None
    context = event.get("context")
    id_ = _word(context.get(CONTEXT_KEY)) if isinstance(context, dict) else None
    if id_ is not None and place_of(id_) is None:
        id_ = None
    find = _word(event.get("messageId")) if id_ is None else None
    if status is None or (id_ or find) is None:
        return None
    final = event.get("isFinal") is True
    if status == "undelivered" and not final:
        status = "sent"
    price = _amount(event.get("totalMessagePrice"))
    fee = _amount(event.get("totalCarrierFee"))
    parts = _amount(event.get("totalMessageParts"))
    return Report(
        provider,
        status,
        id_,
        find,
        _word(event.get("destinationPhoneNumber")),
        _word(type_),
        int(_amount(event.get("eventTimestamp")) or 0),
        int(parts) if parts else None,
        None if price is None else price + (fee or 0.0),
        dead=final and type_ == _DEAD,
    )


def _uplink(provider: str, told: Mapping[str, Any], at_ms: int) -> Uplink | None:
    sender, text = _word(told.get("originationNumber")), told.get("messageBody")
    if sender is None or not isinstance(text, str):
        return None
    to, key = _word(told.get("destinationNumber")), _word(told.get("inboundMessageId"))
    return Uplink(provider, "", sender, text[:_LONGEST_TEXT], to or "", at_ms, key or "")


def _object(body: bytes | str) -> dict[str, Any] | None:
    try:
        found = _decode(body)
    except _UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def _word(value: Any) -> str | None:
    return value[:LONGEST_WORD] or None if isinstance(value, str) else None


def _amount(value: Any) -> float | None:
    """A number that is no nonsense."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 and isfinite(value) and value >= 0 else None


def _moment_ms(value: str) -> int:
    try:
        return max(0, round(datetime.fromisoformat(value).timestamp() * 1000))
    except (ValueError, OverflowError):
        return 0
