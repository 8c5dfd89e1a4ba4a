"""What tests of every folder share."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
    """Run a coroutine on a fresh uvloop loop; a hang is a failure with a name, not a stuck build. After a failure the
    loop is left open: closing one with work half done has hung twice, and then nobody sees what failed."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    result = runner.run(bounded())
    runner.close()
    return result


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a condition by asking it; say what was waited for when it does not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if await answer if isinstance(answer, Awaitable) else answer:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for: {what}")
        await asyncio.sleep(0.01)
