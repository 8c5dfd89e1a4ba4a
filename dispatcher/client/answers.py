"""What the dispatcher answers to a caller."""

from typing import Any, Literal

from msgspec import Struct

#: Which results a stream yields: every one, only those that were not accepted, or none.
Results = Literal["all", "failed", "none"]


class ResultMessage(Struct, frozen=True, gc=False):
    """What became of one channel; `due` (RFC 3339) is when a message for later will be decided."""

    message: str | None = None
    channel: str = ""
    status: str = ""
    reason: str | None = None
    due: str | None = None


class First(Struct, frozen=True, gc=False):
    """The answer a duplicate's trigger got the first time."""

    status: str
    reason: str | None = None


class Result(Struct, frozen=True):
    """The answer to one trigger; `seq` is its position in what the caller gave."""

    status: str
    seq: int = 0
    id: str | None = None
    reason: str | None = None
    messages: tuple[ResultMessage, ...] = ()
    first: First | None = None


class LegSummary(Struct, frozen=True):
    """The server's count at the end of one connection's stream."""

    total: int
    accepted: int = 0


class AnswerLine(Result, frozen=True):
    """One line of a stream's answer: a result, or (last) the summary."""

    status: str = ""
    summary: LegSummary | None = None


class Summary(Struct, frozen=True):
    """How a stream went. `total` counts answered triggers; `resent` counts sends after the first.

    `reasons` counts the reasons of results that were not accepted, by the part before a colon
    (`invalid: params.x: ...` counts as `invalid`).
    """

    total: int = 0
    accepted: int = 0
    filtered: int = 0
    intercepted: int = 0
    rejected: int = 0
    duplicate: int = 0
    overloaded: int = 0
    reasons: dict[str, int] = {}
    reconnects: int = 0
    resent: int = 0


class UserLoad(Struct, frozen=True):
    """How a bulk upsert of users went; every error carries `seq`, the position in what the caller gave."""

    total: int
    errors: list[dict[str, Any]]
