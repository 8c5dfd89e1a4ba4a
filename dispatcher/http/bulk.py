"""NDJSON bodies of documents: stored as they arrive, answered by a line for each that is wrong and a summary.

Memory is flat whatever the length: what is held is one batch being stored, one being read, and one line's rest.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from dispatcher.http.lines import each_line, pieces
from dispatcher.http.ports import Unavailable
from dispatcher.http.problem import Problem
from dispatcher.http.wire import NDJSON

MAX_LINE_BYTES: Final = 64 * 1024
BATCH: Final = 500
PROGRESS_S: Final = 1.0

T = TypeVar("T")


class BulkError(Struct, frozen=True):
    """A line that was not stored. `seq` counts the lines that are not blank, from 0."""

    seq: int
    error: str
    id: str | None = None


class BulkCounts(Struct):
    """What became of all lines."""

    total: int = 0
    stored: int = 0
    failed: int = 0


class BulkSummary(Struct):
    """The last line of the answer."""

    summary: BulkCounts


class BulkProgress(Struct):
    """How far it is, about once a second when `?progress=true` asks for it."""

    progress: BulkCounts


class Refused(Exception):
    """A line cannot be stored: `invalid: ...`, and whose it is when that is known."""

    def __init__(self, reason: str, id_: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.id = id_


class Bulk(Generic[T]):
    """`read` makes of a line what `store` stores, or raises Refused."""

    def __init__(self, read: Callable[[bytes], T], store: Callable[[list[T]], Awaitable[None]]) -> None:
        self._read = read
        self._store = store
        self._counts = BulkCounts()
        self._batch: list[tuple[int, T]] = []
        self._errors: list[BulkError] = []
        self._storing: asyncio.Task[None] | None = None
        self._told_s: float | None = None  # when progress was told last; None: nobody asked

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Answer the request. While one batch is stored the next is read, no further: the store's pace is the
        reading's, and of equal lines the last wins."""
        if _wants_progress(request):
            self._told_s = asyncio.get_running_loop().time()
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        writer = await response.prepare(request)
        if writer is not None:
            writer.send_headers()
        try:
            with suppress(ConnectionError, web.RequestPayloadError):  # who has gone needs no summary
                await self._take_all(request, response)
        finally:
            await self._stored()
        return response

    async def _take_all(self, request: web.Request, response: web.StreamResponse) -> None:
        async for lines, oversize in pieces(request.content, MAX_LINE_BYTES):
            for line in each_line(lines):
                self._take(line)
                if len(self._batch) >= BATCH or len(self._errors) >= BATCH:
                    await self._flush(response)
            if oversize:
                self._refuse(Refused(f"invalid: larger than {MAX_LINE_BYTES} bytes"))
            if self._storing is None or self._storing.done():  # a slow sender's lines do not wait for a full batch
                await self._flush(response)
        await self._flush(response)
        await self._stored()
        await self._flush(response)
        await response.write(msgspec.json.encode(BulkSummary(self._counts)) + b"\n")

    def _take(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            self._refuse(Refused(f"invalid: larger than {MAX_LINE_BYTES} bytes"))
            return
        try:
            self._batch.append((self._counts.total, self._read(line)))
        except Refused as refused:
            self._refuse(refused)
        else:
            self._counts.total += 1

    def _refuse(self, refused: Refused) -> None:
        self._errors.append(BulkError(self._counts.total, refused.reason, refused.id))
        self._counts.total += 1
        self._counts.failed += 1

    async def _flush(self, response: web.StreamResponse) -> None:
        """Hand the batch over to be stored, once the one before it is, and tell what there is to tell."""
        batch, self._batch = self._batch, []
        if batch:
            await self._stored()
            self._storing = asyncio.get_running_loop().create_task(self._keep(batch))
        errors, self._errors = self._errors, []
        told = [msgspec.json.encode(error) for error in errors]
        if self._told_s is not None:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._told_s >= PROGRESS_S:
                self._told_s = now_s
                told.append(msgspec.json.encode(BulkProgress(self._counts)))
        if told:
            await response.write(b"\n".join(told) + b"\n")

    async def _keep(self, batch: list[tuple[int, T]]) -> None:
        try:
            await self._store([item for _, item in batch])
            self._counts.stored += len(batch)
        except Unavailable as error:
            self._counts.failed += len(batch)
            self._errors += [BulkError(seq, error.reason) for seq, _ in batch]

    async def _stored(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing


def _wants_progress(request: web.Request) -> bool:
    for name, value in request.query.items():
        if name != "progress" or value not in ("true", "false"):
            what = "true or false" if name == "progress" else "unknown parameter"
            raise Problem(400, "the query cannot be read", [(name, what)])
    return request.query.get("progress") == "true"
