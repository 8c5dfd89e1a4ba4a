"""NDJSON bodies of documents: stored as they arrive, answered by a line for each that is wrong and a summary."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from dispatcher.http.lines import each_line, pieces
from dispatcher.http.ports import Unavailable
from dispatcher.http.wire import NDJSON

MAX_LINE_BYTES: Final = 64 * 1024
BATCH: Final = 500

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

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Answer the request. One batch is stored at a time: the store's pace is the reading's."""
        response = web.StreamResponse(headers={"Content-Type": NDJSON})
        writer = await response.prepare(request)
        if writer is not None:
            writer.send_headers()
        with suppress(ConnectionError, web.RequestPayloadError):  # who has gone needs no summary
            async for lines, oversize in pieces(request.content, MAX_LINE_BYTES):
                for line in each_line(lines):
                    self._take(line)
                    if len(self._batch) >= BATCH or len(self._errors) >= BATCH:
                        await self._flush(response)
                if oversize:
                    self._refuse(Refused(f"invalid: larger than {MAX_LINE_BYTES} bytes"))
                await self._flush(response)
            await response.write(msgspec.json.encode(BulkSummary(self._counts)) + b"\n")
        return response

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
        batch, self._batch = self._batch, []
        if batch:
            try:
                await self._store([item for _, item in batch])
                self._counts.stored += len(batch)
            except Unavailable as error:
                self._counts.failed += len(batch)
                self._errors += [BulkError(seq, error.reason) for seq, _ in batch]
        errors, self._errors = self._errors, []
        if errors:
            await response.write(b"".join([msgspec.json.encode(error) + b"\n" for error in errors]))
