"""What the system remembers of one user: a packed run of records, and the questions rules ask of it.

One record = 20 bytes, little endian, two 64-bit words and a 32-bit one:
`time_ms << 24 | kind << 3 | state` | `content bits 0..15 << 48 | key` | `content bits 16..39`.
Time is milliseconds since 2020-01-01 in 40 bits (until 2054); `kind` indexes the partition's table of `Kind`s; `key` is
48 bits of the trigger's (line, id, identity). A message of a trigger with a `task` is followed by a TASK record, which
has the hash of the task where others have that of the content. A user without records is not stored at all.

Blank records (all zeros) stand in front of the first two, so that a user takes three from the start: bytes that grew
through three sizes left every pool of the allocator half empty, 240 bytes a user instead of 190.

Twenty bytes, since three records then fill a 96-byte block of Python's allocator to the last byte. What the hashes
cost: two of a user's triggers are taken for one about once in 2**48, two contents within `repeat`'s window in 2**40.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import Struct as Layout
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from dispatcher.calendar import Calendar
from dispatcher.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.blacklist import Listed
    from dispatcher.keywords import WordList

EPOCH_MS: Final = 1_577_836_800_000
EVENT: Final = Layout("<QQI")
_STAMPS: Final = Layout("<Q12x")  # of each record only the first word
_FIRST: Final = Layout("<Q")
STAMP_BITS: Final = 24
KEY_MASK: Final = (1 << 48) - 1
CONTENT_BYTES: Final = 5
_STATE: Final = 7
_PLACE: Final = (1 << STAMP_BITS) - 1  # a record's kind and state
_SPREAD: Final = 0x9E37_79B9_7F4B  # odd, 2**48 over the golden ratio: near times come far apart (Knuth, TAOCP 6.4)
KEY_AT: Final = 8  # bytes into a record
_CONTENT_AT: Final = 14

BLANK: Final = bytes(EVENT.size)
FEWEST: Final = 3  # records, blank ones counted

#: States of a record. Only COUNTED ones are seen by rules; all but TASK are answers that idempotency knows.
COUNTED, REFUNDED, PARKED, FILTERED, INTERCEPTED, TASK = range(6)


class Kind(NamedTuple):
    """What rules can tell sends apart by; for a blocked trigger `reason` says why instead."""

    channel: str
    type: str
    level: int
    line: str
    template: str
    reason: str | None = None


class Event(NamedTuple):
    """One unpacked record."""

    key: int
    at_ms: int
    kind: int
    content: int
    state: int


def stamp(at_ms: int) -> int:
    """Where records of this moment begin in the order of a record's first word."""
    return (at_ms - EPOCH_MS) << STAMP_BITS


def moment(first: int) -> int:
    """The time in a record's first word, epoch milliseconds."""
    return (first >> STAMP_BITS) + EPOCH_MS


def pack(key: int, at_ms: int, kind: int, content: int, state: int) -> bytes:
    """One record as 20 bytes."""
    return EVENT.pack(
        (at_ms - EPOCH_MS) << STAMP_BITS | kind << 3 | state,
        (content & 0xFFFF) << 48 | key & KEY_MASK,
        content >> 16 & 0xFF_FFFF,
    )


def events_of(packed: bytes) -> list[Event]:
    """All records of a user but blank ones, oldest first."""
    return [
        Event(second & KEY_MASK, moment(first), (first & _PLACE) >> 3, third << 16 | second >> 48, first & _STATE)
        for first, second, third in EVENT.iter_unpack(packed)
        if first
    ]


def padded(records: bytes) -> bytes:
    """These records, with blank ones in front where they are few; none at all stay none."""
    few = FEWEST - len(records) // EVENT.size
    return BLANK * few + records if few > 0 and records else records


def joined(packed: bytes, record: bytes) -> bytes:
    """A user's records with a new one, or two, in their place by time; they take the room of blank ones."""
    if packed.startswith(BLANK):
        packed = packed[EVENT.size :]
        if len(record) > EVENT.size and packed.startswith(BLANK):
            packed = packed[EVENT.size :]
    last = _FIRST.unpack_from(packed, len(packed) - EVENT.size)[0]
    if last >> STAMP_BITS > _FIRST.unpack_from(record)[0] >> STAMP_BITS:  # the machine's clock was set back
        return _sorted(packed + record)
    return packed + record


