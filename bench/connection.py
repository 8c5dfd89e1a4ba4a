"""The load generator's side of one streamed request."""

import asyncio
import time
from typing import Any, cast

import msgspec
from msgspec import Struct

from bench.plan import Plan


class LoadError(Exception):
    """The server refused or left."""


class AnswerId(Struct, gc=False):
    """The part of a result line that tells which trigger it answers."""

    id: str = ""
    summary: dict[str, Any] | None = None


class Connection(asyncio.Protocol):
    """One chunked POST; reads the answer down to its summary."""

    def __init__(self, head: bytes, ready: asyncio.Event, answered: "Answered | None") -> None:
        self._head = head
        self._ready = ready
        self._answered = answered
        self._buffer = b""
        self._body = b""
        self._status: bytes | None = None
        self._transport: asyncio.Transport | None = None
        self.can_write = False
        self.summary: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=1 << 20)
        self.write(self._head)
        self.resume_writing()

    def write(self, data: bytes) -> None:
        """Bytes to the server."""
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        """No more of it; whether it had ended well is in `summary`."""
        assert self._transport is not None
        self._transport.close()
        if self.summary.done() and not self.summary.cancelled():
            self.summary.exception()  # looked at: no complaint about an error that nobody asked for
        self.summary.cancel()

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        self.can_write = True
        self._ready.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._status is None:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self._status, self._buffer = head.split(b" ", 2)[1], rest
            if self._status != b"200":
                self._fail(f"{head.decode('latin-1').splitlines()[0]}: {rest[:300].decode(errors='replace')}")
                return
        self._read_chunks()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server left: {exc or 'no summary'}")

    def _read_chunks(self) -> None:
        buffer, at, parts = self._buffer, 0, [self._body]
        last = False
        while (line_end := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:line_end], 16)
            if len(buffer) < line_end + size + 4:
                break
            parts.append(buffer[line_end + 2 : line_end + 2 + size])
            at = line_end + size + 4
            if not size:
                last = True
                break
        self._buffer = buffer[at:]
        self._body = b"".join(parts)
        self._read_lines(last)

    def _read_lines(self, last: bool) -> None:
        end = self._body.rfind(b"\n") + 1
        whole, rest = self._body[:end], self._body[end:]
        if last:
            start = whole.rstrip().rfind(b"\n") + 1
            whole, line = whole[:start], whole[start:]
            if not self.summary.done():
                self.summary.set_result(msgspec.json.decode(line, type=AnswerId).summary or {})
        if whole and self._answered is not None:
            self._answered.take(whole)
            whole = b""
        # Without a listener only the last line matters.
        start = whole.rstrip().rfind(b"\n") + 1
        self._body = whole[start:] + rest

    def _fail(self, why: str) -> None:
        if not self.summary.done():
            self.summary.set_exception(LoadError(why))
        self.resume_writing()  # nobody shall wait for it


class Answered:
    """How long answers took, from the intended send; every `every`-th trigger is looked at."""

    def __init__(self, plan: Plan, every: int = 16) -> None:
        self._plan = plan
        self._every = every
        self._decode = msgspec.json.Decoder(AnswerId).decode_lines
        self.start_s = 0.0
        self.times_s: list[float] = []

    def take(self, lines: bytes) -> None:
        """Result lines that arrived just now."""
        now_s = time.monotonic() - self.start_s
        for answer in self._decode(lines):
            n = int(answer.id.rpartition("-")[2] or 0)
            if answer.summary is None and n % self._every == 0:
                self.times_s.append(now_s - self._plan.intended_s(n))
