"""One stream of triggers over as many connections as it takes. Decisions are the ledger's; this does the waiting.

Safe resend. A trigger stays in the ledger until its answer was read; when a connection is cut, the next one begins with
everything unanswered, in order, and the server's idempotency turns what it had already taken into `duplicate`, which
becomes the first answer again. That is exact while answers are on the wire, so `results="all"` is one long request.
For "failed" and "none" the accepted results are not asked for (they are most of the traffic, and the server then builds
no body for them); what is not confirmed is known only from a summary. So those streams are cut into requests of at most
half a window or `LEG_S`, each ended by a summary that must agree with what was read; a cut costs resending one such
part. "none" asks for the failed results too, since a resend's duplicates can only be counted rightly by their `first`.
The parts follow each other and never overlap: two connections may reach two gateways, and triggers of one user would
overtake each other.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from typing import Final

import aiohttp
import msgspec

from dispatcher.client.answers import AnswerLine, Result, Results, Summary
from dispatcher.client.errors import Cut, Unavailable
from dispatcher.client.ledger import Ledger
from dispatcher.client.lines import AnyTrigger, Ids, encode_line
from dispatcher.client.retrying import Retrying
from dispatcher.client.wire import OK, broken_connections, refusal, split_answers

LEG_S: Final = 1.0
CHUNK_BYTES: Final = 64 * 1024
WINDOW_BYTES: Final = 32 * 1024 * 1024
#: A source that never waits is given a turn's rest this often, so that answers are read meanwhile.
TURN_TRIGGERS: Final = 128

#: Opens the request of a leg: (body, wire results) -> response.
Post = Callable[[AsyncIterable[bytes], str], AbstractAsyncContextManager[aiohttp.ClientResponse]]


class LegBody:
    """The body of one request: lines of the ledger as they come, until the leg is full or the source has ended.

    A class and not an async generator: an abandoned one needs no closing.
    """

    def __init__(self, ledger: Ledger, wake: asyncio.Event, max_lines: int | None) -> None:
        self._ledger = ledger
        self._wake = wake
        self._max_lines = max_lines
        self._deadline: float | None = None
        self._stopped = False
        self.complete = False

    def __aiter__(self) -> "LegBody":
        return self

    async def __anext__(self) -> bytes:
        while not self._stopped:
            if self._is_full():
                self.complete = True
                break
            if data := self._take():
                return data
            if self._ledger.ended:
                self.complete = True
                break
            await self._pause()
        raise StopAsyncIteration

    def stop(self) -> None:
        """No further line of the ledger goes out through this body."""
        self._stopped = True
        self._wake.set()

    def _is_full(self) -> bool:
        if self._max_lines is None or self._deadline is None:
            return False
        return self._ledger.leg_sent >= self._max_lines or asyncio.get_running_loop().time() >= self._deadline

    def _take(self) -> bytes:
        room = (self._max_lines or self._ledger.unanswered) - (self._ledger.leg_sent if self._max_lines else 0)
        data = self._ledger.take(CHUNK_BYTES, room)
        if data and self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + LEG_S
        return data

    async def _pause(self) -> None:
        self._wake.clear()
        deadline = None if self._max_lines is None else self._deadline
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            return


class Stream:
    """One call of `Client.stream`."""

    def __init__(self, source: Iterable[AnyTrigger] | AsyncIterable[AnyTrigger], results: Results, post: Post) -> None:
        self._source = source
        self._results = results
        self._post = post
        self._ledger = Ledger()
        self._refused: deque[Result] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._source_error: Exception | None = None
        self._reconnects = 0
        self._intake: asyncio.Task[None] | None = None
        self._retrying: Retrying | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing moves, while it is tried again."""
        return self._retrying.trouble if self._retrying is not None else None

    @property
    def summary(self) -> Summary:
        """The counts so far."""
        return msgspec.structs.replace(self._ledger.summary(), reconnects=self._reconnects)

    async def run(self, window: int, ids: Ids, retrying: Retrying, silence_s: float) -> AsyncGenerator[Result, None]:
        """Every wanted result, once. Raises Problem, BadAnswer, GaveUp; and last what the source raised."""
        self._retrying = retrying
        self._intake = asyncio.create_task(self._take_in(window, ids, retrying), name="client intake")
        max_lines = None if self._results == "all" else max(1, window // 2)
        try:
            while await self._has_work():
                try:
                    async with aclosing(self._leg(max_lines, retrying, silence_s)) as results:
                        async for result in results:
                            yield result
                except (Cut, Unavailable) as error:
                    await self._reconnect(error, retrying)
            if self._source_error is not None:
                raise self._source_error
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take nothing more from the source."""
        if self._intake is not None:
            self._intake.cancel()
            await asyncio.wait([self._intake])

    async def _take_in(self, window: int, ids: Ids, retrying: Retrying) -> None:
        """Source to ledger, as far as the window allows. What the source raises waits for the answers before it."""
        try:
            async for trigger in _in_turns(self._source):
                while self._is_full(window):
                    self._room.clear()
                    await self._room.wait()
                if not self._ledger.unanswered:
                    retrying.progress()
                self._admit(trigger, ids)
        except Exception as error:
            self._source_error = error
        finally:
            self._ledger.ended = True
            self._wake.set()

    def _is_full(self, window: int) -> bool:
        held = self._ledger.unanswered + len(self._refused)
        return held >= window or self._ledger.unanswered_bytes >= WINDOW_BYTES

    def _admit(self, trigger: AnyTrigger, ids: Ids) -> None:
        try:
            self._ledger.admit(encode_line(trigger, ids))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            self._refused.append(self._ledger.refuse(f"invalid: {error}"))
        self._wake.set()

    async def _has_work(self) -> bool:
        while not (self._ledger.unanswered or self._refused or self._ledger.ended):
            self._wake.clear()
            await self._wake.wait()
        return bool(self._ledger.unanswered or self._refused)

    async def _leg(self, max_lines: int | None, retrying: Retrying, silence_s: float) -> AsyncGenerator[Result, None]:
        """One request, from its first line to its summary."""
        for result in self._wanted([]):
            yield result
        if not self._ledger.unanswered:
            return
        self._ledger.start_leg()
        before = self._ledger.answered
        body = LegBody(self._ledger, self._wake, max_lines)
        try:
            async with self._post(body, "all" if max_lines is None else "failed") as response:
                if response.status != OK:
                    raise await refusal(response)
                async with aclosing(self._answers(response, retrying, silence_s)) as chunks:
                    async for answers in chunks:
                        answered = self._ledger.answered
                        for result in self._wanted(answers):
                            yield result
                        if self._ledger.answered > answered:
                            retrying.progress()
        finally:
            body.stop()
        if self._ledger.answered > before:
            retrying.progress()
        if self._ledger.in_flight or not body.complete:
            raise Cut("the server ended the stream before its request did")

    async def _answers(
        self, response: aiohttp.ClientResponse, retrying: Retrying, silence_s: float
    ) -> AsyncGenerator[list[AnswerLine], None]:
        """The answer's lines as they arrive, the summary settled. Ends after the summary; Cut when there is none."""
        rest = b""
        while True:
            chunk = await self._read(response, silence_s / 8)
            if chunk is None:
                if self._ledger.in_flight and retrying.silent_s() > silence_s:
                    raise Cut(f"no answer for {silence_s:g} s")
                if self._refused:
                    yield []
                continue
            if not chunk:
                raise Cut("the connection ended before the summary")
            answers, rest = split_answers(rest + chunk)
            if answers and (summary := answers[-1].summary) is not None:
                yield answers[:-1]
                self._ledger.close(summary, silent=self._results != "all")
                self._room.set()
                with suppress(Cut):  # to the end of the response, so that its connection can be used again
                    await self._read(response, silence_s / 8)
                return
            if answers:
                yield answers

    async def _read(self, response: aiohttp.ClientResponse, tick_s: float) -> bytes | None:
        """What has arrived; b"" at the end; None when nothing came for a tick."""
        try:
            async with asyncio.timeout(tick_s):
                with broken_connections():
                    return await response.content.readany()
        except TimeoutError:
            return None

    def _wanted(self, answers: list[AnswerLine]) -> list[Result]:
        """Settles answers and gives out those results that the caller asked for."""
        settled = [result for answer in answers if (result := self._ledger.settle(answer)) is not None]
        settled.extend(self._refused)
        self._refused.clear()
        self._room.set()
        if self._results == "all":
            return settled
        return [] if self._results == "none" else [result for result in settled if result.status != "accepted"]

    async def _reconnect(self, error: Cut | Unavailable, retrying: Retrying) -> None:
        if self._ledger.unanswered or not self._ledger.ended:
            self._reconnects += 1
        if self._ledger.unanswered:
            await retrying.pause(error, self._ledger.unanswered)


async def _in_turns(source: Iterable[AnyTrigger] | AsyncIterable[AnyTrigger]) -> AsyncIterator[AnyTrigger]:
    count = 0
    if isinstance(source, AsyncIterable):
        async for trigger in source:
            yield trigger
            count += 1
            if count % TURN_TRIGGERS == 0:
                await asyncio.sleep(0)
        return
    for trigger in source:
        yield trigger
        count += 1
        if count % TURN_TRIGGERS == 0:
            await asyncio.sleep(0)
