"""One partition: the fold of its log. `apply` only writes; decisions (`dispatcher.admission`) only read.

Everything kept here is immutable (bytes, frozen messages), so a snapshot is a shallow copy of three dicts.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.calendar import Calendar
from dispatcher.documents import BlacklistEntry
from dispatcher.entries import Admit, Block, Blocked, End, Entry, Park, Settle
from dispatcher.message import Message
from dispatcher.rulebook import Rulebook
from dispatcher.user import (
    COUNTED,
    EVENT,
    FILTERED,
    INTERCEPTED,
    PARKED,
    Kind,
    UserView,
    events_of,
    known,
    pack,
    refund,
    stamp,
)

DAY_MS: Final = 86_400_000


class Slice(Struct, array_like=True):
    """A piece of a snapshot; the pieces of one snapshot add up, the first carries the kinds."""

    kinds: list[Kind] = []
    in_flight: list[Message] = []
    parked: list[Message] = []
    users: dict[str, bytes] = {}


MOST_SHAPES: Final = 4096
_encoder: Final = msgspec.msgpack.Encoder()
_slice_decoder: Final = msgspec.msgpack.Decoder(Slice)


def kind_of(message: Message) -> Kind:
    """What rules can tell this message apart by."""
    # Without the task: names of campaigns have no end, and this stage's rules do not ask for them.
    return Kind(message.channel, message.type, message.level, message.line, message.template, None)


class Shape:
    """Messages that rules cannot tell apart: their kind, its number, the rules that see it, and what those rules have
    found out about other kinds (`memo`: rule name -> kind number -> whether it counts against this one)."""

    __slots__ = ("book", "kind", "may_park", "memo", "number", "rules")

    def __init__(self, kind: Kind, number: int, book: Rulebook) -> None:
        self.kind = kind
        self.number = number
        self.book = book  # whose rules these are
        self.rules = book.seeing(kind)
        self.may_park = any(rule.may_defer for rule in self.rules)
        self.memo: dict[str, dict[int, bool]] = {}


class Partition:
    """State of one partition: users' events, messages in flight, messages parked."""

    __slots__ = (
        "_kind_ids", "_shapes", "book", "id", "in_flight", "kinds", "max_events", "parked", "users", "window_ms",
    )  # fmt: skip

    def __init__(self, id_: int, book: Rulebook, window_ms: int = DAY_MS, max_triggers: int = 4096) -> None:
        self.id = id_
        self.book = book
        self.window_ms = window_ms  # of idempotency
        self.max_events = max_triggers
        self.users: dict[str, bytes] = {}
        self.in_flight: dict[str, Message] = {}
        self.parked: dict[str, Message] = {}
        self.kinds: list[Kind] = []
        self._kind_ids: dict[Kind, int] = {}
        self._shapes: dict[Kind, Shape] = {}

    # -- reading

    def shape(self, kind: Kind) -> "Shape":
        """What this partition and the rules in force have to say of such messages."""
        shape = self._shapes.get(kind)
        if shape is None:
            if len(self._shapes) >= MOST_SHAPES:  # kinds carry task names, of which there is no end
                self._shapes.clear()
            shape = self._shapes[kind] = Shape(kind, self.intern(kind), self.book)
        return shape

    def view(
        self,
        identity: str,
        shape: "Shape",
        listed: BlacklistEntry | None,
        calendar: Calendar,
        own_calendar: Calendar | None,
    ) -> UserView:
        """A user as the rules see them that see messages of this shape."""
        return UserView(self.users.get(identity), shape.kind, self.kinds, shape.memo, listed, calendar, own_calendar)

    def knows(self, identity: str, key: int, now_ms: int) -> bool:
        """Whether this trigger was answered before, within the idempotency window."""
        packed = self.users.get(identity)
        return packed is not None and known(packed, key, now_ms - self.window_ms)

    def use(self, book: Rulebook) -> None:
        """Decide by other rules from now on; what users have received stays."""
        self.book = book
        self._shapes.clear()

    # -- writing

    def apply(self, entry: Entry) -> None:
        """Fold one entry in."""
        if isinstance(entry, Admit):
            for message in entry.messages:
                self.admit(message, entry.at_ms)
        elif isinstance(entry, Settle):
            for end in entry.ends:
                self.settle(end)
        elif isinstance(entry, Block):
            for blocked in entry.blocks:
                self.block(blocked, entry.at_ms)
        elif isinstance(entry, Park):
            for message in entry.messages:
                self.park(message, entry.at_ms)

    def admit(self, message: Message, at_ms: int) -> None:
        """Reserve the message's slot; it is in flight from now on."""
        self.reserve(message, at_ms, self.intern(kind_of(message)))

    def reserve(self, message: Message, at_ms: int, kind: int) -> None:
        """`admit` for a caller that knows the number of the message's kind."""
        if self.parked:
            self.parked.pop(message.id, None)
        self.in_flight[message.id] = message
        self._remember(message.identity, message.key, at_ms, kind, message.content, COUNTED)

    def park(self, message: Message, at_ms: int) -> None:
        """Keep the message until its due time. One that is parked again only gets the new time."""
        if message.id not in self.parked:
            kind = self.intern(kind_of(message))
            self._remember(message.identity, message.key, at_ms, kind, message.content, PARKED)
        self.parked[message.id] = message

    def settle(self, end: End) -> Message | None:
        """The message has ended; its slot is free again when it surely was not sent. None if it had ended before."""
        message = self.in_flight.pop(end.message, None)
        if message is not None and end.refund:
            packed = self.users.get(message.identity)
            if packed is not None:
                kinds, channel = self.kinds, message.channel
                self.users[message.identity] = refund(packed, message.key, lambda k: kinds[k].channel == channel)
        return message

    def block(self, blocked: Blocked, at_ms: int) -> None:
        """Remember a block that was its trigger's answer; a parked message that was blocked is no longer parked."""
        if self.parked.pop(blocked.message, None) is None and blocked.final:
            kind = self.intern(Kind(blocked.channel, "", 0, "", "", None, blocked.objection.kind))
            state = FILTERED if blocked.status == "filtered" else INTERCEPTED
            self._remember(blocked.identity, blocked.key, at_ms, kind, 0, state)

    def intern(self, kind: Kind) -> int:
        """The number of a kind in this partition's table."""
        number = self._kind_ids.get(kind)
        if number is None:
            number = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return number

    def _remember(self, identity: str, key: int, at_ms: int, kind: int, content: int, state: int) -> None:
        event = pack(key, at_ms, kind, content, state)
        packed = self.users.get(identity)
        if packed is None:
            self.users[identity] = event
        else:
            self.users[identity] = self.pruned(packed, at_ms) + event

    def pruned(self, packed: bytes, now_ms: int) -> bytes:
        """The events that can still matter: to idempotency within its window, to a rule within its own."""
        # In strides: a user who gets a message every second must not be gone through for every one of them.
        oldest = EVENT.unpack_from(packed)[1]
        room = (self.max_events + self.max_events // 4) * EVENT.size
        if len(packed) < room and oldest >= stamp(now_ms - self.window_ms - self.window_ms // 16):
            return packed
        events = events_of(packed)
        spare = len(events) - self.max_events
        keep = []
        for i, event in enumerate(events):
            age_ms = now_ms - event.at_ms
            if (i > spare and age_ms < self.window_ms) or (
                event.state == COUNTED and age_ms < self.book.horizon_ms(self.kinds[event.kind])
            ):
                keep.append(packed[i * EVENT.size : (i + 1) * EVENT.size])
        return packed if len(keep) == len(events) else b"".join(keep)

    # -- snapshots

    def slices(self, per_slice: int) -> Iterator[bytes]:
        """The state at the moment of the call, encoded piece by piece as the iterator is drawn."""
        users = list(self.users.items())
        in_flight, parked = list(self.in_flight.values()), list(self.parked.values())
        kinds = list(self.kinds)

        def pieces() -> Iterator[bytes]:
            yield _encoder.encode(Slice(kinds))
            for at in range(0, len(in_flight), per_slice):
                yield _encoder.encode(Slice(in_flight=in_flight[at : at + per_slice]))
            for at in range(0, len(parked), per_slice):
                yield _encoder.encode(Slice(parked=parked[at : at + per_slice]))
            for at in range(0, len(users), per_slice):
                yield _encoder.encode(Slice(users=dict(users[at : at + per_slice])))

        return pieces()

    def load(self, piece: bytes) -> None:
        """Take in one piece of a snapshot; the partition was empty before the first."""
        part = _slice_decoder.decode(piece)
        for kind in part.kinds:
            self.intern(kind)
        self.in_flight.update((message.id, message) for message in part.in_flight)
        self.parked.update((message.id, message) for message in part.parked)
        self.users.update(part.users)

    def sweep(self, identities: list[str], now_ms: int) -> int:
        """Drop what has expired of these users; returns how many were forgotten whole."""
        forgotten = 0
        for identity in identities:
            packed = self.users.get(identity)
            if packed is None:
                continue
            kept = self.pruned(packed, now_ms)
            if not kept:
                del self.users[identity]
                forgotten += 1
            elif kept is not packed:
                self.users[identity] = kept
        return forgotten