def _sorted(packed: bytes) -> bytes:
    records = [packed[at : at + EVENT.size] for at in range(0, len(packed), EVENT.size)]
    return b"".join(sorted(records, key=lambda record: _FIRST.unpack_from(record)[0] >> STAMP_BITS))


def bare(packed: bytes) -> bytes:
    """The records without blank ones."""
    while packed.startswith(BLANK):
        packed = packed[EVENT.size :]
    return packed


@lru_cache(maxsize=4096)
def task_hash(task: str) -> int:
    """40 bits of a task's name."""
    return int.from_bytes(blake2b(task.encode(), digest_size=5).digest(), "little")


def lasting(
    packed: bytes, spare: int, after: int, counted_after: Callable[[int], int], task_after: Callable[[int], int]
) -> bytes:
    """The records that still matter, none of them blank: answers of this stamp or later, but for the first `spare`
    records, and sends and tasks of the stamp or later that these functions give for their kind's number."""
    keep = []
    for i, (first,) in enumerate(_STAMPS.iter_unpack(packed)):
        state, kind = first & _STATE, (first & _PLACE) >> 3
        if state == TASK:
            kept = first >= task_after(kind)
        else:
            kept = (i >= spare and first >= after) or (state == COUNTED and first >= counted_after(kind))
        if kept:
            keep.append(i)
    if len(keep) * EVENT.size == len(packed):
        return packed
    return b"".join([packed[i * EVENT.size : (i + 1) * EVENT.size] for i in keep])


def known(packed: bytes, key: int, after_ms: int) -> bool:
    """Whether the user has a record of this trigger later than `after_ms`. A memory search first: nearly every trigger
    is new."""
    wanted = (key & KEY_MASK).to_bytes(6, "little")
    at = packed.find(wanted)
    while at >= 0:
        if at % EVENT.size == KEY_AT and EVENT.unpack_from(packed, at - KEY_AT)[0] >= stamp(after_ms + 1):
            return True
        at = packed.find(wanted, at + 1)
    return False


def instance(message: Message) -> int:
    """What tells one use of a trigger's id from the next, which is another trigger: 48 bits in the place of the key.
    Records decided after their trigger's answer (when due, on a later channel) have it, since they are no answers; TASK
    records always do."""
    return (message.key + message.admitted_ms * _SPREAD) & KEY_MASK


def refund(packed: bytes, message: Message, is_kind: Callable[[int], bool]) -> bytes:
    """The records with the counted one of the message turned to REFUNDED, and without its TASK record; either may have
    been dropped before. `is_kind`: whether the kind with this number is of its channel."""
    used, answered_ms = instance(message), message.admitted_ms
    at_once = message.due_ms <= answered_ms
    key = message.key & KEY_MASK if at_once else used
    kept, size = [], EVENT.size
    for at, (first, second, third) in zip(range(0, len(packed), size), EVENT.iter_unpack(packed), strict=True):
        record, mine, state = packed[at : at + size], second & KEY_MASK, first & _STATE
        if mine in (key, used) and is_kind((first & _PLACE) >> 3):
            if state == TASK and mine == used:
                continue
            if state == COUNTED and mine == key and (not at_once or moment(first) == answered_ms):
                record = EVENT.pack(first | REFUNDED, second, third)
        kept.append(record)
    return b"".join(kept)


_MOST_AT_ONCE: Final = 65
_AT_ONCE: Final = [Layout("<" + "Q12x" * n) for n in range(_MOST_AT_ONCE)]


def _firsts_of(packed: bytes) -> Sequence[int]:
    """The first word of each record. At one go where there are not too many: half the time of one by one."""
    n = len(packed) // EVENT.size
    if n < _MOST_AT_ONCE:
        return _AT_ONCE[n].unpack(packed)
    return [first for (first,) in _STAMPS.iter_unpack(packed)]


class Counting(Protocol):
    """The part of a rule that a count needs: its name, and which earlier sends it counts against a message."""

    @property
    def name(self) -> str: ...

    def counts(self, sent: Kind, message: Kind) -> bool: ...


class Counted(dict[int, bool]):
    """Which records one rule counts against messages of one kind, by the kind and state in their first words; worked
    out when first asked."""

    __slots__ = ("_kind", "_kinds", "_rule")

    def __init__(self, rule: Counting, kind: Kind, kinds: list[Kind]) -> None:
        super().__init__()
        self._rule = rule
        self._kind = kind
        self._kinds = kinds

    def __missing__(self, place: int) -> bool:
        state, kind = place & _STATE, self._kinds[place >> 3]
        counts = self[place] = state == COUNTED and self._rule.counts(kind, self._kind)
        return counts


