"""How long to wait before the next attempt. Pure: the random number generator comes in."""

from random import Random
from typing import Final

FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0


def delay_s(attempt: int, retry_after_s: float | None, rng: Random) -> float:
    """Seconds to wait before attempt `attempt` (1 is the first retry).

    Exponential with "equal jitter": half of it certain, half random (Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog 2015), so that it never comes back at once and clients do not come back together. What the server
    asked for (`Retry-After`) is a lower bound, with the jitter on top.
    """
    ceiling_s: float = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(attempt - 1, 16))
    jitter_s = ceiling_s / 2 * rng.random()
    if retry_after_s is not None:
        return retry_after_s + jitter_s
    return ceiling_s / 2 + jitter_s
