"""What a shard answers to a batch of orders, and how one result looks to the caller.

A result's body is JSON without braces and without `seq`, so that a gateway writes a line by putting `{"seq":7,` before
it and `}` behind it, instead of decoding and encoding every result again.
"""

from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.explanation import ChannelExplanation
from dispatcher.trigger import Order

STATUSES: Final = ("accepted", "filtered", "intercepted", "rejected", "duplicate", "overloaded")
STATUS_NUMBER: Final = {status: i for i, status in enumerate(STATUSES)}
ACCEPTED, FILTERED, INTERCEPTED, REJECTED, DUPLICATE, OVERLOADED = range(6)


class Want(IntEnum):
    """Which results the caller wants to read (`?results=`). REHEARSED: all of them, explained, and nothing done."""

    ALL = 0
    FAILED = 1
    NONE = 2
    REHEARSED = 3


class ResultMessage(Struct, gc=False):
    """What became of one channel. `due_ms`: when a message for later will be decided, epoch milliseconds."""

    message: str | None
    channel: str
    status: str
    reason: str | None = None
    due_ms: int | None = None


class First(Struct, gc=False):
    """The answer a duplicate's trigger got the first time."""

    status: str
    reason: str | None


class Result(Struct, gc=False):
    """The answer to one trigger."""

    id: str
    status: str
    reason: str | None = None
    messages: list[ResultMessage] = []
    first: First | None = None
    explain: list[ChannelExplanation] | None = None


class SubmitCall(Struct, array_like=True):
    """Orders for one shard, in groups as callers sent them; answered by one `Answers` for each group.

    `resend`: the gateway repeats a call that got no answer.
    """

    groups: list[list[Order]]
    want: int = 0
    resend: bool = False


class Answers(Struct, array_like=True):
    """A shard's answers to one group, in the order of its orders."""

    statuses: bytes  # one byte each, an index into STATUSES
    bodies: list[bytes | None]
    reasons: dict[str, int] = {}
    retry_after_s: float = 0.0


_quote: Final = msgspec.json.Encoder().encode


def body(result: Result) -> bytes:
    """The JSON members of a result, without braces."""
    parts = [b'"id":', _quote(result.id), b',"status":"', result.status.encode(), b'"']
    if result.reason is not None:
        parts += (b',"reason":', _quote(result.reason))
    else:
        parts.append(b',"reason":null')
    parts.append(b',"messages":[')
    separator = b'{"message":'
    for m in result.messages:
        parts += (separator, b"null" if m.message is None else b'"%b"' % m.message.encode())
        parts.append(
            b',"channel":"%b","status":"%b","reason":%b,"due":%b}'
            % (m.channel.encode(), m.status.encode(), _quote(m.reason), _due(m.due_ms))
        )
        separator = b',{"message":'
    parts.append(b"]")
    if result.first is not None:
        parts += (b',"first":', _quote(result.first))
    if result.explain is not None:
        parts += (b',"explain":', _quote(result.explain))
    return b"".join(parts)


def _due(at_ms: int | None) -> bytes:
    return b"null" if at_ms is None else _quote(datetime.fromtimestamp(at_ms / 1000, UTC))
