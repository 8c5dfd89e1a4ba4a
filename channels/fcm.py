"""The provider kind `fcm`: Firebase Cloud Messaging, HTTP v1.

Source: design page `wire.md`, section 7; firebase-admin 7.7 encodes the same JSON (tests compare). Token: a JWT signed
with the service account's key (RFC 7523), for an hour.
"""

import base64
import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from channels.adapter import Reply, Request, Token
from channels.answers import Verdict, by_code
from channels.kind import Kind
from channels.oauth import FORM, token_of
from channels.options import Options, OptionsError, url_faults
from channels.push import document, extras, inner, jump_of, life_s, text_of, verdict_of
from channels.secret import Secret
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.receipt import Receipt

_URL: Final = "https://fcm.googleapis.com"
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
_SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LONGEST_LIFE_S: Final = 28 * 86_400
#: A vendor that names no time is left alone for so long when a quota is used up.
_QUOTA_S: Final = 60.0
#: A Firebase installation id, which 2026's SDKs prefer to registration tokens: 22 characters of base64url that begin
#: with the bits 0111. Tokens are far longer.
_FID: Final = re.compile(r"[cdef][\w-]{21}", re.ASCII)

#: The word of `error.details[].errorCode`, else of `error.status`. `INVALID_ARGUMENT` is looked at more closely.
_WORDS: Final = by_code({
    "invalid_recipient": "UNREGISTERED SENDER_ID_MISMATCH",
    "rejected": "INVALID_ARGUMENT",
    "throttled": "QUOTA_EXCEEDED RESOURCE_EXHAUSTED",
    "transient": "UNAVAILABLE INTERNAL",
    "auth": "THIRD_PARTY_AUTH_ERROR APNS_AUTH_ERROR UNAUTHENTICATED PERMISSION_DENIED",
})
#: Ours is not good any more, or Google thinks so.
_STALE: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})


class FcmOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`service_account`: the JSON file that the Firebase console gives. `project_id`: when not the one it names."""

    service_account: Secret
    project_id: str | None = None


class _Account(msgspec.Struct):
    """A service account's file, as far as it is read."""

    client_email: str
    private_key: str
    project_id: str = ""
    private_key_id: str = ""
    token_uri: str = _TOKEN_URL

    def __repr__(self) -> str:
        return "_Account()"


_encode: Final = msgspec.json.Encoder().encode


class Fcm:
    """One project. A request carries one message: the vendor has no other."""

    def __init__(self, provider: str, url: str, account: _Account, key: RSAPrivateKey) -> None:
        self._provider = provider
        self._url = f"{url}/v1/projects/{quote(account.project_id, safe='')}/messages:send"
        self._account = account
        self._key = key
        self._authorization = ""

    def __repr__(self) -> str:
        return f"Fcm({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        headers = {
            "authorization": self._authorization,
            "content-type": "application/json",
            "user-agent": "dispatcher",
        }
        return Request("POST", self._url, headers, _encode({"message": wire_message(messages[0], now_s)}))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document(reply.body)
        if reply.status == 200 and isinstance(found.get("name"), str):
            return [Receipt(m.id, "accepted", self._provider, text_of(found["name"])) for m in messages]
        return _verdict(reply, found, now_s).receipts(messages, self._provider)

    # -- the access token

    def token_request(self, now_s: float) -> Request:
        form = {"grant_type": _GRANT, "assertion": self._assertion(int(now_s))}
        return Request("POST", self._account.token_uri, FORM, urlencode(form).encode())

    def token_of(self, reply: Reply, now_s: float) -> Token:
        return token_of(reply, now_s)

    def use(self, token: str) -> None:
        self._authorization = f"Bearer {token}"

    def is_stale(self, reply: Reply) -> bool:
        return reply.status in (401, 403) and _word_of(document(reply.body)) in _STALE

    def _assertion(self, now_s: int) -> str:
        account = self._account
        head = {"alg": "RS256", "typ": "JWT"} | ({"kid": account.private_key_id} if account.private_key_id else {})
        claims = {
            "iss": account.client_email,
            "scope": _SCOPE,
            "aud": account.token_uri,
            "iat": now_s,
            "exp": now_s + 3600,
        }
        signed = b".".join([_base64(_encode(head)), _base64(_encode(claims))])
        return b".".join([signed, _base64(self._key.sign(signed, PKCS1v15(), SHA256()))]).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def wire_message(message: Message, now_s: float) -> dict[str, Any]:
    """One message as FCM reads it. The tag and the collapse id are our message id: a repeated notification replaces
    the first."""
    life = life_s([message], now_s, _LONGEST_LIFE_S)
    kind, url = jump_of(message)
    wire: dict[str, Any] = {
        "fid" if _FID.fullmatch(message.to) else "token": message.to,
        "notification": {"title": message.fields["title"], "body": message.fields["body"]},
        "data": extras([message]),
        "android": {
            "priority": "normal" if message.lane == BULK else "high",
            "ttl": f"{life}s",
            "notification": {"tag": message.id},
        },
        "apns": {
            "headers": {
                "apns-collapse-id": message.id,
                "apns-expiration": str(int(now_s) + life),
                "apns-priority": "5" if message.lane == BULK else "10",
            }
        },
    }
    if kind == "h5" and url.startswith("https://"):  # the only ones it takes
        wire["webpush"] = {"fcm_options": {"link": url}}
    return wire


def _word_of(found: dict[str, Any]) -> str:
    error = inner(found, "error")
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        code = text_of(inner(detail).get("errorCode"))
        if code:
            return code
    return text_of(error.get("status"))


def _verdict(reply: Reply, found: dict[str, Any], now_s: float) -> Verdict:
    verdict = verdict_of(reply, _word_of(found), _WORDS, now_s)
    if verdict.code == "INVALID_ARGUMENT" and _speaks_of_the_token(found):
        return Verdict("invalid_recipient", verdict.code)
    if verdict.answer == "throttled" and verdict.retry_after_s is None:
        return Verdict("throttled", verdict.code, _QUOTA_S)
    return verdict


def _speaks_of_the_token(found: dict[str, Any]) -> bool:
    """Whether it is the address that is wrong, and no field of the message."""
    error = inner(found, "error")
    details = error.get("details")
    violations = [inner(detail).get("fieldViolations") for detail in details] if isinstance(details, list) else []
    return not any(violations) and "registration token" in text_of(error.get("message")).lower()


def _build(provider: str, options: Options) -> Fcm:
    assert isinstance(options, FcmOptions)
    path = "options.service_account"
    try:
        account = msgspec.json.decode(options.service_account.reveal(), type=_Account)
        key = load_pem_private_key(account.private_key.encode(), None)
    except (msgspec.MsgspecError, ValueError, TypeError, UnsupportedAlgorithm):  # their texts may show what it holds
        raise OptionsError([(path, "must hold a service account's JSON, with `client_email`, `private_key`")]) from None
    if not isinstance(key, RSAPrivateKey):
        raise OptionsError([(path, "`private_key` must be an RSA key")])
    if url_faults(account.token_uri, allow_private=True):
        raise OptionsError([(path, "`token_uri` must be an http or https URL")])
    account.project_id = options.project_id or account.project_id
    if not account.project_id:
        raise OptionsError([("options.project_id", "is required: the service account names none")])
    return Fcm(provider, (options.url or _URL).rstrip("/"), account, key)


KIND: Final = Kind(options=FcmOptions, channels=("push",), build=_build)
