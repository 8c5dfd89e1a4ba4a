"""The provider kind `smtp`: mails over a few connections, each in a transaction of its own."""

import asyncio
import time
from collections.abc import Sequence

from aiosmtplib import SMTPException, SMTPResponseException, SMTPServerDisconnected

from channels.adapter import NotWritten, Unsendable, Written
from channels.answers import LONGEST_WORD, Verdict
from channels.courier import Inbox
from channels.smtp.mail import Mail, Sender, mail
from channels.smtp.pool import Account, Line, Pool, Refused
from channels.smtp.status import Step, queue_id, verdict
from channels.transport import Watch
from dispatcher.message import Message
from dispatcher.receipt import Receipt


class _Gate:
    """The watch of several mails: begun with the first, written with the last."""

    def __init__(self, watch: Watch | None, mails: int) -> None:
        self._watch = watch
        self._left = mails
        self._begun = False
        self._forbidden: NotWritten | None = None

    def begin(self) -> None:
        if self._forbidden is not None:
            raise self._forbidden
        if self._watch is not None and not self._begun:
            try:
                self._watch.begin()
            except NotWritten as error:
                self._forbidden = error
                raise
        self._begun = True

    def settle(self) -> None:
        """One mail is written, or never will be."""
        self._left -= 1
        if self._left == 0 and self._begun and self._watch is not None:
            self._watch.written()


class _Trip:
    """One mail on its way. A mail server knows nothing of it before its content, and keeps nothing of it before the dot
    that ends it; so the content's first byte is where `written` begins."""

    __slots__ = ("_gate", "_settled", "written")

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate
        self._settled = False
        self.written = False

    def begin(self) -> None:
        self._gate.begin()
        self.written = True

    def settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._gate.settle()


class SmtpCourier:
    """Connects when there is something to send. What the server says later comes by mail to the sender's address, not
    here."""

    def __init__(self, provider: str, account: Account, sender: Sender, concurrency: int) -> None:
        self._provider = provider
        self._sender = sender
        self._pool = Pool(account, concurrency)

    def __repr__(self) -> str:
        return f"SmtpCourier({self._provider!r})"

    def listen(self, inbox: Inbox) -> None:
        """The server says nothing on its own."""

    async def send(self, messages: Sequence[Message], timeout_s: float, watch: Watch | None = None) -> list[Receipt]:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        gate = _Gate(watch, len(messages))
        if len(messages) == 1:
            return [await self._one(messages[0], deadline_s, gate)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(message, deadline_s, gate)) for message in messages]
        return [task.result() for task in tasks]

    async def close(self) -> None:
        await self._pool.close()

    async def _one(self, message: Message, deadline_s: float, gate: _Gate) -> Receipt:
        trip = _Trip(gate)
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._deliver(message, mail(message, self._sender, time.time()), trip)
        except Unsendable as error:
            return Receipt(message.id, error.answer, self._provider, code=str(error))
        except Refused as error:
            return error.verdict.receipt(message.id, self._provider)
        except TimeoutError:
            why = "no reply in time" if trip.written else "the server was not ready for it in time"
        except (NotWritten, Written, SMTPException, OSError) as error:
            why = str(error) or type(error).__name__
        finally:
            trip.settle()
        if trip.written:
            return Receipt(message.id, "unknown", self._provider, code=f"no_reply: {why}"[:LONGEST_WORD])
        return Receipt(message.id, "transient", self._provider, code=f"not_written: {why}"[:LONGEST_WORD])

    async def _deliver(self, message: Message, letter: Mail, trip: _Trip) -> Receipt:
        """Once more over a new connection when the server had ended a kept one."""
        for fresh in (False, True):
            line = await self._pool.take(fresh)
            kept = line.kept
            try:
                told = await _transaction(line, letter, trip)
            except SMTPServerDisconnected:
                self._pool.drop(line)
                if kept and not trip.written:
                    continue
                raise
            except BaseException:
                self._pool.drop(line)
                raise
            self._pool.give(line)
            if not isinstance(told, Verdict):
                return Receipt(message.id, "accepted", self._provider, queue_id(told))
            if line.client.is_connected or not kept or trip.written:  # with 421 it says good-bye
                return told.receipt(message.id, self._provider)
        raise AssertionError  # not reached: a new connection is no kept one


async def _transaction(line: Line, letter: Mail, trip: _Trip) -> Verdict | str:
    """What the server refused it with, or its text when it took it."""
    client = line.client
    step: Step = "mail"
    options = []
    encoding = "ascii"
    if letter.international:
        if not client.supports_extension("smtputf8"):
            return Verdict("rejected", "no SMTPUTF8")
        options.append("SMTPUTF8")
        encoding = "utf-8"
    if client.supports_extension("size"):
        options.append(f"SIZE={len(letter.content)}")
    try:
        await client.mail(letter.sender, options=options, encoding=encoding)
        step = "rcpt"
        await client.rcpt(letter.to, encoding=encoding)
        step = "data"
        code, text = await client.execute_command(b"DATA")
        if code != 354:
            raise SMTPResponseException(code, text)
    except SMTPResponseException as error:
        refused = verdict(step, error.code, error.message)
        if refused is None:
            raise NotWritten("the server sent what is no SMTP") from None
        if client.is_connected:
            await client.execute_command(b"RSET")
        return refused
    return await _content(line, letter, trip)


async def _content(line: Line, letter: Mail, trip: _Trip) -> Verdict | str:
    protocol = line.client.protocol
    if protocol is None:
        raise SMTPServerDisconnected("Connection lost")
    trip.begin()
    line.write(letter.content)
    asyncio.get_running_loop().call_soon(_tell, line, trip)  # uvloop writes at the end of a turn
    try:
        code, text = await protocol.read_response()
    except SMTPResponseException:
        raise Written("the server sent what is no SMTP") from None
    if 200 <= code <= 299:
        return text
    refused = verdict("data", code, text)
    if refused is None:
        raise Written(f"the server answered {code}")
    return refused


def _tell(line: Line, trip: _Trip) -> None:
    if line.unsent_bytes == 0:
        trip.settle()
