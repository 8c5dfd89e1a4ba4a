"""Users over HTTP: one profile by its id, or many as NDJSON."""

from typing import Any, Final
from zoneinfo import ZoneInfoNotFoundError

import msgspec
from aiohttp import web

from dispatcher.calendar import calendar_of
from dispatcher.documents import User
from dispatcher.http.bulk import Bulk, Refused
from dispatcher.http.ports import Ports
from dispatcher.http.problem import Problem, json_response, read_body, undecodable, unprocessable
from dispatcher.http.wire import NDJSON
from dispatcher.intake import fault_of
from dispatcher.profile import decode_user
from dispatcher.trigger import Id

MAX_USER_BYTES: Final = 64 * 1024
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class NamedUser(User, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A profile with whose it is, as in a bulk upsert."""

    user: Id


_decoder: Final = msgspec.json.Decoder(User)
_named_decoder: Final = msgspec.json.Decoder(NamedUser)
_ids: Final = msgspec.json.Decoder(Id)
_FIELDS: Final = frozenset(User.__struct_fields__)


class UserDocuments:
    """The users' profiles."""

    def __init__(self, ports: Ports) -> None:
        self._users = ports.users

    async def get(self, request: web.Request) -> web.Response:
        """One profile."""
        user = _user_of(request)
        doc = await self._users.get(user)
        if doc is None:
            raise _unknown(user)
        return json_response(_shown(doc))

    async def put(self, request: web.Request) -> web.Response:
        """Create or replace."""
        user = _user_of(request)
        body = await read_body(request, MAX_USER_BYTES)
        try:
            document = _decoder.decode(body)
        except _UNREADABLE as error:
            raise undecodable(error, body) from None
        if not _is_zone(document.timezone):
            raise unprocessable([("timezone", f"there is no time zone {document.timezone!r}")])
        doc = msgspec.json.encode(document)
        await self._users.put(user, doc)
        return json_response(doc)

    async def patch(self, request: web.Request) -> web.Response:
        """Merge (RFC 7396): null removes."""
        user = _user_of(request)
        body = await read_body(request, MAX_USER_BYTES)
        try:
            patch = msgspec.json.decode(body)
        except _UNREADABLE as error:
            raise undecodable(error, body) from None
        errors = _patch_errors(patch)
        if errors:
            raise unprocessable(errors)
        try:
            merged = await self._users.patch(user, msgspec.json.encode(patch))
        except msgspec.ValidationError as error:
            raise undecodable(error, body) from None
        if merged is None:
            raise _unknown(user)
        return json_response(_shown(merged))

    async def delete(self, request: web.Request) -> web.Response:
        """Forget the profile."""
        user = _user_of(request)
        if not await self._users.delete(user):
            raise _unknown(user)
        return web.Response(status=204)

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Upsert many."""
        if request.content_type != NDJSON:
            raise Problem(415, f"send {NDJSON}", headers={"Accept-Post": NDJSON})
        return await Bulk(_read, self._users.put_many).run(request)


def _read(line: bytes) -> tuple[str, bytes]:
    try:
        named = _named_decoder.decode(line)
    except _UNREADABLE as error:
        path, what = fault_of(error, line)
        raise Refused(f"invalid: {path or 'line'}: {what}", _id_in(line)) from None
    if not _is_zone(named.timezone):
        raise Refused(f"invalid: timezone: there is no time zone {named.timezone!r}", named.user)
    return named.user, msgspec.json.encode(User(named.addresses, named.timezone, named.tags))


def _id_in(line: bytes) -> str | None:
    try:
        found = msgspec.json.decode(line)
    except _UNREADABLE:
        return None
    user = found.get("user") if isinstance(found, dict) else None
    return user[:128] if isinstance(user, str) else None


def _user_of(request: web.Request) -> str:
    user = request.match_info["user"]
    if not 1 <= len(user) <= 128:
        raise unprocessable([("user", "1 to 128 characters")])
    return user


def _unknown(user: str) -> Problem:
    return Problem(404, f"there is no user {user!r}")


def _shown(doc: bytes) -> bytes:
    """What people wrote, without what the dispatcher noted beside it."""
    user = decode_user(doc)
    return msgspec.json.encode(User(user.addresses, user.timezone, user.tags))


def _patch_errors(patch: Any) -> list[tuple[str, str]]:
    if not isinstance(patch, dict):
        return [("", "expected an object")]
    errors = [(str(name), "unknown field") for name in patch if name not in _FIELDS]
    zone = patch.get("timezone")
    if isinstance(zone, str) and not _is_zone(zone):
        errors.append(("timezone", f"there is no time zone {zone!r}"))
    return errors


def _is_zone(name: str | None) -> bool:
    if name is None:
        return True
    try:
        calendar_of(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
