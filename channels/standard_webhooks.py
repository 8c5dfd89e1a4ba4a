"""Signatures of Standard Webhooks 1.0.0 (standard-webhooks/standard-webhooks, spec/standard-webhooks.md): HMAC-SHA256
over `id.timestamp.body` with the base64 part of `whsec_...` as the key."""

import base64
import binascii
import hmac
from collections.abc import Mapping


def signing_key(secret: str) -> bytes:
    """The key behind `whsec_<base64>`. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must hold `whsec_` and base64") from None
    if not key:
        raise ValueError("must hold `whsec_` and base64, not an empty key")
    return key


def signature(key: bytes, id_: str, timestamp: str, body: bytes) -> str:
    """`v1,<base64>` over the exact bytes sent."""
    signed = b"%s.%s.%s" % (id_.encode("utf-8", "surrogatepass"), timestamp.encode(), body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def sign(key: bytes, id_: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed request."""
    timestamp = str(timestamp_s)
    return {
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(key, id_, timestamp, body),
    }


def is_signed(key: bytes, headers: Mapping[str, str], body: bytes, now_s: float, tolerance_s: float = 300.0) -> bool:
    """Whether a request's signature holds and is no older than `tolerance_s`; header names are in lower case."""
    id_, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id_ or not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
        return False
    if abs(int(timestamp) - now_s) > tolerance_s:
        return False
    wanted = signature(key, id_, timestamp, body).encode()
    given = headers.get("webhook-signature", "").encode("utf-8", "surrogatepass").split()
    return any(hmac.compare_digest(wanted, one) for one in given)
