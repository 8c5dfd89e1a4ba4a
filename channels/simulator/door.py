"""A port of one provider's own: open, or shut, which refuses connections and resets those there are."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from channels.simulator.http import Connection

_BACKLOG: Final = 1024
_AGAIN_S: Final = 0.01


class Door:
    """`protocol` makes what serves a client, given the set that it enters itself in.

    One task at a time opens it, and goes on until the door is as it is wanted.
    """

    def __init__(self, host: str, family: int, protocol: Callable[[set[Connection]], Connection]) -> None:
        self._host = host
        self._family = family
        self._protocol = protocol
        self._connections: set[Connection] = set()
        # Bound and never listening: it keeps the port ours while the door is shut, and clients are refused.
        self._keeper = self._bound(0)
        self._port: int = self._keeper.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address of the port."""
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"

    def set(self, is_open: bool) -> None:
        """Open or shut it; shutting is done at once, opening a moment later."""
        self._wanted = is_open
        if not is_open:
            self._shut()
        elif self._server is None and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            while self._wanted and self._server is None:
                try:
                    opened = self._bound(self._port)
                    self._server = await asyncio.get_running_loop().create_server(
                        lambda: self._protocol(self._connections), sock=opened, backlog=_BACKLOG
                    )
                except OSError:  # the loop has yet to let go of the port
                    await asyncio.sleep(_AGAIN_S)
                if not self._wanted:
                    self._shut()
        finally:
            self._task = None

    def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.reset()

    async def settled(self) -> None:
        """Returns once it is as it is wanted."""
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """For good."""
        self._wanted = False
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._shut()
        self._keeper.close()

    def _bound(self, port: int) -> socket.socket:
        opened = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((self._host, port))
        except BaseException:
            opened.close()
            raise
        return opened
