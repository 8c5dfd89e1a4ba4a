"""The catalog's documents as people write them: templates, lines, providers, routes, blacklist entries, keyword lists.

Shapes and names: design page `api.md`, "Catalog". Rules live in `dispatcher.rules`.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from dispatcher.trigger import ChannelName, Id

TypeName = Literal["verification", "notice", "repayment", "notice_marketing", "marketing"]
Level = Annotated[int, Meta(ge=1, le=5)]
Text = Annotated[str, Meta(min_length=1)]


class Jump(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a tap on a push leads."""

    kind: Literal["h5", "native"]
    url: Text


class SmsContent(Struct, frozen=True, tag_field="channel", tag="sms", forbid_unknown_fields=True):
    text: Text
    signature: str | None = None


class PushContent(Struct, frozen=True, tag_field="channel", tag="push", forbid_unknown_fields=True):
    title: Text
    body: Text
    jump: Jump | None = None


class WechatContent(Struct, frozen=True, tag_field="channel", tag="wechat", forbid_unknown_fields=True):
    template_id: Text
    data: dict[str, Any]
    url: str | None = None


class EmailContent(Struct, frozen=True, tag_field="channel", tag="email", forbid_unknown_fields=True):
    subject: Text
    text: str | None = None
    html: str | None = None
    unsubscribe_url: str | None = None  # of the headers List-Unsubscribe


class WebhookContent(Struct, frozen=True, tag_field="channel", tag="webhook", forbid_unknown_fields=True):
    body: dict[str, Any]


Content = SmsContent | PushContent | WechatContent | EmailContent | WebhookContent


class VendorTemplate(Struct, frozen=True, forbid_unknown_fields=True):
    """How one vendor knows this template: its code there and the order of its parameters."""

    code: Text
    params: list[str] = []


class Owner(Struct, frozen=True, forbid_unknown_fields=True):
    department: str | None = None
    product: str | None = None
    developer: str | None = None


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    type: TypeName
    channels: Annotated[list[Content], Meta(min_length=1)]
    level: Level | None = None
    mode: Literal["first", "all"] = "first"
    vendor: dict[str, VendorTemplate] = {}
    owner: Owner | None = None
    line: Id | None = None  # when set, only this line may use it (`line_mismatch`)
    goal: str | None = None
    status: Literal["active", "draft", "retired"] = "active"


class LineUplinks(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose texts begin with a keyword, they go to `url`, signed with `secret` (a reference) as Standard Webhooks."""

    keywords: Annotated[list[Text], Meta(min_length=1)]
    url: Text
    secret: Text
    allow_private: bool = False


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""
    department: str | None = None
    quota: Annotated[int, Meta(ge=0)] | None = None
    contacts: list[str] = []
    uplinks: LineUplinks | None = None


class UnsubscribeAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """What is texted to a number that unsubscribes: a template without parameters, sent by this line."""

    template: Id
    line: Id = "default"


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """One account at one vendor that can deliver one channel. `options` depend on `kind` (see `channels`)."""

    kind: Text
    channel: ChannelName
    enabled: bool = True
    options: dict[str, Any] = {}
    max_batch: Annotated[int, Meta(ge=1, le=1000)] = 1
    rate_per_s: Annotated[float, Meta(gt=0)] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0
    price: dict[str, float] = {}
    senders: Annotated[int, Meta(ge=1, le=64)] = 1
    concurrency: Annotated[int, Meta(ge=1, le=4096)] = 32  # requests in the air at once, per sender
    unsubscribe_answer: UnsubscribeAnswer | None = None

    def __repr__(self) -> str:
        """Options may hold secrets, so they stay out of logs and errors."""
        return f"Provider(kind={self.kind!r}, channel={self.channel!r}, enabled={self.enabled!r})"


class Match(Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages a route is for; an empty list means all."""

    channels: list[ChannelName] = []
    types: list[TypeName] = []
    lines: list[str] = []
    templates: list[str] = []
    regions: list[str] = []


class RouteProvider(Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    weight: Annotated[float, Meta(ge=0)] = 1.0


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """First match wins. `auto` shares by weight and live health; `pinned` takes the first listed that takes it."""

    providers: Annotated[list[RouteProvider], Meta(min_length=1)]
    match: Match = Match()
    mode: Literal["auto", "pinned"] = "auto"


class BlacklistEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """`user` or `address`; every other field None = any (any type means every type but `verification`)."""

    user: Id | None = None
    address: Id | None = None
    channel: ChannelName | None = None
    type: TypeName | None = None
    line: Id | None = None
    expires_at: datetime | None = None
    why: Annotated[str, Meta(max_length=512)] | None = None  # every shard keeps it in memory
    id: str | None = None


class Keywords(Struct, frozen=True, forbid_unknown_fields=True):
    """One list of words."""

    words: list[Text]


class PushToken(Struct, frozen=True, forbid_unknown_fields=True):
    token: Text
    vendor: Literal["fcm", "apns", "jpush", "huawei_push", "xiaomi", "getui"] | None = None
    app: str | None = None


class WechatOpenid(Struct, frozen=True, forbid_unknown_fields=True):
    openid: Text
    account: str | None = None


class Addresses(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    sms: list[str] = []
    push: list[PushToken] = []
    wechat: list[WechatOpenid] = []
    email: list[str] = []
    webhook: list[str] = []


class User(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user's profile: where to reach them, their time zone, and tags for campaigns."""

    addresses: Addresses = Addresses()
    timezone: str | None = None
    tags: dict[str, Any] = {}


#: kind -> (type of one document, whether the kind is one ordered list instead of documents by id)
KINDS: dict[str, tuple[Any, bool]] = {
    "templates": (Template, False),
    "lines": (Line, False),
    "providers": (Provider, False),
    "routes": (list[Route], True),
    "blacklist": (BlacklistEntry, False),
    "keywords": (Keywords, False),
    # "rules": (list[AnyRule], True) is added by dispatcher.rules, which owns the type
}
