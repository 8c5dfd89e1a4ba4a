"""One bound connection to a message centre: requests out under a window, answers back by sequence number."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from ssl import SSLContext
from typing import Final, Generic, TypeVar, cast

from msgspec import Struct

from channels.adapter import NotWritten, Written
from channels.smpp.pdu import (
    ALERT_NOTIFICATION,
    BIND_TRANSCEIVER,
    CONGESTION_STATE,
    DELIVER_SM,
    ENQUIRE_LINK,
    GENERIC_NACK,
    LARGEST_SEQUENCE,
    RESPONSE,
    SUBMIT_SM,
    UNBIND,
    Bind,
    Frames,
    Pdu,
    PduError,
    centre_version,
    decode_submit_response,
)
from channels.smpp.status import CODES, name, verdict
from channels.smpp.window import Window

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: Late answers that are still understood, at most.
_MOST_LATE: Final = 1_000


class Timers(Struct, frozen=True):
    """How long the session waits, in seconds."""

    connect_s: float = 10.0
    enquire_s: float = 30.0  # of silence, after which the centre is asked whether it is there
    answer_s: float = 10.0  # for its answer to that, and to the bind
    unbind_s: float = 2.0
    first_s: float = 0.5  # before connecting again; doubled with every failure
    longest_s: float = 30.0
    steady_s: float = 30.0  # a session that lived so long was no failure


class BindRefused(Exception):
    """The centre is there and does not let us in; `status` is its command_status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"bind: {name(status)}")
        self.status = status


class Answer(Struct, frozen=True, gc=False):
    """The centre's answer to a submit_sm."""

    status: int
    message_id: str


class Flight(Generic[T]):
    """A submit_sm that is on its way. `future` fails with Written when the connection ends before its answer."""

    __slots__ = ("future", "sequence", "tag")

    def __init__(self, sequence: int, tag: T, future: asyncio.Future[Answer]) -> None:
        self.sequence = sequence
        self.tag = tag
        self.future = future


