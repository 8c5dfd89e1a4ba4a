"""A message: one trigger on one channel, rendered, immutable. What travels."""

from typing import Any

from msgspec import Struct


class Message(Struct, frozen=True, array_like=True, gc=False):
    """Everything needed to send, retry, settle or refund one message.

    `to` is the address: a phone number, e-mail address, openid, device token or URL.
    `fields` are the rendered fields by name: sms `text`, `signature`; push `title`, `body`, `jump`;
    wechat `template_id`, `data`, `url`; email `subject`, `text`, `html`, `unsubscribe_url`; webhook `body`.
    `vendor`: how vendors know the template, where it says so: kind -> [code there, names of its parameters in order].
    Times are epoch milliseconds, UTC.
    """

    id: str
    trigger: str
    identity: str
    channel: str
    to: str
    type: str
    level: int
    lane: int
    line: str
    template: str
    fields: dict[str, Any]
    params: dict[str, str]
    admitted_ms: int  # when its trigger was answered
    due_ms: int
    expires_ms: int
    region: str | None = None
    user: str | None = None
    task: str | None = None
    extra: dict[str, str] | None = None  # of the address: vendor, app, account
    later: list[str] | None = None  # channels of a `first` plan still untried
    meta: dict[str, Any] | None = None
    content: int = 0  # 40-bit hash of the rendered fields, what `repeat` compares
    key: int = 0  # 48-bit hash of (line, trigger id, identity): the trigger's record in the user's state
    vendor: dict[str, list[Any]] | None = None
    fan: list[str] | None = None  # all messages of its trigger and channel, one for each device; empty: it stays alone
    slot: bool = True  # whether it holds the slot of its trigger and channel; one of a fan does at most


def vendor_of(message: Message) -> str | None:
    """Whose a push token is, where it says so."""
    return message.extra.get("vendor") if message.channel == "push" and message.extra is not None else None
