"""The blacklist over HTTP. An entry's id follows from whom and what it blocks, so adding it twice is harmless."""

from typing import Final

import msgspec
from aiohttp import web

from dispatcher.address import normalise
from dispatcher.catalog import DEFAULT_LINE
from dispatcher.documents import BlacklistEntry
from dispatcher.http.auth import who_of
from dispatcher.http.bulk import Bulk, Refused
from dispatcher.http.ports import Catalog, Ports
from dispatcher.http.problem import Problem, json_response, read_body, undecodable, unprocessable
from dispatcher.http.settings import Settings
from dispatcher.http.wire import NDJSON
from dispatcher.intake import fault_of
from dispatcher.store.blacklist import StoredEntry, stored_entry

MAX_ENTRY_BYTES: Final = 64 * 1024
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decoder: Final = msgspec.json.Decoder(BlacklistEntry)


class BlacklistDocuments:
    """The blacklist's entries."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self._blacklist = ports.blacklist
        self._catalog = ports.catalog
        self._region = settings.region

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Add one entry, or many as NDJSON."""
        who, lines = who_of(request), await _lines(self._catalog)
        if request.content_type == NDJSON:

            async def store(entries: list[StoredEntry]) -> None:
                await self._blacklist.put_many(entries, who)

            return await Bulk(lambda line: self._read(line, lines), store).run(request)
        body = await read_body(request, MAX_ENTRY_BYTES)
        try:
            entry = _decoder.decode(body)
        except _UNREADABLE as error:
            raise undecodable(error, body) from None
        errors, spelt = check_entry(entry, lines, self._region)
        if errors:
            raise unprocessable(errors)
        stored = stored_entry(spelt)
        await self._blacklist.put_many([stored], who)
        headers = {"Location": f"/v1/blacklist/{stored.id}"}
        return json_response(_shown(stored.id, stored.doc), status=201, headers=headers)

    async def find(self, request: web.Request) -> web.Response:
        """The entries of one user or address."""
        query = request.query
        if len(query) != 1 or not (query.get("user") or query.get("address")):
            raise Problem(400, "the query cannot be read", [("user", "give either `user` or `address`")])
        address = query.get("address")
        if address is not None:
            address = one_spelling(address, None, self._region) or address
        found = await self._blacklist.find(query.get("user"), address)
        return json_response([_shown(id_, doc) for id_, doc in found])

    async def get(self, request: web.Request) -> web.Response:
        """One entry."""
        id_ = request.match_info["id"]
        doc = await self._blacklist.get(id_)
        if doc is None:
            raise Problem(404, f"there is no entry {id_!r}")
        return json_response(_shown(id_, doc))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove an entry."""
        id_ = request.match_info["id"]
        if not await self._blacklist.delete(id_, who_of(request)):
            raise Problem(404, f"there is no entry {id_!r}")
        return web.Response(status=204)

    def _read(self, line: bytes, lines: set[str]) -> StoredEntry:
        try:
            entry = _decoder.decode(line)
        except _UNREADABLE as error:
            path, what = fault_of(error, line)
            raise Refused(f"invalid: {path or 'line'}: {what}") from None
        errors, spelt = check_entry(entry, lines, self._region)
        if errors:
            raise Refused(f"invalid: {errors[0][0]}: {errors[0][1]}", entry.user or entry.address)
        return stored_entry(spelt)


def _shown(id_: str, doc: bytes) -> BlacklistEntry:
    return msgspec.structs.replace(_decoder.decode(doc), id=id_)


async def _lines(catalog: Catalog) -> set[str]:
    return {DEFAULT_LINE, *await catalog.ids("lines")}


def one_spelling(address: str, channel: str | None, region: str) -> str | None:
    """The address as messages carry it; None when it cannot be one. Without a channel, by its looks."""
    if channel is not None:
        return normalise(channel, address, region)
    if "@" in address:
        return normalise("email", address, region)
    return normalise("sms", address, region) or normalise("push", address, region)


def check_entry(
    entry: BlacklistEntry, lines: set[str], region: str
) -> tuple[list[tuple[str, str]], BlacklistEntry]:
    """`(path, message)` for what the type cannot say, and the entry with its address in the one spelling."""
    errors = []
    if (entry.user is None) == (entry.address is None):
        errors.append(("user", "give either `user` or `address`"))
    if entry.address is not None:
        spelt = one_spelling(entry.address, entry.channel, region)
        if spelt is None:
            errors.append(("address", "this is no address" + (f" of {entry.channel}" if entry.channel else "")))
        elif spelt != entry.address:
            entry = msgspec.structs.replace(entry, address=spelt)
    if entry.expires_at is not None and entry.expires_at.tzinfo is None:
        errors.append(("expires_at", "needs an offset from UTC, such as Z or +08:00"))
    if entry.line is not None and entry.line not in lines:
        errors.append(("line", f"there is no line {entry.line!r}"))
    return errors, entry