class Session(asyncio.Protocol, Generic[T]):
    """`lost` is done when the connection is over, and says why. `on_deliver` takes each deliver_sm, which `answer` then
    answers; `on_late` the answer to a submit_sm that nobody waits for any more, with its tag."""

    def __init__(
        self,
        window: int,
        on_deliver: "Callable[[Session[T], Pdu], None]",
        on_late: Callable[[T, Answer], None],
        timers: Timers,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.window = Window(window)
        self.version = ""  # of SMPP, the centre's word; empty when it says none
        self.lost: asyncio.Future[str] = loop.create_future()
        self._loop = loop
        self._on_deliver = on_deliver
        self._on_late = on_late
        self._timers = timers
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._sequence = 0
        self._flights: dict[int, Flight[T]] = {}
        self._late: dict[int, T] = {}
        self._asked: dict[int, asyncio.Future[Pdu]] = {}  # binds, enquiries and unbinds
        self._heard_s = loop.time()
        self._alarm: asyncio.TimerHandle | None = None
        self._probe: int | None = None  # the enquire_link that is not answered
        self._leaving = False

    def __repr__(self) -> str:
        return f"Session({len(self._flights)} in flight)"

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        bind: Bind,
        window: int,
        on_deliver: "Callable[[Session[T], Pdu], None]",
        on_late: Callable[[T, Answer], None],
        timers: Timers,
        tls: SSLContext | None = None,
    ) -> "Session[T]":
        """A session that is bound. Raises BindRefused, OSError or TimeoutError."""
        session = cls(window, on_deliver, on_late, timers)
        try:
            async with asyncio.timeout(timers.connect_s):
                await session._loop.create_connection(lambda: session, host, port, ssl=tls)
            async with asyncio.timeout(timers.answer_s):
                told = await session._ask(BIND_TRANSCEIVER, bind.encode())
        except BaseException:
            session.abort("not bound")
            raise
        if told.status != 0:
            session.abort("not bound")
            raise BindRefused(told.status)
        session.version = centre_version(told.body)
        session._watch()
        return session

    @property
    def usable(self) -> bool:
        """Whether a submit_sm may be written."""
        return self._transport is not None and not self._leaving and not self.lost.done()

    # -- out

    def submit(self, body: bytes, tag: T) -> Flight[T]:
        """Writes it; a place of the window must have been taken. Raises NotWritten, and then the place is free."""
        if not self.usable:
            self.window.give_back()
            raise NotWritten("the session ended before the request was written")
        flight = Flight(self._next_sequence(), tag, self._loop.create_future())
        self._flights[flight.sequence] = flight
        self._write(Pdu(SUBMIT_SM, 0, flight.sequence, body))
        return flight

    def abandon(self, flight: Flight[T], timed_out: bool) -> None:
        """Its answer is not waited for any more. After a silence the centre is asked whether it is there."""
        if self._flights.pop(flight.sequence, None) is None:
            return
        flight.future.cancel()
        self.window.give_back()
        if len(self._late) >= _MOST_LATE:
            del self._late[next(iter(self._late))]
        self._late[flight.sequence] = flight.tag
        if timed_out and self._probe is None and self._loop.time() - self._heard_s > self._timers.answer_s / 2:
            self._enquire()

    def tell(self, written: Callable[[], None]) -> None:
        """Calls `written` in the loop's next turn, if the kernel has all by then: uvloop writes at the end of each."""
        self._loop.call_soon(self._tell, written)

    def _tell(self, written: Callable[[], None]) -> None:
        if self._transport is not None and not self.lost.done() and self._transport.get_write_buffer_size() == 0:
            written()

    def answer(self, request: Pdu, status: int = 0) -> None:
        """Answers the centre's request, if it is still there to hear it."""
        body = b"\0" if request.command == DELIVER_SM else b""
        self._write(Pdu(request.command | RESPONSE, status, request.sequence, body))

    async def unbind(self) -> None:
        """Ends the session in the protocol's way, or after a while in any."""
        self._leave("unbound")
        with contextlib.suppress(TimeoutError, Written):
            async with asyncio.timeout(self._timers.unbind_s):
                await self._ask(UNBIND, b"")
        await self.closed("unbound")

    async def closed(self, why: str) -> None:
        """The connection is over, also for the loop."""
        self.abort(why)
        if not self.lost.done():
            await asyncio.wait([self.lost])

    def abort(self, why: str) -> None:
        """Ends the connection; what is in flight is Written."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()
        elif not self.lost.done():
            self.lost.set_result(why)

    async def _ask(self, command: int, body: bytes) -> Pdu:
        sequence = self._next_sequence()
        future: asyncio.Future[Pdu] = self._loop.create_future()
        if self.lost.done():
            raise Written(self.lost.result())
        self._asked[sequence] = future
        try:
            self._write(Pdu(command, 0, sequence, body))
            return await future
        finally:
            self._asked.pop(sequence, None)

    def _write(self, pdu: Pdu) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pdu.encode())

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % LARGEST_SEQUENCE + 1
        return self._sequence

    # -- in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self.lost.done():
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        for pdu in self._frames.feed(data):
            if pdu.command & RESPONSE:
                self._on_response(pdu)
            else:
                self._on_request(pdu)
        if self._frames.fault:
            self.abort(f"the centre sent {self._frames.fault}")

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"the connection ended: {exc or 'closed by the centre'}"
        self._fail(why)
        if not self.lost.done():
            self.lost.set_result(why)

    def _on_response(self, pdu: Pdu) -> None:
        flight = self._flights.pop(pdu.sequence, None)
        if flight is not None:
            answer = self._read_answer(pdu)
            self.window.give_back()
            if not flight.future.done():
                flight.future.set_result(answer)
        elif (asked := self._asked.get(pdu.sequence)) is not None:
            if not asked.done():
                asked.set_result(pdu)
        elif pdu.sequence == self._probe:
            self._probe = None
        elif pdu.sequence in self._late:
            tag = self._late.pop(pdu.sequence)
            self._on_late(tag, self._read_answer(pdu))
        elif pdu.command == GENERIC_NACK:
            self.abort(f"the centre could not read us: {name(pdu.status)}")

    def _read_answer(self, pdu: Pdu) -> Answer:
        """The answer, whose effect on the window is here. One that says yes in words that cannot be read is a yes."""
        if pdu.status != 0 or pdu.command == GENERIC_NACK:
            status = pdu.status or CODES["RINVCMDID"]
            if verdict(status).answer == "throttled":
                self.window.throttled()
            elif status == CODES["RINVBNDSTS"]:
                self._loop.call_soon(self.abort, "the centre does not know us as bound")
            return Answer(status, "")
        try:
            message_id, tlvs = decode_submit_response(pdu.body)
        except PduError:
            message_id, tlvs = pdu.body.split(b"\0")[0].decode("latin-1"), {}
        self.window.good(int.from_bytes(tlvs.get(CONGESTION_STATE, b"")[:1]))
        return Answer(0, message_id)

    def _on_request(self, pdu: Pdu) -> None:
        if pdu.command == DELIVER_SM:
            self._on_deliver(self, pdu)
        elif pdu.command == ENQUIRE_LINK:
            self.answer(pdu)
        elif pdu.command == UNBIND:
            self._leave("the centre unbound us")
            self._answer_unbind(pdu, self._loop.time() + self._timers.unbind_s)
        elif pdu.command != ALERT_NOTIFICATION:  # that one has no answer
            self._write(Pdu(GENERIC_NACK, CODES["RINVCMDID"], pdu.sequence))

    def _answer_unbind(self, request: Pdu, until_s: float) -> None:
        """Once what is in flight is answered, or after a while: after our answer the centre says nothing more."""
        if self.lost.done():
            return
        if self._flights and self._loop.time() < until_s:
            self._loop.call_later(0.02, self._answer_unbind, request, until_s)
            return
        self.answer(request)
        self._fail("the centre unbound us")
        if self._transport is not None:
            self._transport.close()

    def _leave(self, why: str) -> None:
        self._leaving = True
        self.window.close(why)

    def _fail(self, why: str) -> None:
        """No answer comes any more."""
        self._leave(why)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            if not flight.future.done():
                flight.future.set_exception(Written(why))
                flight.future.exception()  # seen: no complaint where nobody waits
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Written(why))
                asked.exception()

    # -- whether the centre is there

    def _watch(self) -> None:
        """Rings when the centre has been silent for `enquire_s`, or has not answered for `answer_s`."""
        if self.lost.done() or self._leaving:
            return
        now_s = self._loop.time()
        if self._probe is None and now_s - self._heard_s >= self._timers.enquire_s:
            self._enquire()
        else:
            self._alarm = self._loop.call_at(self._heard_s + self._timers.enquire_s, self._watch)

    def _enquire(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._probe = self._next_sequence()
        self._write(Pdu(ENQUIRE_LINK, 0, self._probe))
        self._alarm = self._loop.call_later(self._timers.answer_s, self._judge, self._probe)

    def _judge(self, probe: int) -> None:
        self._alarm = None
        if self._probe == probe:
            self.abort(f"no answer to enquire_link within {self._timers.answer_s:g} s")
        else:
            self._watch()
