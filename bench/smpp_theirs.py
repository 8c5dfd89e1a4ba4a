"""The round of `bench.smpp_ours` with aiosmpplib, by whose own interpreter this file is run: it is no dependency.

It has no window and no answer to a call. So a place in the window is a task here, which waits for the hook that hears
the answer. With a fifth word `bare` its correlator is one that only knows which request an answer belongs to: the one
it comes with looks through all that was sent for every request, and keeps that for three days.
"""

import asyncio
import json
import sys
import time
from importlib import import_module
from typing import Any, Protocol


class _Submitted(Protocol):
    log_id: str
    command_status: int


class _Numbered(Protocol):
    sequence_num: int


class _Answers:
    """Who waits for which answer. Its three methods are those of the library's `AbstractHook`."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[int]] = {}

    async def sending(self, smpp_message: _Submitted, pdu: bytes, client_id: str) -> None:
        pass

    async def received(self, smpp_message: _Submitted | None, pdu: bytes, client_id: str) -> None:
        waits = self.waiting.pop(getattr(smpp_message, "log_id", ""), None)
        if waits is not None and smpp_message is not None:
            waits.set_result(smpp_message.command_status)

    async def send_error(self, smpp_message: _Submitted, error: Exception, client_id: str) -> None:
        self.waiting.pop(smpp_message.log_id).set_exception(error)


class _Correlator:
    """Its methods are those of the library's `AbstractCorrelator` that a session without receipts calls."""

    def __init__(self) -> None:
        self._sent: dict[int, _Numbered] = {}

    async def put(self, smpp_message: _Numbered) -> None:
        self._sent[smpp_message.sequence_num] = smpp_message

    async def get(self, response: _Numbered) -> _Numbered | None:
        return self._sent.pop(response.sequence_num, None)

    async def put_delivery(self, smsc_message_id: str, submit_sm: _Numbered) -> None:
        pass

    async def get_segmented(self, smpp_seq_num: int, remove: bool = False) -> tuple[None, int]:
        return None, 0


async def main(port: int, window: int, seconds: float, text: str, bare: bool) -> dict[str, float]:
    library: Any = import_module("aiosmpplib")
    answers = _Answers()
    library.AbstractHook.register(_Answers)
    library.AbstractCorrelator.register(_Correlator)
    correlator = _Correlator() if bare else None
    esme = library.ESME("127.0.0.1", port, "esme", "hush", log_level="WARNING", hook=answers, correlator=correlator)
    source = library.PhoneNumber("10690000")
    to = library.PhoneNumber("8613800000000", library.TON.INTERNATIONAL, library.NPI.ISDN)

    async def submit(number: int) -> None:
        id_ = f"{number:026d}"
        answers.waiting[id_] = waits = asyncio.get_running_loop().create_future()
        message = library.SubmitSm(short_message=text, source=source, destination=to, encoding="ucs2", log_id=id_)
        await esme.broker.enqueue(message)
        if await waits != 0:
            raise RuntimeError(f"the centre accepts everything, and this came: {waits.result()}")

    running = asyncio.create_task(esme.start())
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
    running.cancel()
    await asyncio.wait([running])
    return found


if __name__ == "__main__":
    uvloop: Any = import_module("uvloop")
    port, window, seconds, text, *words = sys.argv[1:]
    print(json.dumps(uvloop.run(main(int(port), int(window), float(seconds), text, "bare" in words))))
