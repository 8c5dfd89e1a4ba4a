"""The provider kind `smpp`: one bound session of a sender, opened again whenever it ends."""

import asyncio
import logging
import random
from collections.abc import Sequence
from ssl import SSLContext
from typing import Final

from msgspec import Struct

from channels.adapter import NotWritten
from channels.answers import Verdict
from channels.courier import Inbox
from channels.smpp.flight import Tag, Trip
from channels.smpp.ids import Ids
from channels.smpp.mail import Mail
from channels.smpp.pdu import Bind
from channels.smpp.session import Answer, BindRefused, Session, Timers
from channels.smpp.status import verdict
from channels.transport import Watch
from dispatcher.message import Message
from dispatcher.receipt import Receipt

_log = logging.getLogger(__name__)


class Account(Struct, frozen=True):
    """Where to bind, and as whom. `window`: submit_sm without an answer, at most."""

    host: str
    port: int
    bind: Bind
    source_addr: str
    window: int
    tls: SSLContext | None = None

    def __repr__(self) -> str:
        return f"Account({self.bind!r})"


class SmppCourier:
    """Binds with the first thing asked of it, and from then on keeps bound. While it cannot, sending fails at once."""

    def __init__(
        self, provider: str, account: Account, timers: Timers | None = None, chance: random.Random | None = None
    ) -> None:
        self._provider = provider
        self._account = account
        self._timers = timers if timers is not None else Timers()
        self._chance = chance if chance is not None else random.Random()
        self._ids = Ids()
        self._mail = Mail(provider, self._ids)
        self._session: Session[Tag] | None = None
        self._failure: Verdict | None = None  # of the last bind, or how the last session ended
        self._changed = asyncio.Event()  # bound, or failed for the first time
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"SmppCourier({self._provider!r})"

    def listen(self, inbox: Inbox) -> None:
        self._mail.inbox = inbox
        self._start()

    async def send(self, messages: Sequence[Message], timeout_s: float, watch: Watch | None = None) -> list[Receipt]:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        trips = [Trip(message, self._account.source_addr) for message in messages]
        bound = await self._bound(deadline_s)
        if isinstance(bound, Verdict):
            return bound.receipts(messages, self._provider)
        silent = f"no answer within {timeout_s:g} s"
        try:
            why = await self._submit(bound, trips, deadline_s, watch)
            await _answers(trips, deadline_s)
            return [trip.receipt(self._provider, self._ids, why, silent) for trip in trips]
        finally:
            timed_out = asyncio.get_running_loop().time() >= deadline_s
            for trip in trips:
                for flight in trip.flights:
                    bound.abandon(flight, timed_out)

    async def close(self) -> None:
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        session, self._session = self._session, None
        if session is not None:
            await session.unbind()

    # -- sending

    async def _bound(self, deadline_s: float) -> Session[Tag] | Verdict:
        """The session, or why there is none. Only the first bind is waited for: while a centre is away, messages
        should go elsewhere."""
        self._start()
        if self._session is None and self._failure is None and not self._closed:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed.wait()
            except TimeoutError:
                return Verdict("transient", "not_written: not bound in time")
        if self._session is not None:
            return self._session
        return self._failure or Verdict("transient", "not_written: the connection was closed")

    async def _submit(self, session: Session[Tag], trips: list[Trip], deadline_s: float, watch: Watch | None) -> str:
        """Writes all parts as the window lets them go; why some were not, or nothing."""
        begun = watch is None
        try:
            for trip in trips:
                for body in trip.bodies:
                    if not session.window.take_at_once():
                        async with asyncio.timeout_at(deadline_s):
                            await session.window.take()
                    if not begun:
                        _begin(watch, session)
                        begun = True
                    trip.flights.append(session.submit(body, trip.next_tag()))
        except TimeoutError:
            return "the window stayed full"
        except NotWritten as error:
            return str(error)
        if watch is not None:
            session.tell(watch.written)
        return ""

    def _on_late(self, tag: Tag, answer: Answer) -> None:
        """The message is `unknown` by now; a delivery report will tell, if it can be found."""
        if answer.status == 0 and answer.message_id:
            self._ids.remember(answer.message_id, *tag)

    # -- keeping bound

    def _start(self) -> None:
        if not self._tasks and not self._closed:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._keep_bound()), loop.create_task(self._mail.run())]

    async def _keep_bound(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                session = await self._open()
            except Exception as error:
                self._fail(_verdict_of(error))
            else:
                begun_s = loop.time()
                _log.info("provider %s: bound, the centre says SMPP %s", self._provider, session.version or "?")
                self._session, self._failure = session, None
                self._changed.set()
                await asyncio.wait([session.lost])
                self._session = None
                self._fail(Verdict("transient", f"not_written: {session.lost.result()}"))
                if loop.time() - begun_s >= self._timers.steady_s:
                    failures = 0
            await asyncio.sleep(self._pause_s(failures))
            failures += 1

    async def _open(self) -> Session[Tag]:
        account = self._account
        return await Session.open(
            account.host,
            account.port,
            account.bind,
            account.window,
            self._mail.take,
            self._on_late,
            self._timers,
            account.tls,
        )

    def _fail(self, failure: Verdict) -> None:
        if self._failure != failure:
            _log.warning("provider %s: not bound: %s", self._provider, failure.code)
        self._failure = failure
        self._changed.set()

    def _pause_s(self, failures: int) -> float:
        """Doubled with every failure, and spread, so that senders do not come all at once."""
        longest_s = min(self._timers.first_s * 2.0 ** min(failures, 30), self._timers.longest_s)
        return longest_s * (0.5 + self._chance.random() / 2)


_LONGEST_WHY: Final = 200


def _verdict_of(error: Exception) -> Verdict:
    """A refused bind means for messages what its status means; nothing of them was written in any case."""
    if isinstance(error, BindRefused):
        found = verdict(error.status)
        if found.answer in ("auth", "throttled"):
            return Verdict(found.answer, str(error), found.retry_after_s)
        return Verdict("transient", f"not_written: {error}")
    why = "connect timed out" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return Verdict("transient", f"not_written: {why[:_LONGEST_WHY]}")


def _begin(watch: Watch | None, session: Session[Tag]) -> None:
    assert watch is not None
    try:
        watch.begin()
    except NotWritten:
        session.window.give_back()
        raise


async def _answers(trips: list[Trip], deadline_s: float) -> None:
    """Until all that was written is answered, or time is up."""
    futures = [flight.future for trip in trips for flight in trip.flights if not flight.future.done()]
    if futures:
        left_s = deadline_s - asyncio.get_running_loop().time()
        await asyncio.wait(futures, timeout=max(left_s, 0))
