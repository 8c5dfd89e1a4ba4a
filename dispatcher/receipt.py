"""A receipt: what one attempt at a provider came to. Exceptions mean bugs, never answers.

Source of the table: architecture section 6.
"""

from typing import Final, Literal

from msgspec import Struct

Answer = Literal[
    "accepted",
    "invalid_recipient",
    "rejected",
    "throttled",
    "transient",
    "auth",
    "unknown",
    "refused",
]

#: Answers a provider (or the way to it) can give. `refused` is ours: no sender had room, nothing was written.
ANSWERS: Final[tuple[Answer, ...]] = (
    "accepted",
    "invalid_recipient",
    "rejected",
    "throttled",
    "transient",
    "auth",
    "unknown",
    "refused",
)

#: How a message ended, as the log's `settle` entries and `dispatcher_outcomes_total` name it.
OUTCOMES: Final = ("sent", "unknown", "failed", "expired", "filtered", "intercepted")


class Receipt(Struct, frozen=True, array_like=True, gc=False):
    """The answer of one attempt. `provider` is empty when no provider was tried (`refused` before any choice)."""

    id: str
    answer: Answer
    provider: str = ""
    ref: str | None = None  # the provider's reference
    code: str | None = None  # the provider's own word
    retry_after_s: float | None = None
    find: str | None = None  # what its delivery report will name; None: our own id, or there will be none
    segments: int | None = None  # as the provider billed them
    narrow: bool = False  # throttled by a limit of this address or content: the provider takes others meanwhile
