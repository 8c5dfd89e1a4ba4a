"""Calls between actors over connections of their own: one `bytes` in, one `bytes` out, many at a time.

Ray's own call costs about a millisecond of CPU at each end whatever it carries (docs/decisions.md); this one some tens
of microseconds. Ray still starts actors and brings them back, and tells where each of them listens (`actors.root`).

A frame is a head (length of what follows, number of the call, a byte) and a body. In a request the byte is the length
of the method's name, which leads the body; in an answer it says whether the call failed. The first frame of a
connection is the listener's key, which only those know whom Ray told. Whoever does not begin with it is cut off.
"""

import asyncio
import hmac
import inspect
import logging
import secrets
import socket
from collections.abc import Mapping
from itertools import count
from struct import Struct as Layout
from typing import Any, Final, cast

from msgspec import Struct

from actors.ports import Call, PeerAbsent, PeerGone

#: Longer frames are nobody's: batches stay below a megabyte, pages of users below ten.
MOST_BYTES: Final = 256 * 1024 * 1024
KEY_BYTES: Final = 32
#: A peer whose machine went away sends no end of its connection: it is asked after so many silent seconds.
SILENT_S: Final = 2
GONE_S: Final = 6
#: One that is there but takes nothing more may be busy for a while.
STUCK_S: Final = 15
#: Whoever connects has so long to show the key.
HELLO_S: Final = 10.0

_HEAD: Final = Layout("<IIB")
_DONE: Final = 0
_FAILED: Final = 1
_log = logging.getLogger(__name__)


class Address(Struct, frozen=True):
    """Where an actor listens, and what whoever calls it must know."""

    host: str
    port: int
    key: bytes

    def __repr__(self) -> str:
        return f"Address({self.host!r}, {self.port})"


class CallFailed(Exception):
    """The call was carried out and ended in a bug over there; its log has more."""


class Oversize(Exception):
    """What comes is no frame of ours."""


class Frames:
    """Bytes in as they come, whole frames out: `(number, byte, body)`."""

    __slots__ = ("_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = _HEAD.size

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that these bytes complete. Raises Oversize."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames, at, size = [], 0, len(data)
        self._need = _HEAD.size
        while size - at >= _HEAD.size:
            length, number, byte = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if length > MOST_BYTES:
                raise Oversize(f"a frame of {length} bytes")
            if end > size:
                self._need = end - at
                break
            frames.append((number, byte, data[at + _HEAD.size : end]))
            at = end
        if at < size:
            self._rest += data[at:] if at else data
        return frames


class _Protocol(asyncio.Protocol):
    """Either end of a connection."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        _watch_over(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except Oversize as error:
            _log.error("wire: %s", error)
            self.cut()
            return
        for number, byte, body in frames:
            self.heard(number, byte, body)

    def heard(self, number: int, byte: int, body: bytes) -> None:
        """One frame."""
        raise NotImplementedError

    def write(self, number: int, byte: int, body: bytes, name: bytes = b"") -> None:
        """One frame, unless the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((_HEAD.pack(len(name) + len(body), number, byte) + name, body))

    def cut(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()


class Wire(_Protocol):
    """The caller's end. Every call that is out when the connection ends raises PeerGone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lost = False
        self._name = name
        self._numbers = count(1)
        self._out: dict[int, asyncio.Future[bytes]] = {}

    async def call(self, method: bytes, batch: bytes) -> bytes:
        """The answer of this method to this batch. Raises PeerGone, PeerAbsent, CallFailed."""
        if self.lost:
            raise PeerAbsent(f"{self._name}: its connection is gone")
        number = next(self._numbers) & 0xFFFFFFFF
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._out[number] = answered
        self.write(number, len(method), batch, method)
        try:
            return await answered
        finally:
            self._out.pop(number, None)  # it is there still when nobody waits any more

    def heard(self, number: int, byte: int, body: bytes) -> None:
        answered = self._out.get(number)
        if answered is None or answered.done():  # nobody waits any more
            return
        if byte == _DONE:
            answered.set_result(body)
        else:
            answered.set_exception(CallFailed(f"{self._name}: {body.decode(errors='replace')}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        for answered in self._out.values():
            if not answered.done():
                answered.set_exception(PeerGone(f"{self._name}: its connection ended"))


async def wired(name: str, address: Address) -> Wire:
    """A connection to the actor of this name. Raises PeerAbsent."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(GONE_S):
            transport, wire = await loop.create_connection(lambda: Wire(name), address.host, address.port)
    except OSError as error:  # a TimeoutError is one
        raise PeerAbsent(f"{name}: {error or 'it does not answer'}") from error
    if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
        wire.cut()  # on loopback a port that nobody listens on may be given to who calls it
        raise PeerAbsent(f"{name}: nobody listens there")
    wire.write(0, 0, address.key)
    return wire


class Listener:
    """Answers calls of a role's public methods, each in a task of its own."""

    def __init__(self, role: object) -> None:
        self._key = secrets.token_bytes(KEY_BYTES)
        self._methods: Mapping[bytes, Call] = {
            name.encode(): getattr(role, name)
            for name, _ in inspect.getmembers(type(role), inspect.iscoroutinefunction)
            if not name.startswith("_")
        }
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> Address:
        """Listen on a free port of this host."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answering(self._key, self._methods), host, 0)
        return Address(host, self._server.sockets[0].getsockname()[1], self._key)

    def close(self) -> None:
        """Listen no more. Connections last."""
        if self._server is not None:
            self._server.close()


class _Answering(_Protocol):
    """The listener's end of one connection."""

    def __init__(self, key: bytes, methods: Mapping[bytes, Call]) -> None:
        super().__init__()
        self._hello = _HEAD.pack(len(key), 0, 0) + key
        self._methods = methods
        self._known = False
        self._shown = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(HELLO_S, self._turn_away)

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if not self._known:
            data = self._admit(data)
        if data:
            super().data_received(data)

    def _admit(self, data: bytes) -> bytes:
        """What follows the key, once all of it was shown. Until then no more than it is kept of a stranger's bytes."""
        size, before = len(self._hello), len(self._shown)
        self._shown += data[: size - before]
        if len(self._shown) < size and self._hello[: _HEAD.size].startswith(self._shown[: _HEAD.size]):
            return b""
        if not hmac.compare_digest(self._shown, self._hello):
            self._turn_away()
            return b""
        self._known = True
        if self._deadline is not None:
            self._deadline.cancel()
        return data[size - before :]

    def _turn_away(self) -> None:
        _log.warning("wire: somebody without the key was turned away")
        self.cut()

    def heard(self, number: int, byte: int, body: bytes) -> None:
        method = self._methods.get(body[:byte])
        if method is None:
            self.write(number, _FAILED, b"no method " + body[:byte])
            return
        task = asyncio.get_running_loop().create_task(self._answer(number, method, body[byte:]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, method: Call, batch: bytes) -> None:
        try:
            self.write(number, _DONE, await method(batch))
        except Exception as error:
            _log.exception("wire: a call ended in a bug")
            self.write(number, _FAILED, f"{type(error).__name__}: {error}".encode(errors="replace"))
        except asyncio.CancelledError:
            self.write(number, _FAILED, b"cancelled")
            raise


def _watch_over(sock: Any) -> None:
    """Have the kernel notice that the other machine went away."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", SILENT_S), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", GONE_S - SILENT_S),
        ("TCP_USER_TIMEOUT", STUCK_S * 1000),
    ):  # fmt: skip
        number = getattr(socket, option, None)  # not every system has all of them
        if number is not None:
            sock.setsockopt(socket.IPPROTO_TCP, number, value)
