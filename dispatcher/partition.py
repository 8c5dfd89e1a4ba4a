"""One partition: the fold of its log. `apply` only writes; decisions (`dispatcher.admission`) only read.

Everything kept here is immutable (bytes, frozen messages), so a snapshot is a shallow copy of three dicts.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from dispatcher.blacklist import Listed
from dispatcher.calendar import Calendar
from dispatcher.entries import Admit, Block, Blocked, End, Entry, Park, Settle
from dispatcher.message import Message
from dispatcher.rulebook import Rulebook
from dispatcher.user import (
    COUNTED,
    EVENT,
    FILTERED,
    INTERCEPTED,
    KEY_AT,
    PARKED,
    TASK,
    Kind,
    Memo,
    UserView,
    bare,
    instance,
    joined,
    known,
    lasting,
    pack,
    padded,
    refund,
    stamp,
    task_hash,
)

if TYPE_CHECKING:
    from dispatcher.keywords import WordList

DAY_MS: Final = 86_400_000


class Slice(Struct, array_like=True):
    """A piece of a snapshot; the pieces of one snapshot add up, the first carries the kinds."""

    kinds: list[Kind] = []
    in_flight: list[Message] = []
    parked: list[Message] = []
    users: dict[str, bytes] = {}


MOST_SHAPES: Final = 4096
MANY_BYTES: Final = 8 * EVENT.size
_encoder: Final = msgspec.msgpack.Encoder()
_slice_decoder: Final = msgspec.msgpack.Decoder(Slice)


def kind_of(message: Message) -> Kind:
    """What rules can tell this message apart by."""
    return Kind(message.channel, message.type, message.level, message.line, message.template)


class Shape:
    """Messages that rules cannot tell apart: their kind, the rules that see it, and what those rules have found out
    about other kinds (`memo`)."""

    __slots__ = ("at_admission", "at_attempts", "book", "kind", "may_park", "memo", "number", "rules")

    def __init__(self, kind: Kind, book: Rulebook) -> None:
        self.kind = kind
        self.number: int | None = None  # of the kind; given when the first such message is kept
        self.book = book  # whose rules these are
        self.rules = book.seeing(kind)
        self.at_admission = book.at_admission(kind)
        self.at_attempts = book.at_attempts(kind)
        self.may_park = any(rule.may_defer for rule in self.rules)
        self.memo: Memo = {}


class _Floors:
    """From which stamps on a send of a kind, and its task, can matter at one moment, by the kind's number."""

    __slots__ = ("_by_kind", "_kinds", "book", "now_ms")

    def __init__(self, book: Rulebook, kinds: list[Kind], now_ms: int) -> None:
        self.book = book
        self.now_ms = now_ms
        self._kinds = kinds
        self._by_kind: dict[int, tuple[int, int]] = {}

    def sends(self, number: int) -> int:
        """For a send."""
        return self._of(number)[0]

    def tasks(self, number: int) -> int:
        """For its task."""
        return self._of(number)[1]

    def _of(self, number: int) -> tuple[int, int]:
        floors = self._by_kind.get(number)
        if floors is None:
            sends_ms, tasks_ms = self.book.horizons_ms(self._kinds[number])
            floors = stamp(self.now_ms - sends_ms + 1), stamp(self.now_ms - tasks_ms + 1)
            self._by_kind[number] = floors
        return floors


