"""`Client`: what a Python service needs of the dispatcher."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from random import Random
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import msgspec

from dispatcher.client.answers import AnswerLine, Result, Results, Summary, UserLoad
from dispatcher.client.errors import BadAnswer, Cut, Unavailable
from dispatcher.client.ledger import first_answer
from dispatcher.client.lines import AnyTrigger, Ids, encode_line, in_chunks
from dispatcher.client.retrying import Retrying
from dispatcher.client.stream import Stream
from dispatcher.client.wire import FIRST_ERROR, broken_connections, read_bulk, read_json, read_line, refusal, url_fault

USERS_A_REQUEST: Final = 1000
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"


class Client:
    """A dispatcher at `url`; an async context manager.

    `key`: the bearer key. `window`: how many triggers a stream holds unanswered. `patience_s`: how long it goes on
    trying without progress. `rng`: for jitter and new ids; give one only in tests, equal seeds make equal ids.
    Raises ValueError for what is no HTTP address.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        window: int = 8192,
        patience_s: float = 60.0,
        rng: Random | None = None,
    ) -> None:
        if (fault := url_fault(url)) is not None:
            raise ValueError(f"url: {url!r} {fault}")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._window = window
        self._patience_s = patience_s
        self._rng = rng or Random()  # seeded by the operating system
        self._ids = Ids(self._rng)
        self._session: aiohttp.ClientSession | None = None
        self._stream: Stream | None = None
        self._running: set[Stream] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=256 * 1024,
        )
        # aiohttp would repeat PUT and DELETE by itself, which `if_match` must not; nothing public switches that off.
        self._session._retry_connection = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in list(self._running):
            await stream.stop()
        if self._session is not None:
            await self._session.close()

    @property
    def summary(self) -> Summary:
        """The counts of the stream that was started last, at any time; complete once it has ended."""
        return self._stream.summary if self._stream is not None else Summary()

    @property
    def trouble(self) -> str | None:
        """Why the stream that was started last gets no answers, while it tries again; None when all is well."""
        return self._stream.trouble if self._stream is not None else None

    async def stream(
        self, triggers: Iterable[AnyTrigger] | AsyncIterable[AnyTrigger], results: Results = "all"
    ) -> AsyncGenerator[Result, None]:
        """Send triggers as they come; yields each wanted result once, not in order.

        A Trigger, a mapping or the bytes of a JSON object; one without an id gets one. What cannot be written as JSON
        is answered `rejected` here. Raises Problem, BadAnswer, GaveUp, and what the iterable raises once the triggers
        before it are answered.
        """
        stream = Stream(triggers, results, self._post_triggers)
        self._stream = stream
        self._running.add(stream)
        try:
            retrying = Retrying(self._patience_s, self._rng)
            async with aclosing(stream.run(self._window, self._ids, retrying, self._patience_s / 2)) as answers:
                async for result in answers:
                    yield result
        finally:
            self._running.discard(stream)

    async def send(self, trigger: AnyTrigger) -> Result:
        """Send one trigger; a resend after a cut connection never makes a second message."""
        line = encode_line(trigger, self._ids)
        body, attempts = await self._request("POST", "/v1/triggers", line.data, JSON)
        try:
            answer = msgspec.json.decode(body, type=AnswerLine)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"not a result: {error}") from error
        return first_answer(answer, 0, line.id, resent=attempts > 1)

    async def send_many(self, triggers: Iterable[AnyTrigger]) -> list[Result]:
        """Send triggers of any number; the results are in their order."""
        answered = [result async for result in self.stream(triggers)]
        return sorted(answered, key=lambda result: result.seq)

    async def put_user(self, user: str, document: Mapping[str, Any]) -> Any:
        """Create or replace a user."""
        return await self.put(f"/v1/users/{quote(user, safe='')}", document)

    async def put_users(self, users: Iterable[tuple[str, Mapping[str, Any]]]) -> UserLoad:
        """Create or replace many users in bulk. Bad ones cost only themselves and are listed in `errors`."""
        total = 0
        errors: list[dict[str, Any]] = []
        lines: list[bytes] = []
        for user, document in users:
            lines.append(msgspec.json.encode({"user": user, **document}))
            if len(lines) == USERS_A_REQUEST:
                errors += await self._put_part(lines, total)
                total += len(lines)
                lines = []
        if lines:
            errors += await self._put_part(lines, total)
        return UserLoad(total + len(lines), errors)

    async def load(self, path: str, lines: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream lines of JSON to a path that takes many (`/v1/blacklist`, `/v1/users`); yields its answers as they
        come: `{"seq", "error"}` for a line that is wrong, `{"progress"}` about once a second, `{"summary"}` last.

        Nothing is repeated: a connection that is cut is raised as Cut. Sending everything again is harmless.
        """
        async with self._posted(in_chunks(lines), f"{self._url}{path}?progress=true") as response:
            if response.status >= FIRST_ERROR:
                raise await refusal(response)
            last: dict[str, Any] = {}
            with broken_connections():
                async for line in response.content:
                    last = read_line(line)
                    yield last
            if "summary" not in last:
                raise Cut("the answer ended before its summary")

    async def get(self, path: str) -> Any:
        """The JSON document at `path` (`/v1/...`)."""
        return read_json((await self._request("GET", path))[0])

    async def put(self, path: str, document: Any, if_match: str | None = None) -> Any:
        """Replace the document at `path`. With `if_match` a cut connection is raised as Cut: it cannot be repeated."""
        body = msgspec.json.encode(document)
        return read_json((await self._request("PUT", path, body, JSON, if_match))[0])

    async def delete(self, path: str, if_match: str | None = None) -> Any:
        """Delete the document at `path`. `if_match` as for `put`."""
        return read_json((await self._request("DELETE", path, None, JSON, if_match))[0])

    async def _put_part(self, lines: list[bytes], first_seq: int) -> list[dict[str, Any]]:
        body, _ = await self._request("POST", "/v1/users", b"\n".join(lines) + b"\n", NDJSON)
        errors = read_bulk(body)
        return [{**error, "seq": error.get("seq", 0) + first_seq} for error in errors]

    async def _request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = JSON, if_match: str | None = None
    ) -> tuple[bytes, int]:
        """`(answer, attempts)`. Repeats after a cut connection, 429 and 5xx: every call is idempotent."""
        headers = {"Content-Type": content_type} if body is not None else {}
        if if_match is not None:
            headers["If-Match"] = if_match
        retrying = Retrying(self._patience_s, self._rng)
        attempts = 0
        while True:
            attempts += 1
            try:
                return await self._attempt(method, path, body, headers), attempts
            except (Cut, Unavailable) as error:
                if if_match is not None and isinstance(error, Cut):
                    raise
                await retrying.pause(error, 1)

    async def _attempt(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        with broken_connections():
            async with (
                asyncio.timeout(self._patience_s / 2),
                self._opened().request(
                    method, self._url + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                if response.status >= FIRST_ERROR:
                    raise await refusal(response)
                return await response.read()

    def _post_triggers(
        self, body: AsyncIterable[bytes], results: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._posted(body, f"{self._url}/v1/triggers?results={results}")

    @asynccontextmanager
    async def _posted(self, body: AsyncIterable[bytes], url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        with broken_connections():
            async with asyncio.timeout(self._patience_s / 2):
                response = await self._opened().post(
                    url, data=body, headers={"Content-Type": NDJSON}, allow_redirects=False
                )
        try:
            yield response
        finally:
            response.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with Client(url) as client`")
        return self._session
