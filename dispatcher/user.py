"""What the system remembers of one user: a packed run of events, and the questions rules ask of it.

One event = 24 bytes, little endian, three 64-bit words:
`key` (of the trigger: line, id, identity) | `time_ms << 24 | kind` | `content << 8 | state`.
Time is milliseconds since 2020-01-01 in 40 bits (until 2054); `kind` indexes the partition's table of `Kind`s.
A user without events is not stored at all.
"""

from collections.abc import Callable
from struct import Struct as Layout
from typing import Final, NamedTuple, Protocol

from dispatcher.calendar import Calendar
from dispatcher.documents import BlacklistEntry
from dispatcher.message import Message

EPOCH_MS: Final = 1_577_836_800_000
EVENT: Final = Layout("<QQQ")
KEY: Final = Layout("<Q")
KIND_BITS: Final = 24
KIND_MASK: Final = (1 << KIND_BITS) - 1

#: States of an event. Only COUNTED ones are seen by rules; all are seen by idempotency.
COUNTED, REFUNDED, PARKED, FILTERED, INTERCEPTED = range(5)


class Kind(NamedTuple):
    """What rules can tell sends apart by; for a blocked trigger `reason` says why instead."""

    channel: str
    type: str
    level: int
    line: str
    template: str
    task: str | None
    reason: str | None = None


class Event(NamedTuple):
    """One unpacked event."""

    key: int
    at_ms: int
    kind: int
    content: int
    state: int


def stamp(at_ms: int) -> int:
    """Where events of this moment begin in the order of an event's middle word."""
    return (at_ms - EPOCH_MS) << KIND_BITS


def pack(key: int, at_ms: int, kind: int, content: int, state: int) -> bytes:
    """One event as 24 bytes."""
    return EVENT.pack(key, (at_ms - EPOCH_MS) << KIND_BITS | kind, content << 8 | state)


def events_of(packed: bytes) -> list[Event]:
    """All events of a user, oldest first."""
    return [
        Event(key, (when >> KIND_BITS) + EPOCH_MS, when & KIND_MASK, what >> 8, what & 255)
        for key, when, what in EVENT.iter_unpack(packed)
    ]


def known(packed: bytes, key: int, after_ms: int) -> bool:
    """Whether the user has an event of this trigger later than `after_ms`. A memory search first: nearly every trigger
    is new."""
    wanted = KEY.pack(key)
    at = packed.find(wanted)
    while at >= 0:
        if at % EVENT.size == 0 and EVENT.unpack_from(packed, at)[1] >= stamp(after_ms + 1):
            return True
        at = packed.find(wanted, at + 1)
    return False


def refund(packed: bytes, key: int, is_kind: Callable[[int], bool]) -> bytes:
    """The events with the latest counted one of `key` whose kind fits turned to REFUNDED (unchanged if there is none).
    The latest: an id that was used again after its idempotency window has an older event, which ended long ago."""
    for at in range(len(packed) - EVENT.size, -1, -EVENT.size):
        event_key, when, what = EVENT.unpack_from(packed, at)
        if event_key == key and what & 255 == COUNTED and is_kind(when & KIND_MASK):
            return packed[:at] + EVENT.pack(key, when, what | REFUNDED) + packed[at + EVENT.size :]
    return packed


_NO_SENDS: Final[list[tuple[int, int, int]]] = []


class Counting(Protocol):
    """The part of a rule that a count needs: its name, and which earlier sends it counts against a message."""

    @property
    def name(self) -> str: ...

    def counts(self, sent: Kind, message: Kind) -> bool: ...


class UserView:
    """One user at one moment, as the rules see them. Reads only.

    `memo` caches, per rule name, which kinds count against this message's kind; it belongs to the partition.
    """

    __slots__ = ("_kinds", "_memo", "calendar", "kind", "listed", "own_calendar", "sends")

    def __init__(
        self,
        packed: bytes | None,
        kind: Kind,
        kinds: list[Kind],
        memo: dict[str, dict[int, bool]],
        listed: BlacklistEntry | None,
        calendar: Calendar,
        own_calendar: Calendar | None = None,
    ) -> None:
        #: The counted events, unpacked, oldest first: (key, when, what).
        self.sends = [event for event in EVENT.iter_unpack(packed) if not event[2] & 255] if packed else _NO_SENDS
        self._kinds = kinds
        self._memo = memo
        self.kind = kind
        self.listed = listed
        self.calendar = calendar
        self.own_calendar = own_calendar

    def count(self, rule: Counting, since_ms: int) -> int:
        """Sends at or after `since_ms` that `rule` counts against this message."""
        return len(self.times(rule, since_ms)) if self.sends else 0

    def times(self, rule: Counting, since_ms: int) -> list[int]:
        """When those sends were decided, oldest first, epoch milliseconds."""
        memo = self._memo.get(rule.name)
        if memo is None:
            memo = self._memo[rule.name] = {}
        floor = stamp(since_ms)
        found = []
        for _, when, _ in self.sends:
            if when >= floor:
                kind = when & KIND_MASK
                counts = memo.get(kind)
                if counts is None:
                    counts = memo[kind] = rule.counts(self._kinds[kind], self.kind)
                if counts:
                    found.append((when >> KIND_BITS) + EPOCH_MS)
        return found

    def last_alike(self, rule: Counting, message: Message, since_ms: int) -> int | None:
        """When the latest counted send with the same rendered content was decided, if at or after `since_ms`."""
        if not self.sends:
            return None
        floor = stamp(since_ms)
        alike = message.content << 8 | COUNTED
        found = None
        for _, when, what in self.sends:
            if what == alike and when >= floor and rule.counts(self._kinds[when & KIND_MASK], self.kind):
                found = (when >> KIND_BITS) + EPOCH_MS
        return found
