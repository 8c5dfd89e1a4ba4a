"""The provider kind `dingtalk`: a chat group's robot.

Wire facts, codes and their classes: design page `wire.md`, section 14.
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote_plus

import msgspec

from channels.adapter import Reply, Request
from channels.answers import Verdict, by_code
from channels.errcode import JSON, document_of, verdict_of
from channels.kind import Kind
from channels.loose import word
from channels.options import Options, SecretUrl
from channels.robot import body_of, text_of
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Receipt

_ANSWERS: Final = by_code(
    {
        "throttled": "130101",
        "auth": "300001 310000 400013 400101",
        "transient": "-1",
        "rejected": "40035",
    }
)
_TOO_FAST: Final = "130101"
_BLOCKED_S: Final = 600.0  # more than 20 a minute, and the robot is silent for so long
_UNSAFE: Final = "310000"  # the signature, the sender's address, or a keyword that is missing
_encode: Final = msgspec.json.Encoder().encode


class DingtalkOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` is the robot's, with its access token; `secret` is there when the robot wants signatures."""

    url: SecretUrl
    secret: Secret | None = None


def signature(secret: str, timestamp_ms: int) -> str:
    """HMAC-SHA256 of timestamp and secret under the secret, base64."""
    signed = f"{timestamp_ms}\n{secret}".encode()
    return base64.b64encode(hmac.digest(secret.encode(), signed, "sha256")).decode()


class Dingtalk:
    """One robot. A request carries one message."""

    def __init__(self, provider: str, options: DingtalkOptions) -> None:
        self._provider = provider
        self._url = options.url
        self._secret = options.secret

    def __repr__(self) -> str:
        return f"Dingtalk({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        body = body_of(messages[0], "msgtype") or {"msgtype": "text", "text": {"content": text_of(messages[0])}}
        url = self._url
        if self._secret is not None:
            now_ms = int(now_s * 1000)
            sign = quote_plus(signature(self._secret.reveal(), now_ms))
            url += f"{'&' if '?' in url else '?'}timestamp={now_ms}&sign={sign}"
        return Request("POST", url, JSON, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document_of(reply)
        verdict = verdict_of(reply, found, _ANSWERS, now_s)
        if verdict.code == _TOO_FAST:
            verdict = Verdict(verdict.answer, verdict.code, _BLOCKED_S)
        elif verdict.code == _UNSAFE and "keyword" in (word(found.get("errmsg")) or "").lower():
            verdict = Verdict("rejected", verdict.code)
        return verdict.receipts(messages, self._provider)


def _build(provider: str, options: Options) -> Dingtalk:
    assert isinstance(options, DingtalkOptions)
    return Dingtalk(provider, options)


KIND: Final = Kind(options=DingtalkOptions, channels=("webhook",), build=_build)
