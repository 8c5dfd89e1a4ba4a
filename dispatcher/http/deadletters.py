"""Dead letters over HTTP: why messages were not sent, and sending them again."""

from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from dispatcher.deadletter import LetterFilter, ReplayOrder, ShownLetter, shown
from dispatcher.http.auth import line_of
from dispatcher.http.ports import Ports
from dispatcher.http.problem import Problem, json_response, read_body, undecodable, unprocessable
from dispatcher.intake import fault_of

MAX_REPLAY_BYTES: Final = 256 * 1024
Cursor = Annotated[str, Meta(pattern="^[0-9A-Z]{36}$")]
#: A month is more than any letter is kept for by default, and longer than any message should live.
Ttl = Annotated[float, Meta(ge=1, le=31 * 86_400)]
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Page(LetterFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of a list."""

    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100
    cursor: Cursor | None = None


class LetterList(Struct):
    """Letters, newest first. `next`: the cursor of those below them; null: there are no more."""

    letters: list[ShownLetter]
    next: str | None


class Replay(Struct, frozen=True, forbid_unknown_fields=True):
    """Which letters to send again: those a filter sees (`{}`: all), those of these messages, or those of both.

    `limit`: how many of a filter's letters are looked at, newest first; `cursor`: the `next` of the answer before.
    `ttl_s`: how long from now until they expire; each one's own where it is absent.
    """

    filter: LetterFilter | None = None
    ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    ttl_s: Ttl | None = None
    cursor: Cursor | None = None


QUERY: Final = {
    **{name: f"the message's {name}" for name in ("line", "type", "channel", "template", "user")},
    "provider": "who was tried last",
    "code": "that provider's word, or ours (`ttl`: its time ran out)",
    "outcome": "`failed` or `expired`",
    "since": "ended at this time (RFC 3339) or later",
    "until": "ended before this time",
    "limit": "letters in the answer, 1 to 1,000; default 100",
    "cursor": "`next` of the answer before",
}
LIST_TEXT: Final = """Messages that ended `failed` or `expired`: what surely was not sent and no rule blocked. All
filters given must match. Addresses are masked, texts and params are not shown. An answer may hold fewer letters than
`limit` while `next` is not null: then few of many matched. Kept are the newest, within `dead_letters` of the
configuration."""
REPLAY_TEXT: Final = """The same content goes to the same address as a new message, decided by the rules as they are
now, like one whose time has come: no cap is exceeded, quiet hours may postpone it. Its letter is gone once that is
durable, so asking again, at once or after a crash, sends nothing twice. What a rule blocks keeps its letter (`blocked`,
by the rule's kind). Verification codes are only sent again when named in `ids`: an old code is worthless (`skipped`:
`verification`). Other reasons to be passed over: `gone` (there is no such letter, or it was sent again), `filter`
(named, but not seen by the filter), `in_progress`, `replayed`, `overloaded` (half of a lane is left to what comes by
itself), `not_tried` (after such a refusal), `shard_unavailable`, `store_unavailable`, `starting`, `draining`, `moving`.
While `next` is not null there is more: ask again with it as `cursor`."""
_decoder: Final = msgspec.json.Decoder(Replay)


class DeadLetterDocuments:
    """The dead letters. A key that has a line sees and sends those of its line only."""

    def __init__(self, ports: Ports) -> None:
        self._letters = ports.letters

    async def find(self, request: web.Request) -> web.Response:
        """Some of them, newest first."""
        page = _page_of(request)
        found = await self._letters.page(_within(page, line_of(request)), page.cursor, page.limit)
        return json_response(LetterList([shown(letter) for letter in found.letters], found.next))

    async def replay(self, request: web.Request) -> web.Response:
        """Send some again."""
        body = await read_body(request, MAX_REPLAY_BYTES)
        try:
            asked = _decoder.decode(body)
        except _UNREADABLE as error:
            raise undecodable(error, body) from None
        if asked.filter is None and asked.ids is None:
            raise unprocessable([("filter", "give `filter` or `ids`; the filter {} is all of them")])
        if asked.ids is not None and asked.cursor is not None:
            raise unprocessable([("cursor", "goes with a filter, not with `ids`")])
        wanted = _within(asked.filter or LetterFilter(), line_of(request))
        ids = None if asked.ids is None else list(dict.fromkeys(asked.ids))
        return json_response(
            await self._letters.replay(ReplayOrder(wanted, ids, asked.limit, asked.ttl_s, asked.cursor))
        )


def _within(wanted: LetterFilter, line: str | None) -> LetterFilter:
    """The filter as far as a key with this line reaches."""
    if line is None:
        return wanted
    if wanted.line not in (None, line):
        raise Problem(403, f"this key may only see line {line!r}")
    return msgspec.structs.replace(wanted, line=line)


def _page_of(request: web.Request) -> Page:
    query: dict[str, Any] = dict(request.query)
    twice = [(name, "given more than once") for name in query if len(request.query.getall(name)) > 1]
    if twice:
        raise Problem(400, "the query cannot be read", twice)
    try:
        return msgspec.convert(query, Page, strict=False)
    except msgspec.ValidationError as error:
        path, what = fault_of(error, b"")
        raise Problem(400, "the query cannot be read", [(path or "query", what)]) from None
