"""The catalog over HTTP: templates, lines, providers and keyword lists by id; rules and routes as whole lists."""

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiohttp import web

from dispatcher.catalog import DEFAULT_LINE, LIST_ID
from dispatcher.documents import Line
from dispatcher.http import providers
from dispatcher.http.auth import who_of
from dispatcher.http.callbacks import base_url
from dispatcher.http.checks import check, decode, users_of
from dispatcher.http.etag import etag, guard_of, mismatch
from dispatcher.http.ports import Ports
from dispatcher.http.problem import Problem, json_response, read_body, unprocessable
from dispatcher.http.references import noun
from dispatcher.http.settings import Settings
from dispatcher.store.catalog import Versioned
from dispatcher.store.errors import VersionMismatch

_ID: Final = re.compile(r"[^\x00-\x20/\x7f]{1,128}")
_BARE_DEFAULT: Final = Versioned(0, 0, "", msgspec.json.encode(Line(name=DEFAULT_LINE)))


class DocumentVersion(msgspec.Struct, frozen=True):
    """One version of a document; `document` is null where it was deleted."""

    version: int
    at: str
    who: str
    document: Any


class Documents:
    """One kind of the catalog. `whole`: it is one ordered list, not documents by id."""

    def __init__(self, kind: str, ports: Ports, settings: Settings, whole: bool = False) -> None:
        self.kind = kind
        self._whole = whole
        self._catalog = ports.catalog
        self._operations = ports.operations
        self._settings = settings

    # -- reading

    async def get_all(self, request: web.Request) -> web.Response:
        """Every document by its id."""
        found = await self._catalog.list(self.kind)
        if self.kind == "lines":
            found.setdefault(DEFAULT_LINE, _BARE_DEFAULT)
        return json_response({id_: self._shown(found[id_].doc) for id_ in sorted(found)})

    async def get(self, request: web.Request) -> web.Response:
        """One document, with its version as entity tag."""
        id_ = self._id(request)
        versioned = await self._find(id_)
        if versioned is None:
            raise self._unknown(id_)
        document: Any = versioned.doc
        if self.kind == "providers":
            document = await providers.described(
                id_, versioned.doc, self._operations, base_url(request, self._settings)
            )
        return json_response(document, headers={"ETag": etag(versioned.version)})

    async def versions(self, request: web.Request) -> web.Response:
        """The document's history, newest first."""
        id_ = self._id(request)
        history = await self._catalog.history(self.kind, id_)
        if not history and await self._find(id_) is None:
            raise self._unknown(id_)
        return json_response([self._version(versioned) for versioned in history])

    # -- writing

    async def put(self, request: web.Request) -> web.Response:
        """Create or replace."""
        id_ = self._id(request)
        if not _ID.fullmatch(id_):
            raise unprocessable([("id", "1 to 128 characters, no spaces, no control characters")])
        document = decode(self.kind, await read_body(request, self._settings.document_bytes))
        await check(self._catalog, self.kind, id_, document, self._settings)
        before = await self._catalog.get(self.kind, id_)
        guard = guard_of(request, before.version if before else 0)
        if self.kind == "providers":
            document = providers.with_callback_secret(document, before.doc if before else None, self._settings.chance)
        doc = msgspec.json.encode(document)
        try:
            version = await self._catalog.put(self.kind, id_, doc, who_of(request), guard)
        except VersionMismatch as error:
            raise mismatch(error.current) from None
        status = 200 if before or self._whole else 201
        return json_response(self._shown(doc), status=status, headers={"ETag": etag(version)})

    async def delete(self, request: web.Request) -> web.Response:
        """Delete what nothing else names."""
        id_ = self._id(request)
        if (self.kind, id_) == ("lines", DEFAULT_LINE):
            raise Problem(409, f"the line {DEFAULT_LINE!r} always exists")
        before = await self._catalog.get(self.kind, id_)
        guard = guard_of(request, before.version if before else 0)
        if before is None:
            raise self._unknown(id_)
        users = await users_of(self._catalog, self.kind, id_)
        if users:
            raise Problem(409, "other documents name this one", users)
        try:
            await self._catalog.delete(self.kind, id_, who_of(request), guard)
        except VersionMismatch as error:
            raise mismatch(error.current) from None
        return web.Response(status=204)

    # -- details

    def _id(self, request: web.Request) -> str:
        return LIST_ID if self._whole else request.match_info["id"]

    async def _find(self, id_: str) -> Versioned | None:
        found = await self._catalog.get(self.kind, id_)
        if found is None and self._whole:
            return Versioned(0, 0, "", b"[]")
        if found is None and (self.kind, id_) == ("lines", DEFAULT_LINE):
            return _BARE_DEFAULT
        return found

    def _unknown(self, id_: str) -> Problem:
        return Problem(404, f"there is no {noun(self.kind)} {id_!r}")

    def _shown(self, doc: bytes) -> Any:
        if self.kind == "providers":
            return providers.masked(msgspec.json.decode(doc))
        return msgspec.Raw(doc)

    def _version(self, versioned: Versioned) -> DocumentVersion:
        at = datetime.fromtimestamp(versioned.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
        shown = self._shown(versioned.doc) if versioned.doc else None
        return DocumentVersion(versioned.version, at.replace("+00:00", "Z"), versioned.who, shown)
