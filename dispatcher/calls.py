"""What shards, routers and senders say to each other: msgpack arrays, one batch a call.

Messages travel as they were encoded once (`msgspec.Raw`); a router never opens them.
"""

import msgspec
from msgspec import Struct

from dispatcher.explanation import ProviderChance, RouteKey
from dispatcher.receipt import Receipt
from dispatcher.vitals import Vitals


class RouteGroup(Struct, array_like=True, gc=False):
    """Messages that a route table cannot tell apart. `tried`: providers to avoid, they failed for these messages."""

    channel: str
    type: str
    line: str
    template: str
    region: str | None
    attempt: int
    tried: list[str]
    messages: list[msgspec.Raw]
    vendor: str | None = None  # of a push token


class RouteCall(Struct, array_like=True):
    """One lane's messages for a router."""

    lane: int
    groups: list[RouteGroup]


class RouteAnswer(Struct, array_like=True):
    """One receipt for each message of the call, in order over all groups.

    `late`: places that a slow provider has still in hand; `token` asks for theirs, once, and their receipts here mean
    nothing. So that what others did at once does not wait for it.

    `doubtful`: sender -> places whose `unknown` that sender may know better once it is back; it died with them in hand.
    """

    receipts: list[Receipt]
    doubtful: dict[str, list[int]] = {}
    late: list[int] = []
    token: int = 0


class SendCall(Struct, array_like=True):
    """Messages for one sender. `attempts` has one number for each."""

    lane: int
    attempts: list[int]
    messages: list[msgspec.Raw]


class Load(Struct, array_like=True, gc=False):
    """How a sender is doing: what every answer carries back to the router."""

    provider: str
    in_flight: int  # requests in the air
    limit: int  # requests it would have in the air at most
    room: int  # messages it would take of one call now
    seconds: float = 0.0  # mean request time of this call's requests, 0 when none was sent
    retry_after_s: float = 0.0  # it takes nothing before
    leaving: bool = False  # it drains: whatever is handed to it comes back, and soon it is gone
    unusable: bool = False  # its provider's document cannot be used as it is, for want of a secret say
    vitals: Vitals = Vitals()  # how the provider fares, as this sender saw it


class SendAnswer(Struct, array_like=True):
    """One receipt for each message of the call, in order."""

    receipts: list[Receipt]
    load: Load


class CandidatesCall(Struct, array_like=True):
    """Who could carry such messages now?"""

    keys: list[RouteKey]


class CandidatesAnswer(Struct, array_like=True):
    """The candidates of each key, in the route's order."""

    candidates: list[list[ProviderChance]]


class RecallCall(Struct, array_like=True):
    """What became of these messages? Attempts up to the given ones are not sent any more if they were not yet.

    `sender`: asks this one only; empty asks all.
    """

    ids: list[str]
    attempts: list[int]
    sender: str = ""


class RecallAnswer(Struct, array_like=True):
    """The receipt of each message's latest attempt, None for one no sender has seen."""

    receipts: list[Receipt | None]
    complete: bool = True  # every sender answered, and none has predecessors whose attempts it cannot know
