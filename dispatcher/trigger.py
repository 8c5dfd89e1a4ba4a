"""A trigger: what a service posts. Its `id` is the idempotency key."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

MAX_TRIGGER_BYTES: Final = 64 * 1024
MAX_PARAMS: Final = 64
MAX_META_BYTES: Final = 4 * 1024

Id = Annotated[str, Meta(min_length=1, max_length=128)]
ChannelName = Literal["sms", "push", "wechat", "email", "webhook"]
LaneName = Literal["urgent", "normal", "bulk"]


class Trigger(Struct, forbid_unknown_fields=True, gc=False):
    """One trigger as it stands on the wire (JSON or msgpack).

    `params` values are strings or numbers; `checked` turns numbers into the text they were written as.
    """

    template: Id
    id: Id | None = None
    user: Id | None = None
    to: dict[ChannelName, Annotated[str, Meta(min_length=1, max_length=2048)]] | None = None
    line: Id | None = None
    params: dict[str, Any] = {}
    channels: list[ChannelName] | None = None
    task: Id | None = None
    ttl_s: Annotated[float, Meta(gt=0)] | None = None
    send_at: datetime | None = None
    lane: LaneName | None = None
    meta: dict[str, Any] | None = None


class Order(Struct, array_like=True, gc=False):
    """A checked trigger on its way from gateway to shard: every default that needs no catalog is filled in.

    `user` is None when the trigger names addresses only; `identity` is never empty.
    """

    id: str
    identity: str  # user, or the normalised address of an address-only trigger
    user: str | None
    line: str
    template: str
    params: dict[str, str]
    to: dict[str, str] | None = None
    channels: list[str] | None = None
    task: str | None = None
    ttl_s: float | None = None
    send_at: float | None = None  # epoch seconds, UTC
    lane: str | None = None
    meta: dict[str, Any] | None = None


class NumberText(str):
    """The digits of a JSON number as they were written (`12.00` stays `12.00`)."""

    __slots__ = ()


#: Decodes one JSON trigger. Floats keep their digits; integers are exact anyway.
trigger_decoder: Final = msgspec.json.Decoder(Trigger, float_hook=NumberText)
#: Decodes a chunk of whole NDJSON lines at once.
trigger_lines_decoder: Final = trigger_decoder
_BARE_PATH: Final = re.compile(r" - at `\$\.?(.*)`$")


def explain_error(error: Exception) -> str:
    """`invalid: <path>: <what>` of a msgspec error, as a result's reason carries it."""
    text = str(error)
    match = _BARE_PATH.search(text)
    if match is None:
        return f"invalid: {text}"
    what = text[: match.start()]
    path = match.group(1) or "trigger"
    return f"invalid: {path}: {what}"
