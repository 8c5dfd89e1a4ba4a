"""A provider's access token, shared by its senders: the pool's first sender fetches it, the others ask that one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from actors.ports import Call, PeerGone
from channels.adapter import NoToken, NotWritten, Token, Tokened, Written
from channels.transport import Transport
from dispatcher.receipt import Answer

#: A token is fetched anew so long before it runs out, or a tenth of its life if that is less: no request shall carry
#: one that just did.
EARLY_S: Final = 300.0
#: After a failure the vendor is not asked again for so long.
PAUSE_S: Final = 2.0
FETCH_S: Final = 10.0

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()


class TokenAnswer(Struct, array_like=True):
    """A token, or why there is none."""

    value: str = ""
    expires_s: float = 0.0
    answer: Answer = "transient"
    why: str = ""

    def __repr__(self) -> str:
        return f"TokenAnswer({self.why or 'a token'})"


_decoder: Final = msgspec.msgpack.Decoder(TokenAnswer)
_stale_decoder: Final = msgspec.msgpack.Decoder(str)


class Tokens:
    """What one sender knows. `first`: the call to the pool's first sender; None for that one itself."""

    def __init__(self, first: Call | None, clock_s: Callable[[], float]) -> None:
        self._first = first
        self._clock_s = clock_s  # epoch seconds
        self._fetch: Callable[[], Awaitable[Token]] | None = None
        self._token: Token | None = None
        self._failure: NoToken | None = None
        self._failed_s = float("-inf")
        self._replaced_s = float("-inf")
        self._early_s = 0.0
        self._lock = asyncio.Lock()

    def configure(self, adapter: Tokened, transport: Transport) -> None:
        """A new document: what was fetched under the old one is forgotten."""

        async def fetch() -> Token:
            reply = await transport.send(adapter.token_request(self._clock_s()), FETCH_S)
            return adapter.token_of(reply, self._clock_s())

        self._fetch, self._token, self._failure = fetch, None, None
        self._replaced_s = float("-inf")

    async def get(self, stale: str = "") -> str:
        """A token that is good; `stale` is one that the vendor refused. Raises NoToken."""
        token = self._good(stale)
        if token is not None:
            return token
        async with self._lock:
            token = self._good(stale)
            if token is not None:
                return token
            if self._failure is not None and self._clock_s() < self._failed_s + PAUSE_S:
                return self._make_do(stale, self._failure)
            if self._refuses(stale):
                raise NoToken("auth", "the vendor refuses a token that it just gave")
            return await self._renewed(stale)

    async def _renewed(self, stale: str) -> str:
        fetch = self._fetch
        try:
            found = await (self._asked(stale) if self._first is not None else self._fetched())
        except NoToken as error:
            if self._fetch is not fetch:  # of the document before, and no word on this one
                raise
            self._failure, self._failed_s = NoToken(error.answer, str(error)), self._clock_s()
            return self._make_do(stale, error)
        if self._fetch is not fetch:
            raise NoToken("transient", "the provider was configured anew meanwhile")
        now_s = self._clock_s()
        self._token, self._failure = found, None
        if stale:
            self._replaced_s = now_s
        self._early_s = min(EARLY_S, max(found.expires_s - now_s, 0.0) / 10)
        return found.value

    def _make_do(self, stale: str, error: NoToken) -> str:
        """There is no new token: the old one is good for a while yet, unless it was refused."""
        if self._token is not None and self._token.value != stale and self._left_s() > 0:
            return self._token.value
        raise NoToken(error.answer, str(error))  # a new one: each raise adds to an exception's traceback

    def _refuses(self, stale: str) -> bool:
        """Whether it is the token that replaced a refused one a moment ago: no use in asking for one every message."""
        if self._token is None or not stale or self._token.value != stale:
            return False
        return self._clock_s() < self._replaced_s + PAUSE_S

    async def lend(self, stale: bytes) -> bytes:
        """Another sender of the pool asks; `stale` as in `get`, msgpack."""
        try:
            value = await self.get(_stale_decoder.decode(stale))
        except NoToken as error:
            return _encoder.encode(TokenAnswer(answer=error.answer, why=str(error)))
        expires_s = self._token.expires_s if self._token is not None else 0.0
        return _encoder.encode(TokenAnswer(value, expires_s))

    def _good(self, stale: str) -> str | None:
        token = self._token
        return token.value if token is not None and token.value != stale and self._left_s() > self._early_s else None

    def _left_s(self) -> float:
        return self._token.expires_s - self._clock_s() if self._token is not None else 0.0

    async def _fetched(self) -> Token:
        if self._fetch is None:
            raise NoToken("transient", "this sender's provider is not configured yet")
        try:
            return await self._fetch()
        except NotWritten as error:
            raise NoToken("transient", f"token: {error}") from None
        except Written as error:  # asking twice for a token harms nobody
            raise NoToken("transient", f"token: no reply: {error}") from None

    async def _asked(self, stale: str) -> Token:
        assert self._first is not None
        try:
            told = _decoder.decode(await self._first(_encoder.encode(stale)))
        except PeerGone:
            raise NoToken("transient", "token: the pool's first sender is gone") from None
        if not told.value:
            raise NoToken(told.answer, told.why)
        return Token(told.value, told.expires_s)
