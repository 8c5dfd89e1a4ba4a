"""One kept-alive HTTP/1.1 connection: one request at a time, its reply parsed by httptools (llhttp, strict)."""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from channels.adapter import NotWritten, Reply, Written
from channels.head import Origin
from channels.transport import LONGEST_REPLY_BYTES, PHASES, Phases

#: Names and values of one reply's headers together, and how many there may be.
LONGEST_HEAD_BYTES: Final = 64 * 1024
MOST_HEADERS: Final = 256
_BY_PARTS_BYTES: Final = 64 * 1024
#: What may arrive before the final headers are whole (1xx replies and the reason phrase included), and in all:
#: llhttp keeps neither, but httptools keeps a header that does not end.
_LONGEST_RAW_HEAD_BYTES: Final = 4 * LONGEST_HEAD_BYTES
_LONGEST_RAW_BYTES: Final = 2 * LONGEST_REPLY_BYTES


class Owner(Protocol):
    """Who a connection tells what became of it."""

    def made(self, connection: "Connection") -> None: ...

    def freed(self, connection: "Connection", keep: bool) -> None:
        """Its request ended; with `keep` it can take another."""
        ...

    def lost(self, connection: "Connection") -> None:
        """It is gone, or will take no more requests; may be told more than once."""
        ...


class _Stop(Exception):
    """Ends the parsing of what came in."""


