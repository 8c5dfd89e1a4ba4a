"""A dead letter: what is left of a message that surely was not sent, so that it can be explained and sent again.

Messages that ended `failed` or `expired` leave one. What ended `unknown` may have arrived and leaves none; what a rule
blocked leaves none either.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from dispatcher.documents import TypeName
from dispatcher.entries import End
from dispatcher.ident import message_id, place_of, time_prefix, trigger_key
from dispatcher.message import Message
from dispatcher.outbox import Ticket
from dispatcher.trigger import ChannelName, Id

LETTERED: Final = frozenset({"failed", "expired"})
#: Worthless once they are old, so they are only sent again when somebody names them.
PERISHABLE: Final = frozenset({"verification"})
PREFIX: Final = 10  # characters of a place that are its time
START: Final = "Z" * 36  # above every place
Moment = Annotated[datetime, Meta(tz=True)]
_encoder: Final = msgspec.msgpack.Encoder()


class Letter(Struct, frozen=True, array_like=True, gc=False):
    """How a message ended at `at_ms`, by whose word, after how many attempts, and the message itself."""

    at_ms: int
    outcome: str
    provider: str
    code: str | None
    attempts: int
    message: Message

    @property
    def place(self) -> str:
        """Where it stands among the others."""
        return letter_place(self.at_ms, self.message.id)


_decoder: Final = msgspec.msgpack.Decoder(Letter)


def letter_place(at_ms: int, message: str) -> str:
    """36 characters, in the order in which letters were left: time (10), message id (26)."""
    return time_prefix(at_ms) + message


def encode_letter(at_ms: int, end: End, message: bytes) -> bytes:
    """The letter of a message, which is encoded already, that ended so."""
    return _encoder.encode((at_ms, end.outcome, end.provider, end.code, end.attempts, msgspec.Raw(message)))


def letters_of(ends: Sequence[End], tickets: Sequence[Ticket], now_ms: int) -> list[tuple[str, bytes]]:
    """Place and letter of each message among these tickets whose end leaves one. One without a ticket leaves none."""
    if not ends or not tickets:
        return []
    raws, prefix = {ticket.message.id: ticket.raw for ticket in tickets}, time_prefix(now_ms)
    return [
        (prefix + end.message, encode_letter(now_ms, end, raws[end.message]))
        for end in ends
        if end.outcome in LETTERED and end.message in raws
    ]


def decode_letter(data: bytes) -> Letter:
    """The letter in these bytes."""
    return _decoder.decode(data)


class LetterFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters: those that are all of what is given. `since` is the first moment, `until` the first one after."""

    line: Id | None = None
    type: TypeName | None = None
    channel: ChannelName | None = None
    template: Id | None = None
    provider: Id | None = None
    code: str | None = None
    outcome: Literal["failed", "expired"] | None = None
    user: Id | None = None
    since: Moment | None = None
    until: Moment | None = None

    def sees(self, letter: Letter) -> bool:
        """Whether this is one of them."""
        message = letter.message
        told = (
            (self.line, message.line), (self.type, message.type), (self.channel, message.channel),
            (self.template, message.template), (self.user, message.user), (self.provider, letter.provider),
            (self.code, letter.code), (self.outcome, letter.outcome),
        )  # fmt: skip
        if any(wanted is not None and wanted != found for wanted, found in told):
            return False
        since_ms, until_ms = self.bounds_ms
        return since_ms <= letter.at_ms and (until_ms is None or letter.at_ms < until_ms)

    @property
    def bounds_ms(self) -> tuple[int, int | None]:
        """The first moment, and the first one after; None: there is none."""
        until_ms = None if self.until is None else max(0, round(self.until.timestamp() * 1000))
        return 0 if self.since is None else max(0, round(self.since.timestamp() * 1000)), until_ms


