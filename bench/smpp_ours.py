"""One round of the kind `smpp`, one message a call, as the sender calls it; `python -m bench.smpp_ours PORT WINDOW
SECONDS TEXT` writes what it came to as JSON."""

import asyncio
import json
import sys
import time

import uvloop

from channels.smpp.courier import Account, SmppCourier
from channels.smpp.pdu import Bind
from dispatcher.message import Message


async def main(port: int, window: int, seconds: float, text: str) -> dict[str, float]:
    courier = SmppCourier("bench", Account("127.0.0.1", port, Bind("esme", "hush"), "10690000", window))

    async def submit(number: int) -> None:
        id_ = f"{number:026d}"
        fields = {"text": text}
        message = Message(id_, id_, "u1", "sms", "+8613800000000", "notice", 3, 1, "wallet", "t", fields, {}, 1, 1, 2)
        [receipt] = await courier.send([message], 5)
        if receipt.answer != "accepted":
            raise RuntimeError(f"the centre accepts everything, and this came: {receipt}")

    await submit(0)
    end_s, count = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < end_s:
            count += 1
            await submit(count)

    begun_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(window)))
    found = {"submits": count, "seconds": time.perf_counter() - begun_s, "cpu_s": time.process_time() - cpu_s}
    await courier.close()
    return found


if __name__ == "__main__":
    port, window, seconds, text = sys.argv[1:]
    print(json.dumps(uvloop.run(main(int(port), int(window), float(seconds), text))))