#: What rules have found out about other kinds for messages of one kind, by the rule's name.
Memo = dict[str, Counted]


class UserView:
    """One user at one moment, as the rules see them. Reads only. `most`: no more sends than this can count.

    `memo` caches what rules count against messages of this kind; it belongs to the partition.
    """

    __slots__ = (
        "_firsts", "_kind", "_kinds", "_memo", "_packed", "calendar", "listed", "most", "own_calendar", "words",
    )  # fmt: skip

    def __init__(
        self,
        packed: bytes | None,
        kind: Kind,
        kinds: list[Kind],
        memo: Memo,
        listed: "Listed | None",
        calendar: Calendar,
        own_calendar: Calendar | None,
        words: "Mapping[str, WordList]",
    ) -> None:
        self.most = len(packed) // EVENT.size if packed else 0
        self._packed = packed or b""
        self._firsts: Sequence[int] | None = None  # every record's first word, once asked for
        self._kind = kind
        self._kinds = kinds
        self._memo = memo
        self.listed = listed
        self.calendar = calendar
        self.own_calendar = own_calendar
        self.words = words

    def stamps(self, rule: Counting, since_ms: int) -> list[int]:
        """`times`, as first words of records: all that a count needs."""
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = _firsts_of(self._packed)
        counts = self._memo.get(rule.name) or self._counted(rule)
        floor = (since_ms - EPOCH_MS) << STAMP_BITS
        if floor <= 0:
            floor = 1  # a blank one's is 0
        begin = bisect_left(firsts, floor)
        return [first for first in (firsts[begin:] if begin else firsts) if counts[first & _PLACE]]

    def fewer(self, limit: int, since_ms: int) -> bool:
        """Whether less than `limit` records, counted or not, are of that time or later: no rule then counts as many.
        One look, since they lie in the order of time; most messages need no other."""
        if self.most < limit:
            return True
        firsts = self._firsts
        if firsts is None:
            firsts = self._firsts = _firsts_of(self._packed)
        return limit > 0 and firsts[-limit] < (since_ms - EPOCH_MS) << STAMP_BITS

    def times(self, rule: Counting, since_ms: int) -> list[int]:
        """When the sends that `rule` counts against this message were decided, at or after `since_ms`, oldest first,
        epoch milliseconds."""
        return [moment(first) for first in self.stamps(rule, since_ms)]

    def holds(self, hashed: int) -> bool:
        """Whether these bytes stand among the records at all: no is certain, yes is not."""
        return hashed.to_bytes(CONTENT_BYTES, "little") in self._packed

    def last_alike(self, rule: Counting, message: Message, since_ms: int) -> int | None:
        """When the latest counted send with the same rendered content was decided, if at or after `since_ms`."""
        found = self._found(rule, message.content, COUNTED, since_ms)
        return moment(found[-1][0]) if found else None

    def task_times(self, rule: Counting, message: Message, since_ms: int) -> list[int]:
        """When other triggers of the message's task last reached this user, at or after `since_ms`: one time for each
        trigger, oldest first, epoch milliseconds."""
        if message.task is None:
            return []
        found = self._found(rule, task_hash(message.task), TASK, since_ms)
        last = {second & KEY_MASK: moment(first) for first, second in found}
        last.pop(instance(message), None)
        return sorted(last.values())

    def _found(self, rule: Counting, hashed: int, state: int, since_ms: int) -> list[tuple[int, int]]:
        """The records of this hash and state that the rule counts, oldest first. By memory search: there are few."""
        packed, wanted = self._packed, hashed.to_bytes(CONTENT_BYTES, "little")
        at = packed.find(wanted)
        if at < 0:
            return []
        floor, counts = stamp(since_ms), self._counted(rule)
        found = []
        while at >= 0:
            if at % EVENT.size == _CONTENT_AT:
                first, second, _ = EVENT.unpack_from(packed, at - _CONTENT_AT)
                if first >= floor and first & _STATE == state and counts[(first & _PLACE) ^ state]:
                    found.append((first, second))
            at = packed.find(wanted, at + 1)
        return found

    def _counted(self, rule: Counting) -> Counted:
        counts = self._memo.get(rule.name)
        if counts is None:
            counts = self._memo[rule.name] = Counted(rule, self._kind, self._kinds)
        return counts