def again(letter: Letter, now_ms: int, ttl_ms: int | None) -> Message:
    """The letter's message as a new one, decided now, that expires after `ttl_ms` or its own time to live. Its content,
    address and trigger are the old ones; its key follows from the old id, so the same letter gives the same key. What
    was postponed has as its own time what it had left when it was due, or, where that is nothing, since it came."""
    old = letter.message
    place = place_of(old.id)
    if place is None:
        raise ValueError(f"{old.id!r} is no message id")
    key, salt = trigger_key(old.line, f"again:{old.id}", old.identity)
    if ttl_ms is None:
        ttl_ms = old.expires_ms - (old.due_ms if old.due_ms < old.expires_ms else old.admitted_ms)
    return msgspec.structs.replace(
        old, id=message_id(time_prefix(now_ms), salt, *place), admitted_ms=now_ms, due_ms=now_ms,
        expires_ms=now_ms + ttl_ms, key=key, fan=[], slot=True,
    )  # fmt: skip


# -- what people are shown


class ShownLetter(Struct):
    """A letter without what is nobody's business: `to` is masked, text and params are left out."""

    message: str
    at: datetime
    outcome: str
    provider: str | None
    code: str | None
    attempts: int
    trigger: str
    user: str | None
    to: str
    line: str
    type: str
    channel: str
    template: str
    admitted_at: datetime
    expires_at: datetime


def shown(letter: Letter) -> ShownLetter:
    """The letter as people see it."""
    m = letter.message
    return ShownLetter(
        m.id, _time(letter.at_ms), letter.outcome, letter.provider or None, letter.code, letter.attempts, m.trigger,
        m.user, masked(m.channel, m.to), m.line, m.type, m.channel, m.template, _time(m.admitted_ms),
        _time(m.expires_ms),
    )  # fmt: skip


def masked(channel: str, to: str) -> str:
    """An address that tells its owner what is meant, and nobody else where to write."""
    if channel == "email":
        name, _, domain = to.rpartition("@")
        return f"{name[:1]}****@{domain}"
    if channel == "webhook":
        return f"{re.split('[/?#]', to.partition('://')[2])[0].rpartition('@')[2]}/****"
    if channel == "sms" and len(to) > 10:
        return f"{to[:-8]}****{to[-4:]}"
    return f"****{to[-4:]}" if len(to) > 10 else "****"


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


# -- what gateways and shards say to each other about sending again


class ReplayCall(Struct, array_like=True):
    """Send the messages of these ids again. `ttl_ms`: None is each one's own."""

    ids: list[str]
    ttl_ms: int | None = None


class Replayed(Struct, array_like=True):
    """How many were, how many rules blocked (by their kind), and how many were passed over (by the reason)."""

    replayed: int = 0
    blocked: dict[str, int] = {}
    skipped: dict[str, int] = {}


# -- what the HTTP application and the gateway say to each other


class LetterPage(Struct):
    """Letters, newest first. `next`: the cursor of those below them; None: there are no more."""

    letters: list[Letter] = []
    next: str | None = None


class ReplayOrder(Struct, frozen=True):
    """Send again the letters that the filter sees, `limit` at most, newest first from below `cursor`; or, of those
    named, the ones it sees."""

    filter: LetterFilter
    ids: list[str] | None = None
    limit: int = 1_000
    ttl_s: float | None = None
    cursor: str | None = None


class ReplayReport(Struct):
    """What became of them: how many are sent again, how many a rule blocked (by its kind; their letters stay), and how
    many were passed over (by the reason). `next`: the cursor to go on with; null: nothing is left."""

    replayed: int = 0
    blocked: dict[str, int] = {}
    skipped: dict[str, int] = {}
    next: str | None = None

    def skip(self, reason: str, n: int) -> None:
        """So many more were passed over."""
        if n:
            self.skipped[reason] = self.skipped.get(reason, 0) + n

    def add(self, told: Replayed) -> None:
        """What a shard says."""
        self.replayed += told.replayed
        for kind, n in told.blocked.items():
            self.blocked[kind] = self.blocked.get(kind, 0) + n
        for reason, n in told.skipped.items():
            self.skip(reason, n)
