"""The provider kind `apns`: few connections that many messages share."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from channels.adapter import NotWritten, Written
from channels.address import Addresses
from channels.answers import LONGEST_WORD, Verdict
from channels.apns.session import Flight, Place, Session
from channels.apns.signer import Signer
from channels.apns.wire import EXPIRED, Push, authorization, push, reason_of, receipt
from channels.courier import Inbox
from channels.transport import PHASES, Watch
from dispatcher.message import Message
from dispatcher.receipt import Receipt

_log = logging.getLogger(__name__)

#: Connections of one sender: Apple wants few, and one carries hundreds of messages at once.
MOST_CONNECTIONS: Final = 4
#: After another connection could not be had, those that are there have to do for so long.
ANOTHER_S: Final = 5.0


class Trip:
    """One message on its way: what is asked, and the flight that was written."""

    __slots__ = ("asked", "flight", "message", "token")

    def __init__(self, message: Message, asked: Push | Verdict) -> None:
        self.message = message
        self.asked = asked
        self.flight: Flight | None = None
        self.token = b""

    def is_expired(self) -> bool:
        """Whether Apple would take it with another token."""
        if self.flight is None or not self.flight.future.done() or self.flight.future.cancelled():
            return False
        if self.flight.future.exception() is not None:
            return False
        reply = self.flight.future.result()
        return reply.status == 403 and reason_of(reply) == EXPIRED

    def receipt(self, provider: str, why_unwritten: str, why_silent: str, now_s: float) -> Receipt:
        if isinstance(self.asked, Verdict):
            return self.asked.receipt(self.message.id, provider)
        if self.flight is None:
            return _verdict(NotWritten(why_unwritten)).receipt(self.message.id, provider)
        future = self.flight.future
        if not future.done() or future.cancelled():
            return _verdict(Written(why_silent)).receipt(self.message.id, provider)
        error = future.exception()
        if isinstance(error, (NotWritten, Written)):
            return _verdict(error).receipt(self.message.id, provider)
        return receipt(self.message, future.result(), provider, now_s)


def _verdict(failure: NotWritten | Written) -> Verdict:
    if isinstance(failure, NotWritten):
        return Verdict("transient", f"not_written: {failure}"[:LONGEST_WORD])
    return Verdict("unknown", f"no_reply: {failure}"[:LONGEST_WORD])


class ApnsCourier:
    """Connects when there is something to send, and once more when all connections are full. A connection that has
    carried nothing yet is waited for: Apple allows it one stream until then."""

    def __init__(self, provider: str, topic: str, place: Place, signer: Signer) -> None:
        self._provider = provider
        self._topic = topic
        self._place = place
        self._scheme = "https" if place.tls is not None else "http"
        self._signer = signer
        self._addresses = Addresses(allow_private=True)
        self._sessions: list[Session] = []
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._not_before_s = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"ApnsCourier({self._provider!r})"

    def listen(self, inbox: Inbox) -> None:
        """Apple says nothing on its own."""

    async def send(self, messages: Sequence[Message], timeout_s: float, watch: Watch | None = None) -> list[Receipt]:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        deadline_s = begun_s + timeout_s
        now_s = time.time()
        trips = [
            Trip(message, push(message, self._place.authority, self._scheme, self._topic, now_s))
            for message in messages
        ]
        try:
            why = await self._exchange(trips, deadline_s, watch)
            expired = [trip for trip in trips if trip.is_expired() and self._signer.renew(trip.token, time.time())]
            if expired:
                await self._exchange(expired, deadline_s, watch)
            silent = f"no reply within {timeout_s:g} s"
            return [trip.receipt(self._provider, why, silent, time.time()) for trip in trips]
        finally:
            waited_s = loop.time() - begun_s
            for trip in trips:
                if trip.flight is not None:
                    trip.flight.session.abandon(trip.flight, waited_s if waited_s >= timeout_s else None)

    async def close(self) -> None:
        self._closed = True
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        self._wake_all(NotWritten("the connection was closed"))
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            await session.close()
        await self._addresses.close()

    # -- sending

    async def _exchange(self, trips: list[Trip], deadline_s: float, watch: Watch | None) -> str:
        """Writes them and waits for the replies until time is up; why some were not written, or nothing."""
        begun = watch is None
        why = ""
        token = authorization(self._signer.token(time.time()))
        for trip in trips:
            if isinstance(trip.asked, Verdict):
                continue
            try:
                session = await self._room(len(trip.asked.body), deadline_s)
                if not begun:
                    assert watch is not None
                    watch.begin()
                    begun = True
            except NotWritten as error:
                why = str(error)
                break
            trip.flight, trip.token = session.submit([*trip.asked.headers, token], trip.asked.body), token[1]
        flights = [trip.flight for trip in trips if trip.flight is not None]
        if flights:
            if watch is not None and not why:
                flights[-1].session.tell(watch.written)
            left_s = deadline_s - asyncio.get_running_loop().time()
            await asyncio.wait([flight.future for flight in flights], timeout=max(left_s, 0))
        return why

    async def _room(self, size_bytes: int, deadline_s: float) -> Session:
        """A connection that takes such a request now. Raises NotWritten."""
        while True:
            for session in self._sessions:
                if session.takes(size_bytes):
                    return session
            self._connect_if_needed()
            await self._wait(deadline_s)

    async def _wait(self, deadline_s: float) -> None:
        """Until there may be room."""
        if self._closed:
            raise NotWritten("the connection was closed")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline_s):
                await waiter
        except TimeoutError:
            why = "no stream was free in time" if self._sessions else "no connection in time"
            raise NotWritten(why) from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._on_room()  # the room is another's
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _on_room(self) -> None:
        """As many as there are streams for go and see."""
        room = sum(max(session.room, 0) for session in self._sessions)
        while room > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _wake_all(self, error: NotWritten | None = None) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    # -- connecting

    def _connect_if_needed(self) -> None:
        usable = [session for session in self._sessions if session.usable]
        if self._closed or self._connecting is not None or len(usable) >= MOST_CONNECTIONS:
            return
        if usable and asyncio.get_running_loop().time() < self._not_before_s:
            return
        if all(session.full for session in usable):
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        error: NotWritten | None = None
        try:
            async with asyncio.timeout(PHASES.connect_s):
                session = await Session.open(self._place, self._addresses, self._on_room)
            self._sessions.append(session)
            session.lost.add_done_callback(lambda lost: self._on_lost(session, lost.result()))
        except TimeoutError:
            error = NotWritten(f"no connection within {PHASES.connect_s:g} s")
        except OSError as failure:
            error = NotWritten((str(failure) or type(failure).__name__)[:LONGEST_WORD])
        finally:
            self._connecting = None
        if error is not None:
            _log.warning("provider %s: not connected: %s", self._provider, error)
            self._not_before_s = asyncio.get_running_loop().time() + ANOTHER_S
        if error is None or not any(session.usable for session in self._sessions):
            self._wake_all(error)

    def _on_lost(self, session: Session, why: str) -> None:
        _log.info("provider %s: %s", self._provider, why)
        if session in self._sessions:
            self._sessions.remove(session)
        self._wake_all()
