"""The provider kind `aws_eum`: AWS End User Messaging SMS, `SendTextMessage` of pinpoint-sms-voice-v2. Our message id
travels in `Context` and comes back in every delivery event.

Source: botocore 1.44 service model `pinpoint-sms-voice-v2` 2022-03-31; design page `wire.md`, section 5.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, Verdict
from channels.aws import AwsOptions, keys, service, sort_of, table, verdict
from channels.kind import Kind
from channels.options import Options
from channels.sigv4 import signed
from channels.sns import CALLBACKS, CONTEXT_KEY
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.segments import signed as with_signature

#: The reason, where one is given, says more than the error's type.
_WORDS: Final[dict[Answer, str]] = {
    "invalid_recipient": "DESTINATION_PHONE_NUMBER_NOT_VERIFIED DESTINATION_PHONE_NUMBER_OPTED_OUT",
    "rejected": """ConflictException ResourceNotFoundException ValidationException
        COUNTRY_CODE_MISMATCH COUNTRY_NOT_ENABLED DESTINATION_COUNTRY_BLOCKED
        DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE
        INTERNATIONAL_SENDING_NOT_SUPPORTED INVALID_IDENTITY_FOR_DESTINATION_COUNTRY INVALID_PARAMETER
        MESSAGE_TYPE_MISMATCH NO_ORIGINATION_IDENTITIES_FOUND NUMBER_CAPABILITIES_MISMATCH PRICE_OVER_THRESHOLD
        SENDER_ID_NOT_REGISTERED SENDER_ID_NOT_SUPPORTED SENDER_ID_REQUIRES_REGISTRATION""",
    "auth": """ServiceQuotaExceededException
        ACCOUNT_DISABLED INSUFFICIENT_ACCOUNT_REPUTATION MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT""",
}
_ANSWERS: Final = table(_WORDS)
_TARGET: Final = "PinpointSMSVoiceV2.SendTextMessage"
_TTL_S: Final = (5, 259_200)

_encode: Final = msgspec.json.Encoder().encode


class AwsEumOptions(AwsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`origination_identity`: number, sender id or pool to send from, AWS chooses where there is none.
    `configuration_set`: names the SNS topic of the delivery events, where the account has no default one."""

    origination_identity: str | None = None
    configuration_set: str | None = None


class _Words(Struct):
    """What a reply may hold. An error's type is `prefix#Type` in `__type`."""

    MessageId: str | None = None
    type: str | None = msgspec.field(name="__type", default=None)
    Reason: str | None = None


_decode: Final = msgspec.json.Decoder(_Words).decode


class AwsEum:
    """One provider of kind `aws_eum`."""

    def __init__(self, provider: str, options: AwsEumOptions) -> None:
        self._provider = provider
        self._service = service("sms-voice", options)
        self._url = options.url or f"https://sms-voice.{options.region}.amazonaws.com/"
        self._keys = keys(options)
        self._fixed: dict[str, str] = {}
        if options.origination_identity:
            self._fixed["OriginationIdentity"] = options.origination_identity
        if options.configuration_set:
            self._fixed["ConfigurationSetName"] = options.configuration_set

    def __repr__(self) -> str:
        return f"AwsEum({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        body = _encode(self._body(messages[0], now_s))
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": _TARGET}
        headers = signed("POST", self._url, headers, body, self._keys, self._service, now_s)
        return Request("POST", self._url, {**headers, "user-agent": "dispatcher"}, body)

    def _body(self, message: Message, now_s: float) -> dict[str, Any]:
        fields = message.fields
        return {
            **self._fixed,
            "DestinationPhoneNumber": message.to,
            "MessageBody": with_signature(fields["text"], fields.get("signature"), message.region),
            "MessageType": sort_of(message.type).upper(),
            "TimeToLive": min(max(int(message.expires_ms / 1000 - now_s), _TTL_S[0]), _TTL_S[1]),
            "Context": {CONTEXT_KEY: message.id},
        }

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        words = _read(reply.body)
        if 200 <= reply.status < 300:
            return self._taken(messages, words)
        type_ = (words.type or reply.headers.get("x-amzn-errortype", "")).rpartition("#")[2].partition(":")[0]
        answer = _ANSWERS.get(words.Reason or "") or _ANSWERS.get(type_)
        return verdict(answer, words.Reason or type_, reply, now_s).receipts(messages, self._provider)

    def _taken(self, messages: Sequence[Message], words: _Words) -> list[Receipt]:
        if not words.MessageId:  # a 2xx says that something was taken, so it may be on its way
            return Verdict("unknown", "unreadable reply").receipts(messages, self._provider)
        ref = words.MessageId[:LONGEST_WORD]
        return [Receipt(message.id, "accepted", self._provider, ref) for message in messages]


def _read(body: bytes) -> _Words:
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _Words()


def _build(provider: str, options: Options) -> AwsEum:
    assert isinstance(options, AwsEumOptions)
    return AwsEum(provider, options)


KIND: Final = Kind(options=AwsEumOptions, channels=("sms",), build=_build, callbacks=CALLBACKS)