class Partition:
    """State of one partition: users' events, messages in flight, messages parked."""

    __slots__ = (
        "_floors", "_kind_ids", "_shapes", "book", "id", "in_flight", "kinds", "max_events", "parked", "users",
        "window_ms",
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
        self._floors = _Floors(book, self.kinds, 0)

    # -- reading

    def shape(self, kind: Kind) -> "Shape":
        """What this partition and the rules in force have to say of such messages."""
        shape = self._shapes.get(kind)
        if shape is None:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[kind] = Shape(kind, self.book)
        return shape

    def view(
        self,
        identity: str,
        shape: "Shape",
        listed: Listed | None,
        calendar: Calendar,
        own_calendar: Calendar | None,
        words: Mapping[str, "WordList"],
    ) -> UserView:
        """A user as the rules see them that see messages of this shape."""
        packed = self.users.get(identity)
        return UserView(packed, shape.kind, self.kinds, shape.memo, listed, calendar, own_calendar, words)

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
        self.reserve(message, at_ms, self.shape(kind_of(message)))

    def reserve(self, message: Message, at_ms: int, shape: Shape) -> None:
        """`admit` for a caller that has the message's shape."""
        if self.parked:
            self.parked.pop(message.id, None)
        self.in_flight[message.id] = message
        if not message.slot:
            return
        number = shape.number
        if number is None:
            number = shape.number = self.intern(shape.kind)
        at_once = message.due_ms <= message.admitted_ms
        key = message.key if at_once else instance(message)
        record = pack(key, at_ms, number, message.content, COUNTED)
        if message.task is not None:
            record += pack(instance(message), at_ms, number, task_hash(message.task), TASK)
        self._remember(message.identity, record, at_ms)

    def park(self, message: Message, at_ms: int) -> None:
        """Keep the message until its due time. One that is parked again only gets the new time."""
        if message.id not in self.parked:
            kind = self.intern(kind_of(message))
            key = message.key if at_ms == message.admitted_ms else instance(message)
            self._remember(message.identity, pack(key, at_ms, kind, message.content, PARKED), at_ms)
        self.parked[message.id] = message

    def settle(self, end: End) -> Message | None:
        """The message has ended; its slot is free again when it surely was not sent. None if it had ended before."""
        message = self.in_flight.pop(end.message, None)
        if message is None:
            return None
        if message.fan:
            self._settle_in_fan(message, end)
        elif end.refund:
            self._refund(message)
        return message

    def is_last(self, ended: Message) -> bool:
        """Whether nothing more will come of the trigger on this channel, and nothing has: of a message that has just
        ended without being sent."""
        return not ended.fan or (ended.slot and not any(id_ in self.in_flight for id_ in ended.fan))

    def _settle_in_fan(self, message: Message, end: End) -> None:
        """The messages of a fan share one slot. Once one of them was sent nobody holds it, so it is never free again;
        one that was not hands it on, and the last of them gives it back."""
        fan = message.fan or ()
        others = [self.in_flight[id_] for id_ in fan if id_ in self.in_flight]
        if not end.refund:
            for other in others:
                if other.slot:
                    self.in_flight[other.id] = msgspec.structs.replace(other, slot=False)
        elif message.slot and others:
            self.in_flight[others[0].id] = msgspec.structs.replace(others[0], slot=True)
        elif message.slot:
            self._refund(message)

    def _refund(self, message: Message) -> None:
        packed = self.users.get(message.identity)
        if packed is None:
            return
        kinds, channel = self.kinds, message.channel
        left = bare(refund(packed, message, lambda kind: kinds[kind].channel == channel))
        if left:
            self.users[message.identity] = padded(left)
        else:
            del self.users[message.identity]

    def block(self, blocked: Blocked, at_ms: int) -> None:
        """Remember a block that was its trigger's answer; a parked message that was blocked is no longer parked."""
        if self.parked.pop(blocked.message, None) is None and blocked.final:
            kind = self.intern(Kind(blocked.channel, "", 0, "", "", blocked.objection.kind))
            state = FILTERED if blocked.status == "filtered" else INTERCEPTED
            self._remember(blocked.identity, pack(blocked.key, at_ms, kind, 0, state), at_ms)

    def intern(self, kind: Kind) -> int:
        """The number of a kind in this partition's table."""
        number = self._kind_ids.get(kind)
        if number is None:
            number = self._kind_ids[kind] = len(self.kinds)
            self.kinds.append(kind)
        return number

    def _remember(self, identity: str, record: bytes, at_ms: int) -> None:
        packed = self.users.get(identity)
        if packed is None:
            self.users[identity] = padded(record)
            return
        kept = joined(packed, record)
        # Now and then, by chance of the key: a user must not be gone through for every message.
        if len(kept) > MANY_BYTES and not record[KEY_AT] & 7:
            kept = self.pruned(kept, at_ms)
        self.users[identity] = kept

    def pruned(self, packed: bytes, now_ms: int) -> bytes:
        """The records that can still matter: to idempotency within its window, to a rule within its own."""
        records = bare(packed)
        if not records:
            return records
        oldest = EVENT.unpack_from(records)[0]
        if len(records) <= self.max_events * EVENT.size and oldest >= stamp(now_ms - self.window_ms):
            return packed
        kept = self._lasting(records, now_ms)
        return packed if kept is records else padded(kept)

    def _lasting(self, packed: bytes, now_ms: int) -> bytes:
        spare = len(packed) // EVENT.size - self.max_events
        floors = self._floors
        if floors.now_ms != now_ms or floors.book is not self.book:
            floors = self._floors = _Floors(self.book, self.kinds, now_ms)
        return lasting(packed, spare, stamp(now_ms - self.window_ms + 1), floors.sends, floors.tasks)

    # -- snapshots

    def slices(self, per_slice: int) -> Iterator[bytes]:
        """The state at the moment of the call, encoded piece by piece as the iterator is drawn."""
        users = iter(self.users.copy().items())  # a dict's own copy takes a third of the time of any list of it
        in_flight, parked = list(self.in_flight.values()), list(self.parked.values())
        kinds = list(self.kinds)

        def pieces() -> Iterator[bytes]:
            yield _encoder.encode(Slice(kinds))
            for at in range(0, len(in_flight), per_slice):
                yield _encoder.encode(Slice(in_flight=in_flight[at : at + per_slice]))
            for at in range(0, len(parked), per_slice):
                yield _encoder.encode(Slice(parked=parked[at : at + per_slice]))
            while piece := dict(islice(users, per_slice)):
                yield _encoder.encode(Slice(users=piece))

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

