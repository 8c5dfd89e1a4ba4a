"""The provider kind `feishu`: a chat group's robot.

Wire facts, codes and their classes: design page `wire.md`, section 14.
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from channels.adapter import Reply, Request
from channels.answers import Verdict, by_code, parse_retry_after
from channels.errcode import JSON, document_of, verdict_of
from channels.kind import Kind
from channels.options import Options, SecretUrl
from channels.robot import body_of, text_of
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Receipt

_ANSWERS: Final = by_code(
    {
        "throttled": "11232 99991400",
        "auth": "19001 19021 19022",
        "rejected": "9499 19024",
    }
)
_RESET: Final = "x-ogw-ratelimit-reset"  # seconds
_encode: Final = msgspec.json.Encoder().encode


class FeishuOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` is the robot's; `secret` is there when the robot wants signatures."""

    url: SecretUrl
    secret: Secret | None = None


def signature(secret: str, timestamp_s: int) -> str:
    """HMAC-SHA256 of nothing, with timestamp and secret as the key, base64."""
    return base64.b64encode(hmac.digest(f"{timestamp_s}\n{secret}".encode(), b"", "sha256")).decode()


class Feishu:
    """One robot. A request carries one message."""

    def __init__(self, provider: str, options: FeishuOptions) -> None:
        self._provider = provider
        self._url = options.url
        self._secret = options.secret

    def __repr__(self) -> str:
        return f"Feishu({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        own = body_of(messages[0], "msg_type")
        body: dict[str, Any] = own or {"msg_type": "text", "content": {"text": text_of(messages[0])}}
        if self._secret is not None:
            stamp = int(now_s)
            body = {"timestamp": str(stamp), "sign": signature(self._secret.reveal(), stamp), **_unsigned(body)}
        return Request("POST", self._url, JSON, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document_of(reply)
        if "code" not in found and "StatusCode" in found:  # as older robots answer
            found = {"code": found["StatusCode"]}
        verdict = verdict_of(reply, found, _ANSWERS, now_s, "code")
        if verdict.answer == "throttled":
            named_s = parse_retry_after(reply.headers.get(_RESET), now_s)
            verdict = Verdict("throttled", verdict.code, verdict.retry_after_s if named_s is None else named_s)
        return verdict.receipts(messages, self._provider)


def _unsigned(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("timestamp", "sign")}


def _build(provider: str, options: Options) -> Feishu:
    assert isinstance(options, FeishuOptions)
    return Feishu(provider, options)


KIND: Final = Kind(options=FeishuOptions, channels=("webhook",), build=_build)
