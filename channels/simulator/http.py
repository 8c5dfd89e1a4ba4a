"""A lean HTTP/1.1 server connection: keep-alive, pipelining in order, answers that may come late or never."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Final, cast

import httptools
from msgspec import Struct

LONGEST_BODY_BYTES: Final = 64 * 1024 * 1024
_MOST_WAITING: Final = 64  # pipelined requests of one connection; then reading stops


class Outgoing(Struct, frozen=True, gc=False):
    """What goes back: one body, or parts that are sent as fast as they are read. `delay_s` None: never.

    `reset`: nothing at all, the connection ends with a RST.
    """

    status: int
    body: bytes | Iterator[bytes]
    content_type: bytes = b"application/json"
    delay_s: float | None = 0.0
    retry_after_s: float | None = None
    reset: bool = False


#: method, target, headers (names in lower case), body
Serve = Callable[[bytes, bytes, Mapping[str, str], bytes], Outgoing]

_OK_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def head(out: Outgoing, keep_alive: bool) -> bytes:
    """Status line and headers."""
    length = len(out.body) if isinstance(out.body, bytes) else None
    if out.status == 200 and keep_alive and length is not None and out.content_type == b"application/json":
        return _OK_HEAD % (length,)
    lines = [
        b"HTTP/1.1 %d %s" % (out.status, _REASONS.get(out.status, b"Unknown")),
        b"Content-Type: " + out.content_type,
        b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length,
    ]
    if out.retry_after_s is not None:
        lines.append(b"Retry-After: %d" % out.retry_after_s)
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Waiting:
    """An answer in its place behind the earlier ones of the connection."""

    __slots__ = ("data", "last", "parts", "ripe")

    def __init__(self, data: bytes, parts: Iterator[bytes] | None, last: bool) -> None:
        self.data = data
        self.parts = parts
        self.last = last
        self.ripe = False


class Connection(asyncio.Protocol):
    """One client. `serve` is called once for each whole request, in order."""

    def __init__(self, serve: Serve, open_connections: set["Connection"]) -> None:
        self._serve = serve
        self._open = open_connections
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Waiting] = deque()
        self._clogged = False
        self._hung = False
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._loop = asyncio.get_running_loop()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by class
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._open.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)

    def pause_writing(self) -> None:
        self._clogged = True
        self._pace()

    def resume_writing(self) -> None:
        self._clogged = False
        self._flush()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Ends with a RST, whatever was still to be written or read."""
        if self._transport is not None:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    # httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._body_bytes = 0
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > LONGEST_BODY_BYTES:
            self._body = []
            self._refuse(413)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        out = self._serve(self._parser.get_method(), self._url, self._headers, body)
        self._answer(out, self._parser.should_keep_alive())

    # answers

    def _answer(self, out: Outgoing, keep_alive: bool) -> None:
        transport = self._transport
        assert transport is not None
        if out.reset:
            self.reset()
            return
        if out.delay_s is None:
            self._hung = True
        if self._hung:
            return  # neither this answer nor any behind it will ever leave
        if isinstance(out.body, bytes):
            data = head(out, keep_alive) + out.body
            if not self._waiting and keep_alive and out.delay_s == 0:
                transport.write(data)
                return
            waiting = _Waiting(data, None, not keep_alive)
        else:
            waiting = _Waiting(head(out, keep_alive), out.body, not keep_alive)
        self._waiting.append(waiting)
        if out.delay_s:
            self._loop.call_later(out.delay_s, self._ripen, waiting)
        else:
            self._ripen(waiting)
        self._pace()

    def _ripen(self, waiting: _Waiting) -> None:
        waiting.ripe = True
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._waiting[0].ripe and not self._clogged and self._transport is not None:
            first = self._waiting[0]
            self._transport.write(first.data)
            part = next(first.parts, None) if first.parts is not None else None
            if part is not None:
                first.data = b"%x\r\n%b\r\n" % (len(part), part)
                continue
            if first.parts is not None:
                self._transport.write(b"0\r\n\r\n")
            self._waiting.popleft()
            if first.last:
                self._transport.close()
        self._pace()

    def _pace(self) -> None:
        """Reads only while answers leave."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = self._clogged or len(self._waiting) >= _MOST_WAITING
        if full and transport.is_reading():
            transport.pause_reading()
        elif not full and not transport.is_reading():
            transport.resume_reading()

    def _refuse(self, status: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(head(Outgoing(status, b""), keep_alive=False))
            self._transport.close()


class HeaderConnection(Connection):
    """A connection that hands on headers too; httptools spends a call on each only where `on_header` exists."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