class Connection(asyncio.Protocol):
    """`deadline_s` is when to look whether its request, or its idleness, has lasted long enough: `overdue` says so of
    a request and sets the next time to look. `idle` is its owner's to set.

    It is `gone` once the loop has closed it.
    """

    def __init__(self, origin: Origin, owner: Owner) -> None:
        self.origin = origin
        self.deadline_s = 0.0
        self._begun_s = self._timeout_s = self._written_s = 0.0
        self._phases = PHASES
        self.idle = self.gone = False
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._future: asyncio.Future[Reply] | None = None
        self._headless = False
        self._clear()

    def _clear(self) -> None:
        self._fault = ""
        self._received_bytes = 0
        self._headed = self._to_eof = self._keep = self._whole = False
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._parts: list[bytes] = []
        self._body_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a request is in the air."""
        return self._future is not None

    @property
    def usable(self) -> bool:
        """Whether a request can be written now."""
        return self._transport is not None and not self._transport.is_closing()

    def exchange(self, head: bytes, body: bytes, bodiless: bool) -> asyncio.Future[Reply]:
        """Writes a request; the future holds its reply, or Written. `bodiless`: HEAD. Raises NotWritten."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self._owner.freed(self, False)
            raise NotWritten("the connection closed before the request was written")
        self._headless = bodiless
        self._clear()
        self._future = future = asyncio.get_running_loop().create_future()
        if len(body) < _BY_PARTS_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        return future

    def limit(self, begun_s: float, now_s: float, timeout_s: float, phases: Phases) -> None:
        """For the request that is written next: `timeout_s` counts from `begun_s`, the phases from now."""
        self._begun_s, self._timeout_s, self._phases, self._written_s = begun_s, timeout_s, phases, now_s
        self.deadline_s = min(begun_s + timeout_s, now_s + min(phases.write_s, phases.first_byte_s))

    def overdue(self, now_s: float) -> str | None:
        """Why the request in the air has lasted too long; None, and `deadline_s` is the next time to ask."""
        phases, since_s = self._phases, self._written_s
        whole_s = self._begun_s + self._timeout_s
        if now_s >= whole_s:
            return f"no reply within {self._timeout_s:g} s"
        next_s = whole_s
        if self._transport is not None and self._transport.get_write_buffer_size():
            if now_s >= since_s + phases.write_s:
                return f"not written whole within {phases.write_s:g} s"
            next_s = min(next_s, since_s + phases.write_s)
        if not self._received_bytes:
            if now_s >= since_s + phases.first_byte_s:
                return f"no byte of a reply within {phases.first_byte_s:g} s"
            next_s = min(next_s, since_s + phases.first_byte_s)
        self.deadline_s = next_s
        return None

    def tell(self, future: asyncio.Future[Reply], written: Callable[[], None]) -> None:
        """Calls `written` if that request is still in the air and the kernel has all of it."""
        if self._future is future and self._transport is not None and not self._transport.get_write_buffer_size():
            written()

    def abandon(self, future: asyncio.Future[Reply]) -> None:
        """Closes the connection if that request is still in the air on it."""
        if self._future is future:
            self.fail("cancelled")

    def fail(self, why: str) -> None:
        """Closes the connection at once; a request in the air ends as Written."""
        future, self._future = self._future, None
        if self._transport is not None:
            self._transport.abort()
        if future is not None:
            if not future.done():
                future.set_exception(Written(why))
            self._owner.freed(self, False)

    def close(self) -> None:
        """Closes an idle connection; TLS says goodbye."""
        if self._transport is not None:
            self._transport.close()

    # -- what the loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.gone:
            self._transport.abort()
        else:
            self._owner.made(self)

    def give_up(self) -> None:
        """Making it was broken off: uvloop then closes its transport, and may yet say made, but never lost."""
        self.gone = True
        self.fail("")
        self._owner.lost(self)

    def connection_lost(self, exc: Exception | None) -> None:
        why = type(exc).__name__ if exc is not None else "the connection ended before the reply did"
        self.fail(why)
        self._transport = None
        self.gone = True
        self._owner.lost(self)

    def eof_received(self) -> None:
        if self._future is not None and self._to_eof:
            self._whole = True
            self._finish(False)
        else:
            self.fail("the connection ended before the reply did")
            self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._future is None:  # nobody asked: whatever it answers, it is not the next request
            self.fail("")
            self._owner.lost(self)
            return
        self._received_bytes += len(data)
        clean = True
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            clean = False
            self._fault = self._fault or f"unreadable reply: {type(error).__name__} {error}"
        if self._whole:
            self._finish(clean and self._keep)
        elif self._fault:
            self.fail(self._fault)
        elif self._received_bytes > (_LONGEST_RAW_BYTES if self._headed else _LONGEST_RAW_HEAD_BYTES):
            self.fail("the reply is too long")

    def _finish(self, keep: bool) -> None:
        """The reply is whole. A connection is kept when both sides have nothing more to say on it."""
        future, transport = self._future, self._transport
        self._future = None
        assert future is not None
        assert transport is not None
        cancelled = future.done()
        keep = keep and not cancelled and not transport.is_closing() and transport.get_write_buffer_size() == 0
        if not keep:
            transport.abort()
        if not cancelled:
            parts = self._parts
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            future.set_result(Reply(self._status, self._headers, body))
        self._owner.freed(self, keep)

    # -- what the parser says

    def on_message_begin(self) -> None:
        if self._whole:
            raise _Stop  # more than one reply to one request
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > LONGEST_HEAD_BYTES or len(self._headers) >= MOST_HEADERS:
            self._refuse("the reply's headers are too long")
        if not self._headed:  # trailers are dropped
            self._headers[_lower(name)] = value.decode("utf-8", "surrogateescape").rstrip(" \t")

    def on_headers_complete(self) -> None:
        self._status = status = self._parser.get_status_code()
        if status < 200:
            return
        self._headed = True
        length, coding = self._headers.get("content-length"), self._headers.get("transfer-encoding")
        if self._headless:
            self._whole = True
            raise _Stop  # llhttp would wait for the body that the headers speak of
        self._keep = self._parser.should_keep_alive()
        if coding is not None and coding.lower() != "chunked":
            self._refuse("unreadable reply: its transfer-encoding")
        self._to_eof = length is None and coding is None and status not in {204, 304}
        if length is not None and int(length) > LONGEST_REPLY_BYTES:
            self._refuse(f"the reply is longer than {LONGEST_REPLY_BYTES} bytes")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > LONGEST_REPLY_BYTES:
            self._refuse(f"the reply is longer than {LONGEST_REPLY_BYTES} bytes")

    def on_message_complete(self) -> None:
        self._whole = self._headed  # after a 1xx the reply is still to come

    def _refuse(self, why: str) -> None:
        self._fault = why
        raise _Stop


@lru_cache(maxsize=1024)
def _lower(name: bytes) -> str:
    return name.lower().decode("latin-1")
