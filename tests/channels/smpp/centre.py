"""A message centre for tests: it answers as it is told, and keeps what it got."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from channels.smpp import KIND, SmppOptions
from channels.smpp.courier import Account, SmppCourier
from channels.smpp.pdu import (
    BIND_TRANSCEIVER,
    DELIVER_SM,
    ENQUIRE_LINK,
    GENERIC_NACK,
    RESPONSE,
    SUBMIT_SM,
    UNBIND,
    Bind,
    Frames,
    Pdu,
    ShortMessage,
    decode_bind,
    decode_short_message,
)
from channels.smpp.session import Timers
from tests.support import until

__all__ = ["KIND", "Centre", "SmppOptions", "centre", "courier", "text_message"]

#: An answer to a submit_sm: status and message id; None: silence.
Says = tuple[int, str] | None
QUICK = Timers(connect_s=5, enquire_s=60, answer_s=5, unbind_s=0.5, first_s=0.01, longest_s=0.05)


class Centre:
    """`says` answers each submit_sm, by its count from 1."""

    def __init__(self) -> None:
        self.port = 0
        self.binds: list[Bind] = []
        self.bind_status = 0
        self.submitted: list[ShortMessage] = []
        self.heard: list[Pdu] = []  # everything but submit_sm
        self.says: Callable[[int], Says] = lambda n: (0, f"id{n}")
        self.suffix = b""  # TLVs of answers
        self.silent = False  # to enquire_link
        self.unanswered: list[Pdu] = []
        self.most_unanswered = 0
        self._held: list[Pdu] = []
        self.holds = False  # answers wait for `release`
        self._sequence = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        frames = Frames()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for pdu in frames.feed(data):
                    self._on(pdu, writer)
                await writer.drain()
        self._writers.remove(writer)
        writer.close()

    def _on(self, pdu: Pdu, writer: asyncio.StreamWriter) -> None:
        if pdu.command == SUBMIT_SM:
            self.submitted.append(decode_short_message(pdu.body))
            self._held.append(pdu)
            self.most_unanswered = max(self.most_unanswered, len(self._held))
            if not self.holds:
                self.release()
            return
        self.heard.append(pdu)
        if pdu.command == BIND_TRANSCEIVER:
            self.binds.append(decode_bind(pdu.body))
            self._write(writer, pdu, self.bind_status, b"centre\0" if self.bind_status == 0 else b"")
        elif (pdu.command == ENQUIRE_LINK and not self.silent) or pdu.command == UNBIND:
            self._write(writer, pdu, 0)

    def release(self) -> None:
        held, self._held = self._held, []
        first = len(self.submitted) - len(held) + 1
        for n, pdu in enumerate(held, first):
            said = self.says(n)
            if said is not None and self._writers:
                status, id_ = said
                self._write(self._writers[-1], pdu, status, b"" if status else id_.encode() + b"\0" + self.suffix)

    def _write(self, writer: asyncio.StreamWriter, pdu: Pdu, status: int, body: bytes = b"") -> None:
        writer.write(Pdu(pdu.command | RESPONSE, status, pdu.sequence, body).encode())

    @property
    def sessions(self) -> int:
        return len(self._writers)

    def send(self, data: bytes) -> None:
        self._writers[-1].write(data)

    def ask(self, command: int, body: bytes = b"") -> int:
        """A request of the centre's own; its sequence number."""
        self._sequence += 1
        self.send(Pdu(command, 0, self._sequence, body).encode())
        return self._sequence

    def deliver(self, message: ShortMessage) -> int:
        return self.ask(DELIVER_SM, message.encode())

    async def answered(self, sequence: int, command: int = DELIVER_SM) -> int:
        """The status that our request got."""

        def found() -> list[int]:
            wanted = (command | RESPONSE, GENERIC_NACK)
            return [pdu.status for pdu in self.heard if pdu.sequence == sequence and pdu.command in wanted]

        await until(lambda: bool(found()), f"an answer to {sequence}")
        return found()[0]

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def centre(tls: ssl.SSLContext | None = None) -> AsyncIterator[Centre]:
    one = Centre()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.cut()
        server.close()
        await until(lambda: one.sessions == 0, "all sessions are over")


@asynccontextmanager
async def courier(one: Centre, window: int = 10, timers: Timers = QUICK, **bind: Any) -> AsyncIterator[SmppCourier]:
    account = Account("127.0.0.1", one.port, Bind("esme", "hush", **bind), "+8610690000", window)
    made = SmppCourier("p1", account, timers)
    try:
        yield made
    finally:
        await made.close()


def text_message(text: bytes, **changes: Any) -> ShortMessage:
    """A deliver_sm from a user to us."""
    values = {"source": "8613800000000", "to": "10690000", "text": text, "source_ton": 1, "source_npi": 1}
    return ShortMessage(**{**values, **changes})
