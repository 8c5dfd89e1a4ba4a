"""The provider kind `aws_sns`: Amazon SNS, `Publish` straight to a phone number. Its delivery reports go to CloudWatch
Logs only.

Source: botocore 1.44 service model `sns` 2010-03-31; design page `wire.md`, section 5.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from channels.adapter import Reply, Request
from channels.answers import LONGEST_WORD, Verdict
from channels.aws import AwsOptions, keys, service, sort_of, table, verdict
from channels.kind import Kind
from channels.options import Options
from channels.sigv4 import signed
from channels.sns import CALLBACKS
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.segments import signed as with_signature

_WORDS: Final[dict[Answer, str]] = {
    "invalid_recipient": "OptedOut",
    "rejected": """EndpointDisabled InvalidParameter KMSAccessDenied KMSDisabled KMSInvalidState KMSNotFound
        KMSOptInRequired NotFound ParameterValueInvalid PlatformApplicationDisabled ValidationException""",
}
_ANSWERS: Final = table(_WORDS)
#: These are said of a number too that is none, and then the text tells.
_OF_ANY_PARAMETER: Final = frozenset({"InvalidParameter", "ParameterValueInvalid"})
_OF_THE_NUMBER: Final = re.compile(rb"phone ?number", re.IGNORECASE)
_ID: Final = re.compile(rb"<MessageId>\s*([!-;=-~]{1,200})\s*</MessageId>")
_CODE: Final = re.compile(rb"<Code>\s*([!-;=-~]{1,200})\s*</Code>")
_TEXT: Final = re.compile(rb"<Message>([^<]{0,2000})</Message>")
_ATTRIBUTE: Final = "MessageAttributes.entry"


class AwsSnsOptions(AwsOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`sender_id`: the name shown as sender, in countries that allow one."""

    sender_id: str | None = None


class AwsSns:
    """One provider of kind `aws_sns`."""

    def __init__(self, provider: str, options: AwsSnsOptions) -> None:
        self._provider = provider
        self._service = service("sns", options)
        self._url = options.url or f"https://sns.{options.region}.amazonaws.com/"
        self._keys = keys(options)
        self._sender_id = options.sender_id

    def __repr__(self) -> str:
        return f"AwsSns({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        body = urlencode(self._form(messages[0])).encode()
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        headers = signed("POST", self._url, headers, body, self._keys, self._service, now_s)
        return Request("POST", self._url, {**headers, "user-agent": "dispatcher"}, body)

    def _form(self, message: Message) -> dict[str, str]:
        attributes = {"AWS.SNS.SMS.SMSType": sort_of(message.type)}
        if self._sender_id:
            attributes["AWS.SNS.SMS.SenderID"] = self._sender_id
        fields = message.fields
        form = {
            "Action": "Publish",
            "Version": "2010-03-31",
            "PhoneNumber": message.to,
            "Message": with_signature(fields["text"], fields.get("signature"), message.region),
        }
        for i, (name, value) in enumerate(attributes.items(), 1):
            form[f"{_ATTRIBUTE}.{i}.Name"] = name
            form[f"{_ATTRIBUTE}.{i}.Value.DataType"] = "String"
            form[f"{_ATTRIBUTE}.{i}.Value.StringValue"] = value
        return form

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        if 200 <= reply.status < 300:
            return self._taken(messages, reply)
        found = _CODE.search(reply.body)
        code = found[1].decode() if found is not None else ""
        return verdict(_answer(code, reply.body), code, reply, now_s).receipts(messages, self._provider)

    def _taken(self, messages: Sequence[Message], reply: Reply) -> list[Receipt]:
        found = _ID.search(reply.body)
        if found is None:  # a 2xx says that something was taken, so it may be on its way
            return Verdict("unknown", "unreadable reply").receipts(messages, self._provider)
        ref = found[1].decode()[:LONGEST_WORD]
        return [Receipt(message.id, "accepted", self._provider, ref) for message in messages]


def _answer(code: str, body: bytes) -> Answer | None:
    if code in _OF_ANY_PARAMETER:
        text = _TEXT.search(body)
        return "invalid_recipient" if text is not None and _OF_THE_NUMBER.search(text[1]) else "rejected"
    return _ANSWERS.get(code)


def _build(provider: str, options: Options) -> AwsSns:
    assert isinstance(options, AwsSnsOptions)
    return AwsSns(provider, options)


KIND: Final = Kind(options=AwsSnsOptions, channels=("sms",), build=_build, callbacks=CALLBACKS)
