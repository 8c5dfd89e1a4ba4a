"""Serving an application on a port that several processes share; the kernel deals out the connections."""

import socket

from aiohttp import web

from dispatcher.http.operations import IN_HAND


class Hosting:
    """One process's listener."""

    def __init__(self, app: web.Application, drain_s: float) -> None:
        self._in_hand = app[IN_HAND]
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=drain_s)

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        await web.SockSite(self._runner, listener, backlog=1024).start()

    async def idle(self) -> None:
        """Returns once no request is worked on; of use when the application takes none in any more."""
        await self._in_hand.none()

    async def close(self) -> None:
        """Stop listening; requests in hand have `drain_s` to be answered."""
        await self._runner.cleanup()
