"""One message as Apple reads it, and what its answers mean. Pure.

Source: design page `wire.md`, section 8.
"""

import re
import uuid
from typing import Any, Final

import msgspec
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from msgspec import Struct

from channels.adapter import Reply
from channels.answers import Verdict, by_code
from channels.push import document, extras, life_s, text_of, verdict_of
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.receipt import Receipt

Header = tuple[bytes, bytes]

_TOKEN: Final = re.compile("(?:[0-9A-Fa-f]{2}){8,100}")
_LARGEST_BYTES: Final = 4_096
_LONGEST_LIFE_S: Final = 30 * 86_400
#: Names the ids that Apple knows our messages by; drawn once, means nothing.
_NAMESPACE: Final = uuid.UUID("6f0c7f0e-6f5e-4c1b-9d52-0f4d6c1c7a11")

EXPIRED: Final = "ExpiredProviderToken"
REASONS: Final = by_code({
    "invalid_recipient": "Unregistered ExpiredToken BadDeviceToken DeviceTokenNotForTopic MissingDeviceToken",
    "throttled": "TooManyRequests TooManyProviderTokenUpdates",
    "auth": "ExpiredProviderToken InvalidProviderToken MissingProviderToken BadCertificate BadCertificateEnvironment "
    "Forbidden UnrelatedKeyIdInToken BadEnvironmentKeyIdInToken TopicDisallowed",
    "rejected": "BadCollapseId BadExpirationDate BadMessageId BadPriority BadTopic DuplicateHeaders InvalidPushType "
    "MissingTopic PayloadEmpty BadPath MethodNotAllowed PayloadTooLarge",
    "transient": "IdleTimeout InternalServerError ServiceUnavailable Shutdown",
})


class Push(Struct, frozen=True, gc=False):
    """Headers but the token, and the body."""

    headers: list[Header]
    body: bytes


def push(message: Message, authority: str, scheme: str, topic: str, now_s: float) -> Push | Verdict:
    """The request for one message, or why there can be none. With our message id as its collapse id a repeated
    notification replaces the first."""
    if not _TOKEN.fullmatch(message.to):
        return Verdict("invalid_recipient", "BadDeviceToken")
    body = msgspec.json.encode(payload(message))
    if len(body) > _LARGEST_BYTES:
        return Verdict("rejected", "PayloadTooLarge")
    expires_s = int(now_s) + life_s([message], now_s, _LONGEST_LIFE_S)
    # What differs between requests stays out of the compression's table, as Apple asks.
    return Push(
        [
            HeaderTuple(b":method", b"POST"),
            HeaderTuple(b":scheme", scheme.encode()),
            HeaderTuple(b":authority", authority.encode()),
            NeverIndexedHeaderTuple(b":path", f"/3/device/{message.to}".encode()),
            NeverIndexedHeaderTuple(b"apns-id", apns_id(message).encode()),
            NeverIndexedHeaderTuple(b"apns-collapse-id", message.id.encode()),
            NeverIndexedHeaderTuple(b"apns-expiration", str(expires_s).encode()),
            HeaderTuple(b"apns-topic", topic.encode()),
            HeaderTuple(b"apns-push-type", b"alert"),
            HeaderTuple(b"apns-priority", b"5" if message.lane == BULK else b"10"),
        ],
        body,
    )


def payload(message: Message) -> dict[str, Any]:
    """The body: what is shown, and beside it what the app learns (`channels.push`)."""
    alert = {"title": message.fields["title"], "body": message.fields["body"]}
    return {"aps": {"alert": alert}, **extras([message])}


def apns_id(message: Message) -> str:
    """The UUID that Apple knows the message by, the same for every attempt."""
    return str(uuid.uuid5(_NAMESPACE, message.id))


def authorization(token: bytes) -> Header:
    """As a header that intermediaries keep out of their tables too."""
    return NeverIndexedHeaderTuple(b"authorization", token)


def reason_of(reply: Reply) -> str:
    """Apple's word for why not; empty when there is none."""
    return text_of(document(reply.body).get("reason"))


def receipt(message: Message, reply: Reply, provider: str, now_s: float) -> Receipt:
    """What the answer means for the message. There will be no delivery report."""
    if reply.status == 200:
        return Receipt(message.id, "accepted", provider, apns_id(message))
    verdict = verdict_of(reply, reason_of(reply), REASONS, now_s)
    if verdict.code == "TooManyRequests":  # to this device
        verdict = msgspec.structs.replace(verdict, narrow=True)
    return verdict.receipt(message.id, provider)
