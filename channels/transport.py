"""The way to a provider: one request, one whole reply, or how far it came."""

import ssl
from functools import lru_cache
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from channels.adapter import NotWritten, Reply, Request, Written
from channels.egress import PublicResolver, public_socket

__all__ = ["LONGEST_REPLY_BYTES", "AiohttpTransport", "NotWritten", "Transport", "Written"]

LONGEST_REPLY_BYTES: Final = 4 * 1024 * 1024
_IDLE_S: Final = 15.0
_AUTO_HEADERS: Final = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Transport(Protocol):
    """Sends requests of one provider."""

    async def send(self, request: Request, timeout_s: float) -> Reply:
        """The whole reply, whatever its status. Raises NotWritten or Written; `timeout_s` spans everything."""
        ...

    async def close(self) -> None: ...


class _Body(aiohttp.BytesPayload):
    """A request's body that knows whether it was handed to the socket.

    aiohttp keeps the headers back until the first byte of the body, so nothing at all was written before. A
    TraceConfig would say the same for about 10 us more a request.
    """

    written = False

    def __init__(self, value: bytes) -> None:
        super().__init__(b"")  # the value is set past aiohttp's warning about bodies over 1 MiB
        self._value = value
        self._size = len(value)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        transport = getattr(writer, "transport", None)
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection closed before the request was written")
        self.written = True
        await writer.write(self._value)


class AiohttpTransport:
    """Kept-alive connections, at most `concurrency`; redirects are not followed, proxies and cookies do not exist.

    `ca_file` is a path or the PEM text itself. The session opens with the first request, on that request's loop.
    """

    def __init__(self, concurrency: int, allow_private: bool = False, ca_file: str | None = None) -> None:
        self._concurrency = concurrency
        self._allow_private = allow_private
        self._tls = _tls_context(ca_file)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, timeout_s: float) -> Reply:
        session = self._session or self._open()
        body = _Body(request.body)
        try:
            response = await session.request(
                request.method,
                _url(request.url),
                data=body,
                headers=request.headers,
                allow_redirects=False,
                timeout=_timeout(timeout_s),
            )
            content = await _read(response)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            why = f"no reply within {timeout_s:g} s" if isinstance(error, TimeoutError) else _words(error)
            raise (Written if body.written else NotWritten)(why) from None
        return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, content)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        gate: dict[str, Any] = {}
        if not self._allow_private:
            gate = {"resolver": PublicResolver(aiohttp.ThreadedResolver()), "socket_factory": public_socket}
        connector = aiohttp.TCPConnector(
            limit=self._concurrency, keepalive_timeout=_IDLE_S, ssl=True if self._tls is None else self._tls, **gate
        )
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTO_HEADERS,
            auto_decompress=False,
            trust_env=False,
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


def _words(error: Exception) -> str:
    """What went wrong, without the URL that some of aiohttp's texts hold: it may carry a token."""
    text = str(error)
    return text if text and "://" not in text and not isinstance(error, aiohttp.InvalidURL) else type(error).__name__


def _tls_context(ca_file: str | None) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    if "-----BEGIN" in ca_file:
        return ssl.create_default_context(cadata=ca_file)
    return ssl.create_default_context(cafile=ca_file)


@lru_cache(maxsize=1024)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=1024)
def _timeout(timeout_s: float) -> aiohttp.ClientTimeout:
    # Without the threshold aiohttp rounds timeouts above 5 s up to whole seconds of the loop's clock.
    return aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=1e9)
