"""One route call inside a router: its messages by place, grouped into lots that may go the same ways."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from actors.pool import Seat
from dispatcher.calls import RouteCall
from dispatcher.receipt import Answer, Receipt
from dispatcher.retry import SECOND_TRY_TYPES
from dispatcher.routing import Choice, RouteTable
from dispatcher.vitals import Cell


class Lot:
    """Messages of one call that may go the same ways. `cell`: their region and type, where these make a difference."""

    __slots__ = ("cell", "choice", "places", "tried")

    def __init__(self, choice: Choice, tried: tuple[str, ...], places: list[int], cell: Cell | None = None) -> None:
        self.choice = choice
        self.tried = tried
        self.places = places
        self.cell = cell


class Job:
    """A route call's messages, attempts and receipts, by place over all its groups."""

    __slots__ = ("attempts", "doubtful", "groups", "lane", "late", "lots", "messages", "receipts", "refused_by", "slow")

    def __init__(self, call: RouteCall, table: RouteTable, apart: Callable[[Choice, Cell], Cell | None]) -> None:
        self.lane = call.lane
        self.groups = call.groups
        self.messages: list[msgspec.Raw] = []
        self.attempts: list[int] = []
        self.refused_by: dict[str, Seat] = {}  # provider -> the sender that refused some of this call
        self.doubtful: dict[str, list[int]] = {}  # sender that died -> what it may know of when it is back
        self.late: set[int] = set()  # places that are still at a slow provider
        self.slow: set[asyncio.Task[None]] = set()  # and what brings their receipts
        lots: dict[tuple[int, tuple[str, ...], Cell | None], Lot] = {}
        for group in call.groups:
            start = len(self.messages)
            self.messages += group.messages
            self.attempts += [group.attempt] * len(group.messages)
            choice = table.choice(group.channel, group.type, group.line, group.template, group.region, group.vendor)
            tried = tuple(group.tried)
            cell = apart(choice, (group.region, group.type))
            lot = lots.get((choice.number, tried, cell))
            if lot is None:
                lot = lots[choice.number, tried, cell] = Lot(choice, tried, [], cell)
            lot.places += range(start, len(self.messages))
        self.lots = list(lots.values())
        self.receipts: list[Receipt | None] = [None] * len(self.messages)

    def answer(self, places: Sequence[int], answer: Answer, code: str, provider: str = "") -> None:
        """Receipts of the router's own."""
        for place in places:
            id_ = _head_decoder.decode(self.messages[place]).id
            self.receipts[place] = Receipt(id_, answer, provider, code=code)

    def hurried(self) -> set[int]:
        """The places of messages that rather go out twice than late."""
        places: set[int] = set()
        start = 0
        for group in self.groups:
            if group.type in SECOND_TRY_TYPES:
                places.update(range(start, start + len(group.messages)))
            start += len(group.messages)
        return places

    def unanswered(self) -> list[Lot]:
        """What has no receipt yet and waits for none, as lots."""
        receipts, late = self.receipts, self.late
        if None not in receipts:
            return []
        left = (
            Lot(lot.choice, lot.tried, [p for p in lot.places if receipts[p] is None and p not in late], lot.cell)
            for lot in self.lots
        )
        return [lot for lot in left if lot.places]


class _Head(Struct, array_like=True):
    """The start of an encoded `Message`; the rest is skipped. Read only where the router itself must answer."""

    id: str


_head_decoder: Final = msgspec.msgpack.Decoder(_Head)
