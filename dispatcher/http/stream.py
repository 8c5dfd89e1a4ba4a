"""One stream of triggers: read, sort, submit, answer. Whatever its length, no more than a window of it is in memory.

A slow caller stops the writing, a slow shard stops the answering; either keeps the window full, and a full window stops
the reading, down to the caller's own socket.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter

from dispatcher.answers import OVERLOADED, STATUSES, Answers, Want
from dispatcher.http.groups import Group, Rejects, Sorter, overloaded, part, split
from dispatcher.http.ports import Intake, Unavailable
from dispatcher.http.settings import Settings
from dispatcher.http.window import Window
from dispatcher.http.wire import Bad, Summary, Wire
from dispatcher.trigger import Trigger
from dispatcher.window import Window as AdaptiveWindow

#: Decoded in one go: a thousand triggers hold up other requests of this process for 2 ms.
STEP_BYTES: Final = 128 * 1024
FIRST_PAUSE_S: Final = 0.05
#: Whatever wait a lane that stands still names: one group of a stream asks for all, and is to hear when it goes on.
MOST_PAUSE_S: Final = 1.0
#: Distinct reasons a summary names; the rest is counted under `other`, since `invalid: ...` texts have no end.
MOST_REASONS: Final = 1_000

_log = logging.getLogger(__name__)


async def submit(intake: Intake, group: Group, want: Want) -> Answers:
    """The shard's answers; what it could not be asked is overloaded."""
    try:
        return await intake.submit(group.shard, group.orders, want)
    except Unavailable as error:
        return overloaded(group.orders, error.reason)
    except Exception:
        _log.exception("http: %d orders for shard %d got no answer", len(group.orders), group.shard)
        return overloaded(group.orders, "gateway_error")


class Crowd:
    """Those whom one shard has no room for: one group at a time asks again, for no more than is taken. All of them
    asking would cost the shard the time it needs to make room."""

    __slots__ = ("turn", "window")

    def __init__(self, most: int) -> None:
        self.turn = asyncio.Lock()
        self.window = AdaptiveWindow(most)


