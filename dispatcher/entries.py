"""The log's entries: effects, not inputs. Everything about a partition's users is a fold of them.

On the wire: msgpack arrays, told apart by their first number.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.message import Message
from dispatcher.rules import Objection


class Admit(Struct, array_like=True, tag=0, frozen=True, gc=False):
    """These messages were accepted and their slots reserved at `at_ms`. A parked one is no longer parked."""

    at_ms: int
    messages: Sequence[Message]


class Park(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """These messages were accepted and will be decided at their `due_ms`."""

    at_ms: int
    messages: Sequence[Message]


class End(Struct, array_like=True, frozen=True, gc=False):
    """How one message ended. `refund`: it surely was not sent, its slot is free again.

    `segments` and `price`: what it was billed, as far as that was known at its end (`dispatcher.bill`).
    """

    message: str
    outcome: str
    refund: bool
    provider: str = ""
    ref: str | None = None
    code: str | None = None
    attempts: int = 1
    segments: int | None = None
    price: float | None = None


class Settle(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """These messages ended at `at_ms`."""

    at_ms: int
    ends: Sequence[End]


class Blocked(Struct, array_like=True, frozen=True, gc=False):
    """One message that was filtered or intercepted, with the numbers given at the time.

    `final`: the trigger's answer was this block, so a resend of the trigger is answered with it.
    """

    identity: str
    key: int
    message: str
    trigger: str
    channel: str
    line: str
    template: str
    status: str
    objection: Objection
    final: bool


class Block(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """These messages were blocked at `at_ms`; a parked one among them is no longer parked."""

    at_ms: int
    blocks: Sequence[Blocked]


class Opened(Struct, array_like=True, tag=4, frozen=True, gc=False):
    """A new owner took the partition over at `at_ms`, with so many messages in flight."""

    at_ms: int
    epoch: int
    in_flight: int


class Delivery(Struct, array_like=True, frozen=True, gc=False):
    """What a provider said later of one message (`dispatcher.report`). `at_ms`: when that was, 0 when it does not say.
    `segments` and `price` are as billed, and replace what was reckoned when it was sent."""

    message: str
    status: str
    provider: str = ""
    code: str | None = None
    at_ms: int = 0
    segments: int | None = None
    price: float | None = None


class Reported(Struct, array_like=True, tag=5, frozen=True, gc=False):
    """Delivery reports that came at `at_ms`. They may come before the message's end is in the log, and again: of one
    message the first final one counts, whatever comes after it."""

    at_ms: int
    reports: Sequence[Delivery]


Entry = Admit | Park | Settle | Block | Opened | Reported

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Entry)


def encode_entry(entry: Entry) -> bytes:
    """The entry as the log carries it."""
    return _encoder.encode(entry)


def encode_admit(at_ms: int, messages: Sequence[bytes]) -> bytes:
    """`encode_entry` of an `Admit` whose messages are encoded already, since they also travel one by one."""
    return _encoder.encode((0, at_ms, [msgspec.Raw(message) for message in messages]))


def decode_entry(data: bytes) -> Entry:
    """The entry in these bytes. Raises `msgspec.ValidationError`, which means the log is not ours."""
    entry: Entry = _decoder.decode(data)
    return entry
