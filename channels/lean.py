"""The lean transport: a pool of kept-alive connections, one alarm for every deadline, one future a request."""

import asyncio
import contextlib
import math
import ssl
import time
from collections import deque
from typing import Final

from channels.adapter import NotWritten, Reply, Request
from channels.address import Addresses
from channels.connection import Connection
from channels.head import Origin, head_of
from channels.tls import tls_context
from channels.transport import PHASES, Phases, Watch

_IDLE_S: Final = 15.0
#: Deadlines that lie this close are met together, so that many of them cost few rings.
_GRAIN_S: Final = 0.005
_CLOSED: Final = "the transport was closed"


class _Waiter:
    """A request without a connection. Its future gets one, or None: the place for a new one."""

    __slots__ = ("deadline_s", "future", "origin", "timeout_s")

    def __init__(self, origin: Origin, deadline_s: float, timeout_s: float) -> None:
        self.origin = origin
        self.deadline_s = deadline_s
        self.timeout_s = timeout_s
        self.future: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()


class LeanTransport:
    """Kept-alive connections, at most `concurrency`; redirects are not followed, proxies and cookies do not exist.

    `ca_file` is a path or the PEM text itself; what is wrong with it is raised here, as OSError. Everything else
    belongs to the loop of the first request. `_places` counts connections idle, in use and being opened, and while
    someone waits none is idle and no place is free. After `close` every request is NotWritten.
    """

    def __init__(
        self,
        concurrency: int,
        allow_private: bool = False,
        ca_file: str | None = None,
        phases: Phases = PHASES,
    ) -> None:
        self._concurrency = concurrency
        self._phases = phases
        self._tls = None if ca_file is None else tls_context(ca_file)
        self._addresses = Addresses(allow_private)
        self._places = 0
        self._idle: dict[Origin, list[Connection]] = {}
        self._waiters: deque[_Waiter] = deque()
        self._opening: set[asyncio.Task[Connection]] = set()
        self._live: set[Connection] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf
        self._closed = False
        self._emptied = asyncio.Event()

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        begun_s = now_s = time.monotonic()
        try:
            origin, head = head_of(request)
        except ValueError as error:
            raise NotWritten(_words(error)) from None
        connection = self._idle_to(origin)
        if connection is None:
            connection = await self._acquire(origin, begun_s + timeout_s, timeout_s)
            now_s = time.monotonic()
        connection.limit(begun_s, now_s, timeout_s, self._phases)
        if connection.deadline_s < self._alarm_s:
            self._watch(connection.deadline_s)
        if watch is not None:
            self._begin(watch, connection)
        future = connection.exchange(head, request.body, request.method == "HEAD")
        if watch is not None:  # uvloop writes at the end of each turn, so from the next one on it is known
            asyncio.get_running_loop().call_soon(connection.tell, future, watch.written)
        try:
            return await future
        finally:
            connection.abandon(future)

    async def close(self) -> None:
        """Ends everything: requests in the air are Written, those before are NotWritten. May be called again."""
        self._closed = True
        self._quiet()
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(NotWritten(_CLOSED))
        self._waiters.clear()
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        for connection in list(self._live):
            connection.fail(_CLOSED)
        if opening:
            await asyncio.wait(opening)
        await self._addresses.close()
        if self._live:  # aborted, and the loop has yet to say so
            self._emptied.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), 5)

    def _begin(self, watch: Watch, connection: Connection) -> None:
        try:
            watch.begin()
        except NotWritten:
            self._give_back(connection)
            raise

    # -- what connections say

    def made(self, connection: Connection) -> None:
        self._live.add(connection)

    def lost(self, connection: Connection) -> None:
        if connection.idle:
            connection.idle = False
            self._idle[connection.origin].remove(connection)
            self._vacate()
        if connection.gone:
            self._live.discard(connection)
            if not self._live:
                self._emptied.set()

    def freed(self, connection: Connection, keep: bool) -> None:
        if not keep or self._closed:
            self._vacate()
            return
        waiter = self._next_waiter()
        if waiter is None:
            connection.idle = True
            connection.deadline_s = time.monotonic() + _IDLE_S
            self._idle.setdefault(connection.origin, []).append(connection)
            if connection.deadline_s < self._alarm_s:
                self._watch(connection.deadline_s)
        elif waiter.origin == connection.origin:
            waiter.future.set_result(connection)
        else:
            connection.close()
            waiter.future.set_result(None)

    # -- places

    def _idle_to(self, origin: Origin) -> Connection | None:
        """The connection that was used last; it is no longer idle."""
        stack = self._idle.get(origin)
        while stack:
            connection = stack.pop()
            connection.idle = False
            if connection.usable:
                return connection
            self._vacate()
        return None

    async def _acquire(self, origin: Origin, deadline_s: float, timeout_s: float) -> Connection:
        if self._places >= self._concurrency:
            self._evict()
        if self._places < self._concurrency:
            self._places += 1
        else:
            connection = await self._wait(_Waiter(origin, deadline_s, timeout_s))
            if connection is not None and connection.usable:
                return connection
        return await self._open(origin, deadline_s, timeout_s)

    async def _wait(self, waiter: _Waiter) -> Connection | None:
        if self._closed:
            raise NotWritten(_CLOSED)
        self._waiters.append(waiter)
        if waiter.deadline_s < self._alarm_s:
            self._watch(waiter.deadline_s)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give_back(waiter.future.result())
            raise

    def _give_back(self, connection: Connection | None) -> None:
        if connection is not None and connection.usable:
            self.freed(connection, True)
        else:
            self._vacate()

    def _next_waiter(self) -> _Waiter | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.future.done():
                return waiter
        return None

    def _vacate(self) -> None:
        """A place is free: the longest waiter has it."""
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.future.set_result(None)
        else:
            self._places -= 1

    def _evict(self) -> None:
        """Closes an idle connection, if there is one: it is to another origin than the one asked for."""
        for stack in self._idle.values():
            if stack:
                connection = stack.pop(0)
                connection.idle = False
                connection.close()
                self._places -= 1
                return

    # -- opening

    async def _open(self, origin: Origin, deadline_s: float, timeout_s: float) -> Connection:
        """A new connection in a place already taken."""
        if self._closed:
            self._vacate()
            raise NotWritten(_CLOSED)
        task = asyncio.get_running_loop().create_task(self._connect(origin))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        left_s = max(0.0, deadline_s - time.monotonic())
        try:
            await asyncio.wait((task,), timeout=min(left_s, self._phases.connect_s))
        except asyncio.CancelledError:
            self._discard(task)
            raise
        if not task.done():
            self._discard(task)
            raise NotWritten(f"no connection within {min(timeout_s, self._phases.connect_s):g} s")
        if not task.cancelled() and task.exception() is None:
            return task.result()
        self._vacate()
        raise NotWritten(_CLOSED if task.cancelled() else _words(task.exception()))

    async def _connect(self, origin: Origin) -> Connection:
        opened = await self._addresses.connect(origin.host, origin.port)
        connection = Connection(origin, self)
        tls = self._tls_context() if origin.tls else None
        name = origin.host.rstrip(".") if origin.tls else None
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, sock=opened, ssl=tls, server_hostname=name)
        except BaseException:
            connection.give_up()
            opened.close()
            raise
        return connection

    def _discard(self, task: asyncio.Task[Connection]) -> None:
        """Nobody waits for this connection any more; its place is free once it is gone."""

        def ended(task: asyncio.Task[Connection]) -> None:
            if not task.cancelled() and task.exception() is None:
                task.result().fail("")
            self._vacate()

        task.cancel()
        task.add_done_callback(ended)

    def _tls_context(self) -> ssl.SSLContext:
        self._tls = self._tls or tls_context(None)
        return self._tls

    # -- deadlines

    def _watch(self, deadline_s: float) -> None:
        """Rings at that time; what is due by then is found by looking at everything."""
        self._quiet()
        self._alarm_s = deadline_s
        self._alarm = asyncio.get_running_loop().call_later(max(0.0, deadline_s - time.monotonic()), self._ring)

    def _quiet(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_s = None, math.inf

    def _ring(self) -> None:
        self._quiet()
        due_s = time.monotonic() + 0.001  # uvloop's timers have milliseconds
        for connection in [connection for connection in self._live if connection.deadline_s <= due_s]:
            self._expire(connection, due_s)
        for waiter in self._waiters:
            if waiter.deadline_s <= due_s and not waiter.future.done():
                waiter.future.set_exception(NotWritten(f"no connection was free within {waiter.timeout_s:g} s"))
        self._waiters = deque(waiter for waiter in self._waiters if not waiter.future.done())
        left = [connection.deadline_s for connection in self._live if connection.busy or connection.idle]
        next_s = min([*left, *(waiter.deadline_s for waiter in self._waiters)], default=math.inf)
        if next_s < self._alarm_s and not self._closed:
            self._watch(max(next_s, due_s + _GRAIN_S))

    def _expire(self, connection: Connection, now_s: float) -> None:
        if connection.busy:
            why = connection.overdue(now_s)
            if why is not None:
                connection.fail(why)
        elif connection.idle:
            connection.close()
            self.lost(connection)


def _words(error: BaseException | None) -> str:
    """What went wrong, in words that cannot hold the URL: it may carry a token."""
    text = str(error)
    return text if text and "://" not in text else type(error).__name__
