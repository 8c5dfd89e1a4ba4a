"""From a host's name to a connected socket: every address is checked, and only checked addresses are connected to."""

import asyncio
import socket
import time
from collections import deque
from typing import Any, Final, NamedTuple

from channels.egress import AddressRefused, is_public

_FRESH_S: Final = 5.0
_MOST_NAMES: Final = 256
#: RFC 8305 (Happy Eyeballs), section 5: the delay between attempts.
_STAGGER_S: Final = 0.25


class Address(NamedTuple):
    """One resolved address of a host."""

    family: int
    protocol: int
    place: Any


class Addresses:
    """What names resolve to, kept for a few seconds; without `allow_private` only public addresses."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._known: dict[tuple[str, int], tuple[float, asyncio.Task[list[Address]]]] = {}

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected socket, to the address that answers first. Raises OSError, AddressRefused among them."""
        return await _race(await self._find(host, port))

    async def _find(self, host: str, port: int) -> list[Address]:
        """The addresses; those who ask at once share one lookup. Failures are not kept."""
        now_s = time.monotonic()
        fresh_until_s, lookup = self._known.get((host, port), (0.0, None))
        if lookup is None or now_s >= fresh_until_s or _failed(lookup):
            if len(self._known) >= _MOST_NAMES:
                self._known.clear()
            lookup = asyncio.get_running_loop().create_task(self._resolve(host, port))
            lookup.add_done_callback(_failed)  # so that a failure nobody waits for is no news
            self._known[host, port] = now_s + _FRESH_S, lookup
        await asyncio.wait((lookup,))  # whoever is cancelled here leaves the lookup to the others
        return lookup.result()

    async def _resolve(self, host: str, port: int) -> list[Address]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [Address(family, protocol, place) for family, _, protocol, _, place in found]
        if not self._allow_private:
            addresses = [address for address in addresses if is_public(str(address.place[0]))]
        if not addresses:
            raise AddressRefused(f"{host} has no public address (allow_private is off)")
        return addresses

    async def close(self) -> None:
        """Ends lookups under way."""
        lookups = [lookup for _, lookup in self._known.values()]
        self._known.clear()
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)


def _failed(lookup: asyncio.Task[list[Address]]) -> bool:
    return lookup.done() and (lookup.cancelled() or lookup.exception() is not None)


async def _race(addresses: list[Address]) -> socket.socket:
    """Tries each address, the next one when the last fails or is slow to answer (RFC 8305)."""
    waiting = deque(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    error: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.get_running_loop().create_task(_dial(waiting.popleft())))
            delay_s = _STAGGER_S if waiting else None
            done, _ = await asyncio.wait(running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_hang_up)
    raise error or OSError("no address to connect to")


async def _dial(address: Address) -> socket.socket:
    opened = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(opened, address.place)
    except BaseException:
        opened.close()
        raise
    return opened


def _hang_up(task: asyncio.Task[socket.socket]) -> None:
    """Closes a socket that came second."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
