"""submit_sm a second of the kind `smpp` on loopback, against a message centre of a few lines in a process of its own.

One session, window 64 (`--window`), one message a call, as the sender calls it.
"""

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

import uvloop

from channels.smpp.courier import Account, SmppCourier
from channels.smpp.pdu import BIND_TRANSCEIVER, RESPONSE, SUBMIT_SM, Bind, Frames, Pdu
from dispatcher.message import Message

GOAL_PER_S: Final = 5_000
_TEXT: Final = "尊敬的张三，您的订单已支付12.00元。"


class _Centre(asyncio.Protocol):
    """Says yes to everything."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

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
        self._transport.write(b"".join(answers))  # type: ignore[attr-defined]


async def _serve(told: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(_Centre, "127.0.0.1", 0)
    told.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _serve_all(told: Connection) -> None:
    uvloop.run(_serve(told))


def _message(number: int) -> Message:
    id_ = f"{number:026d}"
    return Message(
        id_, id_, "u1", "sms", "+8613800000000", "notice", 3, 1, "wallet", "t", {"text": _TEXT, "signature": "示例"},
        {}, 1, 1, 2,
    )  # fmt: skip


async def _ours(port: int, window: int, seconds: float) -> tuple[int, float, float]:
    """Messages accepted, seconds and CPU seconds."""
    courier = SmppCourier("bench", Account("127.0.0.1", port, Bind("esme", "hush"), "10690000", window))
    await courier.send([_message(0)], 5)
    end_s = time.perf_counter() + seconds
    count = 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            count += 1
            [receipt] = await courier.send([_message(count)], 5)
            if receipt.answer != "accepted":
                raise RuntimeError(f"the centre accepts everything, and this came: {receipt}")

    begun_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(window)))
    took_s, used_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    await courier.close()
    return count, took_s, used_s


def main() -> None:
    """Prints what was measured; fails below the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process: BaseProcess = multiprocessing.get_context("spawn").Process(target=_serve_all, args=(there,), daemon=True)
    process.start()
    try:
        count, took_s, used_s = uvloop.run(_ours(here.recv(), args.window, args.seconds))
    finally:
        process.kill()
        process.join()
    rate = count / took_s
    print(f"window {args.window}: {rate:,.0f} submit_sm/s, {used_s / count * 1e6:.0f} us CPU each")
    if rate < GOAL_PER_S:
        raise SystemExit(f"below the goal of {GOAL_PER_S:,} a second")


if __name__ == "__main__":
    main()