class Stream:
    """One request's stream, from the first byte to the summary."""

    def __init__(self, intake: Intake, sorter: Sorter, wire: Wire, want: Want, settings: Settings) -> None:
        self._intake = intake
        self._sorter = sorter
        self._wire = wire
        self._want = want
        self._patience_s = settings.stream_patience_s
        self._window = Window(settings.stream_triggers, settings.stream_bytes)
        self._crowds = [Crowd(settings.group_orders) for _ in range(intake.shards)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = [0] * len(STATUSES)
        self._reasons: dict[str, int] = {}
        self._total = 0
        self._stopping = asyncio.Event()
        self._gone = False
        self._failed = False
        self._reading: asyncio.Timeout | None = None
        self._writer: AbstractStreamWriter | None = None

    def stop(self) -> None:
        """Read no more; finish what is in hand."""
        self._stopping.set()
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Answer the request. A caller that vanishes ends the reading; what was submitted is still awaited."""
        response = web.StreamResponse(headers={"Content-Type": self._wire.content_type})
        self._writer = await response.prepare(request)
        if self._writer is not None:
            self._writer.send_headers()  # a caller may wait for them before it sends the first line
        try:
            await self._read(request)
            while self._tasks:
                await asyncio.wait(self._tasks)
            if self._failed:
                raise RuntimeError("a group of orders was lost")
            await self._write(self._wire.summary(self._summary()))
        except Exception:
            _log.exception("http: a stream of %d triggers was cut off", self._total)
            if request.transport is not None:  # the answer has begun: all that can be said is that it is not whole
                request.transport.abort()
        finally:
            await self._end_tasks()
        if self._stopping.is_set() or self._wire.failure is not None:
            response.force_close()
        return response

    # -- reading

    async def _read(self, request: web.Request) -> None:
        content, feed, window = request.content, self._wire.feed, self._window
        try:
            while self._wire.failure is None and not self._stopping.is_set():
                await window.room()
                data = await self._next(content)
                if not data:
                    break
                await self._take(feed(data), len(data))
                await asyncio.sleep(0)  # the body may be buffered already, and others wait for their turn
            if content.at_eof() and self._wire.failure is None:
                await self._take(self._wire.finish(), 0)
        except (ConnectionError, web.RequestPayloadError):
            self._leave()
        if self._wire.failure is not None:
            await self._take([Bad(None, self._wire.failure)], 0)

    async def _next(self, content: StreamReader) -> bytes:
        """The next bytes; none at the end, or when the stream is to stop."""
        try:
            async with asyncio.timeout(None) as self._reading:
                return await content.read(STEP_BYTES)
        except TimeoutError:
            return b""
        finally:
            self._reading = None

    async def _take(self, triggers: Sequence[Trigger | Bad], size_bytes: int) -> None:
        """Submit these; they are `size_bytes` long in all."""
        n = len(triggers)
        if not n:
            return
        groups, rejects = self._sorter.sort(triggers, self._total)
        self._total += n
        each_bytes = size_bytes // n
        loop = asyncio.get_running_loop()
        for group in groups:
            self._window.take(len(group.orders), each_bytes * len(group.orders))
            task = loop.create_task(self._settle(group, each_bytes))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if rejects.items:
            await self._reject(rejects)

    # -- answering

    async def _reject(self, rejects: Rejects) -> None:
        """Written by the reader itself: while its caller does not take these, it reads no more."""
        await self._answer(rejects.seqs, rejects.answers(bodies=self._want != Want.NONE))

    async def _settle(self, group: Group, each_bytes: int) -> None:
        """Submit a group until every order of it is answered."""
        patience_ends = asyncio.get_running_loop().time() + self._patience_s
        left, _ = await self._try(group, each_bytes, last=self._patience_s <= 0)
        if not left.orders:
            return
        crowd = self._crowds[group.shard]
        async with crowd.turn:
            while left.orders:
                left = await self._try_some(left, each_bytes, crowd.window, patience_ends)

    async def _try_some(self, group: Group, each_bytes: int, window: AdaptiveWindow, patience_ends: float) -> Group:
        """Ask again for as many as were taken lately, and wait a little when they were not; returns who is left. When
        patience ends, all are asked for a last time."""
        loop = asyncio.get_running_loop()
        last = loop.time() >= patience_ends or self._stopping.is_set()
        some, rest = (group, Group(group.shard)) if last else split(group, window.size)
        n = len(some.orders)
        left, retry_after_s = await self._try(some, each_bytes, last)
        taken = n - len(left.orders)
        window.answered(n, len(left.orders), n)
        if left.orders:
            pause_s = FIRST_PAUSE_S if taken else min(max(retry_after_s, 2 * FIRST_PAUSE_S), MOST_PAUSE_S)
            await self._pause(min(pause_s, patience_ends - loop.time()))
        left.seqs += rest.seqs
        left.orders += rest.orders
        return left

    async def _try(self, group: Group, each_bytes: int, last: bool) -> tuple[Group, float]:
        """Submit once, write what is answered for good; returns what is to be asked again, and how soon at best."""
        answers = await submit(self._intake, group, self._want)
        done, left = group, Group(group.shard)
        retry_after_s = answers.retry_after_s
        if not last and OVERLOADED in answers.statuses and not self._stopping.is_set():
            done, answers, left = part(group, answers)
        await self._answer(done.seqs, answers)
        self._window.give(len(done.orders), each_bytes * len(done.orders))
        return left, retry_after_s

    async def _pause(self, pause_s: float) -> None:
        """Wait, unless the stream is to end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, pause_s)):
                await self._stopping.wait()

    async def _answer(self, seqs: list[int], answers: Answers) -> None:
        """Count these results and write those that the caller wants."""
        counts, statuses = self._counts, answers.statuses
        for number in range(len(STATUSES)):
            counts[number] += statuses.count(number)
        for reason, n in answers.reasons.items():
            known = reason in self._reasons or len(self._reasons) < MOST_REASONS
            reason_ = reason if known else "other"
            self._reasons[reason_] = self._reasons.get(reason_, 0) + n
        if self._want != Want.NONE:
            await self._write(self._wire.results(seqs, answers.bodies))

    async def _write(self, data: bytes) -> None:
        """Returns when the caller has taken enough of what was written before."""
        if self._gone or not data or self._writer is None:
            return
        try:
            await self._writer.write(data)
        except ConnectionError:
            self._leave()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("http: a group of orders was lost", exc_info=error)
            self._failed = True
            self.stop()

    def _leave(self) -> None:
        self._gone = True
        self._stopping.set()

    def _summary(self) -> Summary:
        return Summary(self._total, **dict(zip(STATUSES, self._counts, strict=True)), reasons=self._reasons)

    async def _end_tasks(self) -> None:
        """Nothing of this stream outlives its request, not even when the request is cancelled."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
