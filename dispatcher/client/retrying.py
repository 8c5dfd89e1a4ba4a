"""When to try again and when to give up. Shared by streams and single requests."""

import asyncio
from random import Random

from dispatcher.client.backoff import delay_s
from dispatcher.client.errors import Cut, GaveUp, Unavailable


class Retrying:
    """Counts attempts since the last progress; gives up when there was none for `patience_s`."""

    def __init__(self, patience_s: float, rng: Random) -> None:
        self._patience_s = patience_s
        self._rng = rng
        self._attempt = 0
        self._progress_at = asyncio.get_running_loop().time()
        self.trouble: str | None = None  # what the last attempt without progress came to

    def progress(self) -> None:
        """Something moved, or nothing is waited for: the patience starts anew."""
        self.trouble = None
        self._attempt = 0
        self._progress_at = asyncio.get_running_loop().time()

    def silent_s(self) -> float:
        """Seconds since the last progress."""
        return asyncio.get_running_loop().time() - self._progress_at

    async def pause(self, error: Cut | Unavailable, unanswered: int) -> None:
        """Wait before the next attempt. Raises GaveUp when it would come after the patience has run out."""
        self._attempt += 1
        self.trouble = str(error)
        retry_after_s = error.retry_after_s if isinstance(error, Unavailable) else None
        pause_s = delay_s(self._attempt, retry_after_s, self._rng)
        if self.silent_s() + pause_s > self._patience_s:
            asked = f" (it asked to wait {retry_after_s:g} s)" if retry_after_s else ""
            raise GaveUp(unanswered, self._patience_s, f"{error}{asked}") from error
        await asyncio.sleep(pause_s)
