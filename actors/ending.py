"""Ending a task for sure."""

import asyncio
from typing import Any, Final

AGAIN_S: Final = 0.5


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel until it has ended; what it ended with is not raised.

    One cancellation may be lost: that of a Python 3.11 `asyncio.wait_for` whose work ends in the same turn of the loop
    (cpython issue 86296), and the Redis client writes through one.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()  # else asyncio complains that nobody looked
