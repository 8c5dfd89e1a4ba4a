"""A message centre of a few lines that says yes to everything; it writes its port, and ends with its standard input."""

import asyncio
import sys
from typing import cast

import uvloop

from channels.smpp.pdu import BIND_TRANSCEIVER, RESPONSE, SUBMIT_SM, Frames, Pdu


class _Centre(asyncio.Protocol):
    """One session."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        answers = []
        for pdu in self._frames.feed(data):
            body = b""
            if pdu.command == SUBMIT_SM:
                self._count += 1
                body = b"%x\0" % self._count
            elif pdu.command == BIND_TRANSCEIVER:
                body = b"centre\0"
            answers.append(Pdu(pdu.command | RESPONSE, 0, pdu.sequence, body).encode())
        self._transport.write(b"".join(answers))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Centre, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_serve())
