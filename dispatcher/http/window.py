"""How much of a stream may be under way at once."""

import asyncio


class Window:
    """Counts triggers and bytes in flight; its one reader waits while there are too many."""

    __slots__ = ("_bytes", "_max_bytes", "_max_triggers", "_triggers", "_waiter")

    def __init__(self, max_triggers: int, max_bytes: int) -> None:
        self._max_triggers = max_triggers
        self._max_bytes = max_bytes
        self._triggers = 0
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the reader should wait."""
        return self._triggers >= self._max_triggers or self._bytes >= self._max_bytes

    def take(self, triggers: int, size_bytes: int) -> None:
        """These are in flight now."""
        self._triggers += triggers
        self._bytes += size_bytes

    def give(self, triggers: int, size_bytes: int) -> None:
        """These are done."""
        self._triggers -= triggers
        self._bytes -= size_bytes
        if self._waiter is not None and not self.full and not self._waiter.done():
            self._waiter.set_result(None)

    async def room(self) -> None:
        """Returns when the window is not full."""
        while self.full:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
