"""The same way to a provider over aiohttp's client. Only tests and benches choose it.

It is here so that our own client has a twin to be held against: one contract suite and one fuzz of odd servers run over
both, and the bench has what the field would use. The dispatcher takes `channels.lean`: it costs a fifth of the CPU, and
knows for certain what aiohttp can only be asked about from outside:

- Whether anything was written. aiohttp keeps the headers back until the body's first byte, so what came before the body
  was asked for is NotWritten for certain; from then on it says Written, though the bytes may still be in a buffer.
- When all was written. aiohttp counts the last 64 KiB as written that asyncio still holds, so `write_s` ends early.
- Which replies are sound. Its parser forgives: bare line feeds, spaces after a chunk's size, control characters in
  headers. Where that leaves no doubt about the body it is let through here; both never give a wrong body.
"""

import asyncio
import socket
from functools import lru_cache
from typing import Any, Final

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from channels.adapter import NotWritten, Reply, Request, Written
from channels.egress import AddressRefused, is_public
from channels.head import head_of
from channels.tls import tls_context
from channels.transport import LONGEST_REPLY_BYTES, PHASES, Phases, Watch

_IDLE_S: Final = 15.0
_LONGEST_FIELD_BYTES: Final = 64 * 1024
_MOST_HEADERS: Final = 256
_AUTO_HEADERS: Final = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")
_CLOSED: Final = "the transport was closed"


class _Clock:
    """The deadline of one exchange: that of the whole, and within it that of the phase."""

    def __init__(self, limit: asyncio.Timeout, timeout_s: float, phases: Phases) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._whole_s = self._loop.time() + timeout_s
        self._phases = phases
        self._why = f"no reply within {timeout_s:g} s"
        self.why = f"no connection within {timeout_s:g} s"
        self.written = False
        limit.reschedule(self._whole_s)

    def write(self) -> None:
        """The first byte is being written."""
        self.written = True
        self._phase(self._phases.write_s, f"not written whole within {self._phases.write_s:g} s")

    def wait(self) -> None:
        """All is written."""
        self._phase(self._phases.first_byte_s, f"no byte of a reply within {self._phases.first_byte_s:g} s")

    def read(self) -> None:
        """A reply has begun."""
        self._phase(float("inf"), "")

    def _phase(self, seconds: float, why: str) -> None:
        until_s = self._loop.time() + seconds
        self.why = why if until_s < self._whole_s else self._why
        if not self._limit.expired():
            self._limit.reschedule(min(until_s, self._whole_s))


class _Body(aiohttp.BytesPayload):
    """A request's body that says when it is asked for. A TraceConfig would say the same for about 10 us more."""

    def __init__(self, value: bytes, clock: _Clock, watch: Watch | None) -> None:
        super().__init__(b"")  # the value is set past aiohttp's warning about bodies over 1 MiB
        self._value = value
        self._size = len(value)
        self._clock = clock
        self._watch = watch

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        transport = getattr(writer, "transport", None)
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection closed before the request was written")
        self._clock.write()
        await writer.write(self._value)
        self._clock.wait()
        if self._watch is not None:
            self._watch.written()


class AiohttpTransport:
    """Kept-alive connections, at most `concurrency`; redirects are not followed, proxies and cookies do not exist.

    `ca_file` is a path or the PEM text itself; what is wrong with it is raised here, as OSError. The session opens with
    the first request, on that request's loop. After `close` every request is NotWritten.
    """

    def __init__(
        self,
        concurrency: int,
        allow_private: bool = False,
        ca_file: str | None = None,
        phases: Phases = PHASES,
    ) -> None:
        self._concurrency = concurrency
        self._allow_private = allow_private
        self._phases = phases
        self._tls = None if ca_file is None else tls_context(ca_file)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        try:
            head_of(request)
        except ValueError as error:
            raise NotWritten(str(error)) from None
        if self._closed:
            raise NotWritten(_CLOSED)
        session = self._session or self._open()
        async with asyncio.timeout(None) as limit:
            clock = _Clock(limit, timeout_s, self._phases)
            try:
                if watch is not None:
                    watch.begin()
                return await self._exchange(session, request, clock, watch)
            except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
                why = _CLOSED if self._closed else self._said(error)
                raise (Written if clock.written else NotWritten)(why) from None
            except asyncio.CancelledError:
                if not limit.expired():
                    raise
                raise (Written if clock.written else NotWritten)(clock.why) from None
        raise AssertionError  # not reached: the block returns or raises

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request, clock: _Clock, watch: Watch | None
    ) -> Reply:
        async with session.request(
            request.method,
            _url(request.url),
            data=_Body(request.body, clock, watch),
            headers=request.headers,
            allow_redirects=False,
            timeout=_timeout(self._phases.connect_s),
        ) as response:
            clock.read()
            if response.status < 200:  # 101: another protocol, which was not asked for
                response.close()
                raise ValueError("unreadable reply: it is none")
            content = await _read(response)
        return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, content)

    def _said(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"no connection within {self._phases.connect_s:g} s"
        return _words(error)

    async def close(self) -> None:
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        gate: dict[str, Any] = {} if self._allow_private else {"socket_factory": _public_socket}
        connector = aiohttp.TCPConnector(
            limit=self._concurrency, keepalive_timeout=_IDLE_S, ssl=True if self._tls is None else self._tls, **gate
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTO_HEADERS,
            auto_decompress=False,
            trust_env=False,
            max_line_size=_LONGEST_FIELD_BYTES,
            max_field_size=_LONGEST_FIELD_BYTES,
            max_headers=_MOST_HEADERS,
        )
        # aiohttp would resend PUT and GET by itself on a broken kept-alive connection; whether to is not its choice.
        session._retry_connection = False
        self._session = session
        return session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= LONGEST_REPLY_BYTES:
        return await response.read()
    parts = bytearray()
    try:
        async for part in response.content.iter_any():
            parts += part
            if len(parts) > LONGEST_REPLY_BYTES:
                raise ValueError(f"the reply is longer than {LONGEST_REPLY_BYTES} bytes")
    except BaseException:  # cancelled too: the rest of the reply must not meet the next request
        response.close()
        raise
    return bytes(parts)


def _public_socket(address: AddrInfoType) -> socket.socket:
    """A socket for an address about to be connected to, literal ones included. Raises AddressRefused."""
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise AddressRefused("no public address (allow_private is off)")
    return socket.socket(family, kind, protocol)


def _words(error: Exception) -> str:
    """What went wrong, without the URL that some of aiohttp's texts hold: it may carry a token."""
    text = str(error)
    return text if text and "://" not in text and not isinstance(error, aiohttp.InvalidURL) else type(error).__name__


@lru_cache(maxsize=1024)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    # Without the threshold aiohttp rounds timeouts above 5 s up to whole seconds of the loop's clock.
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s, ceil_threshold=1e9)
