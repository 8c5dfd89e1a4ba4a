"""What follows a receipt: a pure function of (receipt, message, now).

Table: architecture section 6. Backoff: exponential with full jitter (Brooker, "Exponential Backoff And Jitter",
AWS Architecture Blog 2015), never past the message's expiry.
"""

from random import Random
from typing import Final

from msgspec import Struct

from dispatcher.receipt import Receipt

FIRST_BACKOFF_MS: Final = 250
MOST_BACKOFF_MS: Final = 30_000
#: A code is worthless after minutes: when its providers come back it must not sleep through the best part of that.
URGENT_BACKOFF_MS: Final = 2_000
REFUSED_MS: Final = 20
#: What nobody could try is asked after again within a second, and where many wait, so that this many are in a second.
NOBODY_MS: Final = 1_000
ASKED_PER_MS: Final = 20
#: `verification` goes elsewhere once when the outcome is unknown: a second code beats none.
SECOND_TRY_TYPES: Final = frozenset({"verification"})


class Done(Struct, frozen=True):
    """The message has ended. `refund`: it surely was not sent."""

    outcome: str
    refund: bool = False


class Retry(Struct, frozen=True):
    """Try again at `at_ms`; `elsewhere`: at another provider if there is one."""

    at_ms: int
    elsewhere: bool


_SENT: Final = Done("sent")
_UNKNOWN: Final = Done("unknown")
_FAILED: Final = Done("failed", refund=True)
_EXPIRED: Final = Done("expired", refund=True)


def next_step(
    receipt: Receipt,
    type_: str,
    attempt: int,
    now_ms: int,
    expires_ms: int,
    rng: Random,
    maybe_sent: bool = False,
    waiting: int = 0,
) -> Done | Retry:
    """`attempt` counts from 1 those that came to a provider; `receipt` is that attempt's. `maybe_sent`: an earlier
    attempt's outcome is unknown, so nothing is refunded any more and giving up means `unknown`. `waiting`: messages
    that wait to be tried again."""
    answer = receipt.answer
    if answer == "accepted":
        return _SENT
    if answer in ("rejected", "invalid_recipient"):
        return _UNKNOWN if maybe_sent else _FAILED
    if answer == "unknown":
        if maybe_sent or type_ not in SECOND_TRY_TYPES or now_ms >= expires_ms:
            return _UNKNOWN
        return Retry(now_ms, elsewhere=True)
    wait_ms = _wait_ms(receipt, type_, attempt, rng, waiting)
    if now_ms + wait_ms >= expires_ms:
        return _UNKNOWN if maybe_sent else _EXPIRED
    return Retry(now_ms + wait_ms, elsewhere=answer != "refused")


def _wait_ms(receipt: Receipt, type_: str, attempt: int, rng: Random, waiting: int) -> int:
    """The first retry of a failure goes elsewhere at once; from the second on it waits, and as long as it was told.

    Where no provider was there to try, nothing failed: however often that is so, the wait stays the same, so that it is
    over soon after one is back.
    """
    if receipt.answer == "refused":
        return REFUSED_MS
    if not receipt.provider:
        return crowd_wait_ms(type_, rng, waiting)
    if attempt == 1:
        return 0
    ceiling: int = min(FIRST_BACKOFF_MS * 2 ** min(attempt - 2, 16), _most_ms(type_))
    told_ms = min(round((receipt.retry_after_s or 0) * 1000), MOST_BACKOFF_MS)
    return max(1, round(rng.random() * ceiling), told_ms)


def crowd_wait_ms(type_: str, rng: Random, waiting: int) -> int:
    """How long a message waits that could not be tried, while `waiting` do: they share what comes first, at random."""
    return max(1, round(rng.random() * min(max(NOBODY_MS, waiting // ASKED_PER_MS), _most_ms(type_))))


def _most_ms(type_: str) -> int:
    return URGENT_BACKOFF_MS if type_ in SECOND_TRY_TYPES else MOST_BACKOFF_MS
